"""The papers' networks: encoder, predictor, joiner, and `build_model` that puts them together."""
