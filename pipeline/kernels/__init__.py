"""Arithmetic only: tensors in, tensors out. No files, no utterance ids, no options."""
