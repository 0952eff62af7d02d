"""Corpora: manifests, the clips of each prompt, and the mixtures made of them."""
