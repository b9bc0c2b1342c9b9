"""Backbones: pretrained text-to-video models. One file, one plugin."""
