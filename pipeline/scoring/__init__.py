"""Scores: alignments, error counts, what they depend on, how sure they are, and their files."""
