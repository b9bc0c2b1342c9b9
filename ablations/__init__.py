"""Shipped ablation grids: a base recipe and its variants."""
