"""One interface to all checkpoint families: load, preprocess, tokenize, encode, train, save."""
