"""How good a model is, on mixtures with known sources."""
