"""The networks: encoder, predictor and joiner, and `build_model`, which makes a model of them."""
