"""Encoders: networks from feature frames to the vectors that CTC or a transducer reads."""
