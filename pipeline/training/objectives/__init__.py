"""Training objectives, one file for each."""
