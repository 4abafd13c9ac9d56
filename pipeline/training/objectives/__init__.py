"""What a network is trained on: one file an objective."""
