"""The commands `data check` and `data preview`: the checks of a corpus, before anything is trained."""
