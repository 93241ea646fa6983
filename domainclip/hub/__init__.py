"""Push a run to the Hub: allow-listed files only, searched for private data; private by default."""
