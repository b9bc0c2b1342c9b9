"""Adapters: what is trained beside a frozen denoiser. One file, one plugin."""
