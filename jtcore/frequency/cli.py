"""`jt-freq`: parse first, import afterwards."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from jtcore.options import add_plugin_folder, add_set, guarded, make_parser

OUT = Path("frequency")


def main(arguments: Sequence[str] | None = None) -> int:
    """`jt-freq`: look inside methods by frequency in time and space."""
    given = make().parse_args(arguments)

    def work() -> None:
        from jtcore.frequency import command

        command.ANALYSES[given.analysis](given)

    return guarded(work)


def make() -> argparse.ArgumentParser:
    parser = make_parser(
        "jt-freq",
        "Look inside methods by frequency in time and space: figures, with their numbers in CSV"
        " files and TensorBoard.",
    )
    kinds = parser.add_subparsers(dest="analysis", required=True)
    _add_shift(kinds)
    _add_inversion(kinds)
    _add_loss(kinds)
    _add_run(kinds)
    _add_adapter(kinds)
    return parser


def _add_shift(kinds: argparse._SubParsersAction) -> None:
    parser = kinds.add_parser("shift", help="what shifts of predicted noise do to latents")
    _add_source(parser, "a recipe, by path or shipped name: its backbone and clips")
    _add_data(parser)
    _add_shifts(parser)


def _add_inversion(kinds: argparse._SubParsersAction) -> None:
    parser = kinds.add_parser("inversion", help="DDIM inversion and reconstruction under shifts")
    _add_source(parser, "a recipe, by path or shipped name: its backbone and clips")
    _add_data(parser)
    _add_shifts(parser)
    parser.add_argument("--steps", type=_at_least(1), default=25, help="of inversion; default 25")
    parser.add_argument(
        "--one-step",
        action="store_true",
        help="nothing but what a shifted answer stands for at each time, which asks no denoiser",
    )


def _add_loss(kinds: argparse._SubParsersAction) -> None:
    parser = kinds.add_parser("loss", help="what losses teach: their gradients, and their noise")
    _add_source(parser, "a recipe, or the folder of a run, with its weights as trained")
    _add_data(parser)
    parser.add_argument(
        "--losses",
        nargs="+",
        default=[],
        metavar="LOSS",
        help='a kind, or a table such as \'{kind = "shift", applied_to = "target"}\'; default: all'
        " kinds that need neither masks nor options",
    )
    parser.add_argument("--against", default="diffusion", metavar="KIND", help="default: diffusion")
    parser.add_argument(
        "--offset",
        nargs="*",
        default=["channel", "frame"],
        metavar="AXIS",
        help="axes that share a part of the noise, for one more: the loss of --against with noise"
        " and target shifted together; none to leave it out; default: channel frame",
    )
    parser.add_argument(
        "--draws", type=_at_least(3), default=16, help="of clip, time and noise; default 16"
    )
    parser.add_argument(
        "--own", type=_at_least(2), default=8, help="of what a loss draws; default 8"
    )
    parser.add_argument("--seed", type=int, default=0)


def _add_run(kinds: argparse._SubParsersAction) -> None:
    parser = kinds.add_parser("run", help="when motion and appearance form, over denoising steps")
    _add_source(parser, "the folder of a finished run")
    parser.add_argument(
        "--prompts", type=_at_least(1), default=2, help="of the recipe's; default 2"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="default: 0-3")


def _add_adapter(kinds: argparse._SubParsersAction) -> None:
    parser = kinds.add_parser("adapter", help="what adapters learned, and where they interfere")
    _add_source(parser, "the folder of a finished run")
    parser.add_argument(
        "--beside", metavar="RUN_DIR", help="another run, whose adapters to compare"
    )
    parser.add_argument(
        "--times", type=float, nargs="+", default=[100, 300, 500, 700, 900], help="of strengths"
    )


def _add_source(parser: argparse.ArgumentParser, told: str) -> None:
    parser.add_argument("source", help=told)
    add_set(parser, "change the recipe; may be repeated")
    add_plugin_folder(parser)
    parser.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT}/")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="NAME", help="a table of clips; default: the first video")


def _add_shifts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shifts", nargs="+", metavar="NAME", help="by what they are shared over")
    parser.add_argument("--times", type=float, nargs="+", metavar="T", help="default: 200-800")
    parser.add_argument("--std", type=_at_least(0.0), default=1.0, help="of the shift; default 1")
    parser.add_argument(
        "--of",
        choices=["noise", "prediction"],
        default="noise",
        help="what is shifted: predicted noise, or what the network answers; default: noise",
    )
    parser.add_argument(
        "--draws", type=_at_least(1), default=4, help="of a shift for each clip; default 4"
    )
    parser.add_argument(
        "--bands", type=_at_least(1), default=8, help="of spatial frequency; default 8"
    )
    parser.add_argument("--window", choices=["none", "hann"], default="none")
    parser.add_argument("--seed", type=int, default=0)


def _at_least(least: float) -> Callable[[str], float]:
    """Reads a number of the kind of `least`; argparse tells of another, with the option's name."""

    def read(said: str) -> float:
        try:
            value = type(least)(said)
        except ValueError:
            value = None
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"expected a number of at least {least}, got {said!r}")
        return value

    return read
