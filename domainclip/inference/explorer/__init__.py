"""The page of `explore`: the answers of several models side by side, for the browser of this machine."""
