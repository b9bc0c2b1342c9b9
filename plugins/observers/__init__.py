"""Observers: what is told about a run while it goes on. One file, one plugin."""
