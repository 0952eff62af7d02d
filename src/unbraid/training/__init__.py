"""Training; the one place that knows Lightning."""
