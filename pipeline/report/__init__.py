"""One self-contained page about what a set of models can do."""
