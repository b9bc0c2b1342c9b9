"""Launchers of grids. One file, one plugin."""
