"""What a grid ends in: its tables."""

from pathlib import Path

from jtcore.grids.tables import write_tables


def write_results(folder: Path) -> str:
    """Write what the runs of a grid have found so far. Returns what is printed in the end."""
    return write_tables(folder)
