"""One visible training loop and what it needs: batches, weight noise, checkpoints."""
