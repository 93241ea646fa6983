"""The command `export`: a run's model in the file format of another library, checked by that library."""
