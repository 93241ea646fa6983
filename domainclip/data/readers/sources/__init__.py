"""File formats that readers share: columns of tables, tar shards, Parquet, DICOM studies and reports."""
