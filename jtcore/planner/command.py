"""What `jt-plan` does: read a recipe, measure its passes, and tell what they come to."""

from __future__ import annotations

import json
import os
import re
import warnings
from argparse import Namespace
from math import inf

from jtcore.errors import JtError
from jtcore.grids.grid import take_grid
from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe, build_recipe
from jtcore.tables import Table, change, find_recipe, read_table

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SMALLEST = 2**28  # bytes; whoever says less meant another unit


def plan(given: Namespace) -> bool:
    """Print a plan. Returns whether it fits, where a size of card was named. Raises JtError."""
    room = None if given.gpu is None else parse_size(given.gpu)
    if not 0 < given.tflops < inf:
        raise JtError(f"--tflops: expected a number above 0, got {given.tflops:g}")
    if given.processes < 1:
        raise JtError(f"--processes: expected at least 1, got {given.processes}")
    recipe = _read(given)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about numbers that nobody computes
        from jtcore.planner.plan import make_plan

        found = make_plan(recipe, room, given.tflops * 1e12, given.processes)
    if given.json:
        print(json.dumps(found.table(), indent=2))
    else:
        from jtcore.planner.tell import told

        print("\n".join(told(found, given.recipe)))
    return found.fits is not False


def parse_size(text: str) -> int:
    """Bytes of "24GB", "24 GiB", "24"; a card's gigabytes are 2^30, as its makers count. Raises
    JtError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise JtError(f"--gpu: expected a size such as 24GB, got {text!r}")
    number, unit = float(match[1]), match[2].upper() or "G"
    size = int(number * UNITS[unit])
    if size < SMALLEST:
        raise JtError(f"--gpu: {text!r} is too small for a card; expected a size such as 24GB")
    return size


def _read(given: Namespace) -> Recipe:
    path = find_recipe(given.recipe)
    table: Table = change(read_table(path), given.set)
    declared = take_grid(table, path)
    if declared is not None and len(declared.groups) > 1:
        raise JtError(
            f"{given.recipe}: a grid has several recipes; jt-run --dry-run plans each, or plan its"
            " base, with a run's changes by --set"
        )
    if declared is not None:  # whose runs differ by their seed alone
        table = declared.recipe(declared.grid.trials[0])
    folders = [*table.get("plugins", {}).get("folders", []), *given.plugin_folder]
    return build_recipe(table, load_plugins(folders))
