"""Measures (dB, higher is better), losses (lower is better), and who is compared with whom."""
