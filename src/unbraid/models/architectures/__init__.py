"""One file per published system; ``models.registry`` finds every file here by itself."""
