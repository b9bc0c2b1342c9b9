"""What `jt-data` does: check a download, describe it, make a grid over its pairs."""

from argparse import Namespace

from jtcore.datasets.complete import described, problems
from jtcore.datasets.description import describe, read_dataset
from jtcore.datasets.grid import make_grid
from jtcore.datasets.layout import find_layout
from jtcore.errors import JtError
from jtcore.files import write_text


def check(given: Namespace) -> None:
    """Raises JtError with all that is missing."""
    layout = find_layout(given.layout)
    if found := problems(given.folder, layout):
        raise JtError(f"{given.folder}: {problem}" for problem in found)
    print(f"{given.folder}: {described(given.folder, layout)}; nothing is missing")


def write_description(given: Namespace) -> None:
    """Raises JtError."""
    layout = find_layout(given.layout)
    text = describe(given.folder, layout)
    _refuse_existing(given)
    write_text(given.out, text)
    print(f"{given.out}: {described(given.folder, layout)}; to edit, and for jt-data grid")


def write_grid(given: Namespace) -> None:
    """Raises JtError."""
    dataset = read_dataset(given.description)
    made = make_grid(dataset, given.base, given.clips)
    _refuse_existing(given)
    write_text(given.out, made.toml)
    for note in made.notes:
        print(note)
    print(f"{given.out}: {len(dataset.pair)} pairs; jt-run {given.out} --check looks at them")


def _refuse_existing(given: Namespace) -> None:
    """What a person has edited is not written over."""
    if given.out.exists():
        raise JtError(f"{given.out} exists; name another file with --out, or take it away")
