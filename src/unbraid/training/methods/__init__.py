"""Learning methods, one file each: what the loss of a batch is."""
