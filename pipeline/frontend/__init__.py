"""From recordings to features: audio, filter banks, derivatives, normalisation."""
