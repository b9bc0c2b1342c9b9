"""Controls: what leads a video while it is sampled. One file, one plugin."""
