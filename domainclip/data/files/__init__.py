"""Files of a corpus: locations inside files, folders, tables, tars, remote ranges."""
