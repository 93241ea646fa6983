"""Terms of the loss, one a file. They see Views and nothing else."""
