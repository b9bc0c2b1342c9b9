"""Grids: one file describes many runs, which a launcher does and a page compares."""
