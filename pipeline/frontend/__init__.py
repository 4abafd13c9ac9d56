"""From recordings to features: audio, filter banks, time derivatives and normalisation."""
