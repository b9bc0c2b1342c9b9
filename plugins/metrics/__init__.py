"""Metrics: what is measured of a generated video. One file, one plugin."""
