"""Trained models on disk, and what every use of one shares."""
