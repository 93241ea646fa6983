"""The command `audit`: what a run folder shows about its files, its data, its licences and its repetition."""
