"""The command `init`: look at a corpus, guess its card and a recipe, and write both with the reasons."""
