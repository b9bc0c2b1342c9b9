"""Losses: what the prediction is compared to, and how. One file, one plugin."""
