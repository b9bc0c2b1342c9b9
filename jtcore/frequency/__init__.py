"""`jt-freq`: what shifts, losses, runs and adapters do, by frequency in time and space."""
