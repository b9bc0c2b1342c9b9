"""Datasets of subjects and motions: how they lie on disk, what is missing, and grids over them."""
