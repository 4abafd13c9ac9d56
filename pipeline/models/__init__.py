"""Trained models on disk, and the functions that every use of a model shares."""
