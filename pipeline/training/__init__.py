"""Training: the loop, its objectives, batches, weight noise and checkpoints."""
