"""Separation models: one file per published system, and the wrapper around them all."""
