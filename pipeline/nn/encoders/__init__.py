"""Encoders: from frames to what CTC or a transducer reads."""
