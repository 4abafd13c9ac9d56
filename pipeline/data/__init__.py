"""Kaldi data directories and the text tables in them."""
