"""Pocket: the embedded text-to-video model and its procedurally drawn world."""
