"""Submit a run as a SLURM job that resumes itself after its time limit."""
