"""More commands `jt-*`, of datasets and probes: parse first, import afterwards."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jtcore.cli import _parser, guarded

COMPLETE = "exit status: 0 nothing is missing, 2 something is, or your mistake"


def data(arguments: Sequence[str] | None = None) -> int:
    """`jt-data`: what a download lacks, what it holds, and an ablation over it."""
    parser = _parser("jt-data", "Check a dataset of subjects and motions, and make grids of it.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    check = actions.add_parser("check", help="say what a download lacks", epilog=COMPLETE)
    describe = actions.add_parser("describe", help="write what is there as a file, to be edited")
    for action in (check, describe):
        action.add_argument("folder", type=Path, metavar="DIR")
        action.add_argument(
            "--layout", required=True, help="a file, or a shipped one by name: jointtuner"
        )
    grid = actions.add_parser("grid", help="write an ablation: a recipe for each pair")
    grid.add_argument("description", type=Path, metavar="FILE", help="what describe has written")
    grid.add_argument("--base", required=True, metavar="RECIPE", help="its path or shipped name")
    grid.add_argument("--clips", metavar="NAME", help="such as 49f; default: as long as RECIPE's")
    for action in (describe, grid):
        action.add_argument("--out", type=Path, required=True, metavar="FILE.toml")
    given = parser.parse_args(arguments)

    def work() -> None:
        from jtcore.datasets import command

        actions = {
            "check": command.check,
            "describe": command.write_description,
            "grid": command.write_grid,
        }
        actions[given.action](given)

    return guarded(work)


COMMANDS = {"data": data}


if __name__ == "__main__":  # from a checkout: python -m jtcore.commands data check DIR ...
    if sys.argv[1:2] == [] or sys.argv[1] not in COMMANDS:
        sys.exit(f"expected one of {', '.join(COMMANDS)} after jtcore.commands")
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
