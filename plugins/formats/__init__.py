"""Formats: layouts of adapter files that other tools have. One file, one plugin."""
