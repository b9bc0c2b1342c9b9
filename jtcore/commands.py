"""More commands `jt-*`, of datasets and probes: parse first, import afterwards."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jtcore.options import (
    MEASURED,
    add_metrics,
    add_plugin_folder,
    add_quiet,
    add_set,
    guarded,
    make_parser,
)

COMPLETE = "exit status: 0 nothing is missing, 2 something is, or your mistake"


def data(arguments: Sequence[str] | None = None) -> int:
    """`jt-data`: what a download lacks, what it holds, and a grid over it."""
    parser = make_parser(
        "jt-data", "Check a dataset of subjects and motions, and make grids of it."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    check = actions.add_parser("check", help="say what a download lacks", epilog=COMPLETE)
    describe = actions.add_parser("describe", help="write what is there as a file, to be edited")
    for action in (check, describe):
        action.add_argument("folder", type=Path, metavar="DIR")
        action.add_argument(
            "--layout", required=True, help="a file, or a shipped one by name: jointtuner"
        )
    grid = actions.add_parser("grid", help="write a grid: a recipe for each pair")
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


def probe(arguments: Sequence[str] | None = None) -> int:
    """`jt-probe`: what the adapters of a run do to each other."""
    parser = make_parser(
        "jt-probe",
        "Sample a run's model with all adapters, with each one off and with none, on prompts with"
        " its subject, its motion, both and neither; say what carries over.",
        MEASURED,
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR", help="a finished run")
    parser.add_argument(
        "--probes",
        type=Path,
        metavar="FILE",
        help="prompts of the four kinds, seeds, metrics and questions, as TOML; default: the"
        " probes.toml beside the run's data, or what its captions and prompts give",
    )
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="metrics in place of the run's own: the path of a TOML file or a shipped name",
    )
    add_metrics(parser)
    add_set(parser, "change how it is sampled, such as sample.batch=4; may be repeated")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder probes of the run"
    )
    add_plugin_folder(parser)
    add_quiet(parser)
    given = parser.parse_args(arguments)
    given.command = ["jt-probe", *(sys.argv[1:] if arguments is None else arguments)]

    def work() -> None:
        from jtcore.probing import command

        command.probe(given)

    return guarded(work)


COMMANDS = {"data": data, "probe": probe}


if __name__ == "__main__":  # from a checkout: python -m jtcore.commands data check DIR ...
    if sys.argv[1:2] == [] or sys.argv[1] not in COMMANDS:
        sys.exit(f"expected one of {', '.join(COMMANDS)} after jtcore.commands")
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
