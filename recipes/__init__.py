"""Shipped recipes: one experiment per file."""
