"""What is measured, one probe a file: per-item scores first, figures from them."""
