"""From a model directory to phones."""
