"""Image encoders: what adapters can be conditioned on. One file, one plugin."""
