"""Search with CTC networks and transducers, and language models for it."""
