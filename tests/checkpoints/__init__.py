"""Tiny checkpoints in the layout that hubs have, built with real classes and real tokenizers."""
