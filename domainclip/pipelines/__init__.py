"""The commands, one file or folder each: hops that take values and give the next."""
