"""Connectionist temporal classification: the loss."""
