"""Pages of HTML that hold all they show in one file, and ask nothing of a network."""
