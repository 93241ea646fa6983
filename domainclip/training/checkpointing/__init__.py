"""Checkpoints that survive a kill: written atomically, verified, resumed; and the signals that end a run."""
