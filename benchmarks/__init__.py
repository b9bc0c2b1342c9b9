"""Speed and memory as ratios, each measured side by side with a reference in one process."""
