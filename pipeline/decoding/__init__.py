"""Recognition of features and recordings with a trained model."""
