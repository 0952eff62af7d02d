"""Signal processing as plain functions on tensors; knows nothing of models or prompts."""
