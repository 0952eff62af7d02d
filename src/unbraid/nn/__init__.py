"""Network blocks that at least two models share."""
