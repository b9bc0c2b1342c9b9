"""Ground truth: what a video of the world shows, found in its pixels.

A video is (3, F, SIZE, SIZE) in [0, 1]; a place is (y, x) in px from the top left corner.
"""
