"""Scoring: alignments, error counts, scoring rules, confidence intervals and output files."""
