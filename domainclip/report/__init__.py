"""What was measured, for people and for programs: report.html, report.md, results.json, items.parquet."""
