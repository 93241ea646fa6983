"""The command `tune`: strategy, learning rate and other settings, chosen on the validation split."""
