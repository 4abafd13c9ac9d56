"""The papers' pictures and ours, with matplotlib."""
