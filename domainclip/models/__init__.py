"""One interface over the checkpoint families: load, preprocess, tokenise, encode, choose, save."""
