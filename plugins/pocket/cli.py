"""The embedded model: draw tasks of its world, examine it, validate its metrics, pretrain it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

MISSED = 1  # exit status of a card with a bar that was missed
MOST_SEED = 2**63 - 1  # torch takes no greater one
MOST_THREADS = 1024
EXIT_STATUS = (
    "exit status: 0 done, 1 the card misses a bar, 2 your mistake, 3 stopped by a signal (pretrain"
    " goes on where it stopped)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, as EXIT_STATUS tells it."""
    from jtcore.options import guarded

    options = _parser().parse_args(argv)
    statuses = []
    return guarded(lambda: statuses.append(options.run(options))) or statuses[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jt-pocket", description=__doc__, epilog=EXIT_STATUS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="name the held-out subjects and motions")
    listing.set_defaults(run=_list)
    draw = commands.add_parser("draw", help="draw a customisation task into a folder")
    draw.add_argument("out", type=Path, metavar="OUT")
    draw.add_argument("--subject", default="wug", metavar="NAME", help="default: %(default)s")
    draw.add_argument("--motion", default="eightwise", metavar="NAME", help="default: %(default)s")
    draw.add_argument("--tier", default="easy", metavar="NAME", help="easy (default), leaky, hard")
    draw.add_argument("--pictures", type=_positive, metavar="N", help="default: the tier's")
    draw.add_argument("--videos", type=_positive, metavar="N", help="default: the tier's")
    draw.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: %(default)s")
    draw.set_defaults(run=_draw)
    pretrain = commands.add_parser(
        "pretrain", help="train the model anew, or continue, in a folder"
    )
    pretrain.add_argument("out", type=Path, metavar="OUT")
    pretrain.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: %(default)s")
    pretrain.add_argument("--threads", type=_threads, metavar="N", help="default: PyTorch's choice")
    pretrain.set_defaults(run=_pretrain)
    card = commands.add_parser(
        "card",
        help="examine a model and write its card, as Markdown",
        epilog="exit status: 1 where a bar is missed; the card is written all the same",
    )
    card.add_argument("--weights", type=Path, metavar="DIR", help="default: the shipped ones")
    card.add_argument("--out", type=Path, metavar="FILE", help="default: print the card")
    card.add_argument(
        "--videos", type=_positive, default=72, metavar="N", help="a topic; default: %(default)s"
    )
    card.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: %(default)s")
    card.set_defaults(run=_card)
    metrics = commands.add_parser(
        "metrics", help="validate the ground-truth metrics on right and wrong videos"
    )
    metrics.add_argument("--out", type=Path, metavar="FILE", help="default: print the table")
    metrics.add_argument(
        "--tasks", type=_positive, metavar="N", help="only the first of them; default: all"
    )
    metrics.set_defaults(run=_metrics)
    return parser


def _whole(text: str, least: int, most: int | None = None) -> int:
    range_told = f"from {least}" if most is None else f"from {least} to {most}"
    if not text.isdecimal() or not least <= int(text) <= (most or int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number {range_told}, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    return _whole(text, 0, MOST_SEED)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _threads(text: str) -> int:
    return _whole(text, 1, MOST_THREADS)


def _list(options: argparse.Namespace) -> int:
    from .captions import vocabulary
    from .held_out import SUBJECTS
    from .motions import HELD_OUT

    for name, subject in SUBJECTS.items():
        print(f"subject  {name:<10} {subject.look} {subject.name}")
    for name, (phrase, *_) in HELD_OUT.items():
        print(f"motion   {name:<10} {phrase}")
    print(f"words    {' '.join(sorted(vocabulary()))}")
    return 0


def _draw(options: argparse.Namespace) -> int:
    from .held_out import SUBJECTS
    from .motions import HELD_OUT
    from .task import TIERS

    _check("subject", options.subject, SUBJECTS)
    _check("motion", options.motion, HELD_OUT)
    _check("tier", options.tier, TIERS)
    _expect_folder(options.out)
    from .draw import draw

    draw(
        options.out,
        options.subject,
        options.motion,
        options.seed,
        options.pictures,
        options.videos,
        options.tier,
    )
    print(f"{options.out}: drew {options.subject} and {options.motion}, {options.tier}")
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    _expect_folder(options.out)
    import torch

    from jtcore.errors import Interrupted

    from .pretrain import pretrain

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        pretrain(options.out, options.seed, report=lambda line: print(line, flush=True))
    except Interrupted:
        print("stopped; the same command continues")
        raise
    return 0


def _card(options: argparse.Namespace) -> int:
    _expect_writable(options.out)
    import torch

    from .card import make_card
    from .models import SHIPPED

    torch.set_num_threads(1)  # more only wait for each other: the model is that small
    card = make_card(options.weights or SHIPPED, options.videos, options.seed, _tell)
    _show(card.text, options.out)
    for result in card.missed:
        found = f"found {result.generated.estimate:.3f}, expected {result.bar:.3f}"
        _tell(f"missed: {result.topic}: {result.question}: {found}")
    return MISSED if card.missed else 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _metrics(options: argparse.Namespace) -> int:
    _expect_writable(options.out)
    from .measure.validation import tasks, validate

    _show(validate(tasks()[: options.tasks]), options.out)
    return 0


def _show(text: str, out: Path | None) -> None:
    from jtcore.files import write_text

    if out:
        write_text(out, text)
        print(f"{out}: written")
    else:
        print(text, end="")


def _expect_folder(path: Path) -> None:
    """Raise JtError where it, or what it is to be in, is a file."""
    from jtcore.errors import JtError

    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise JtError(f"{place}: is a file, expected a folder")


def _expect_writable(path: Path | None) -> None:
    """Raise JtError where a file cannot be written in the end; its folder is made at once."""
    from tempfile import TemporaryFile

    from jtcore.errors import JtError

    if path is None:
        return
    if path.is_dir():
        raise JtError(f"{path}: is a folder, expected a file; name one in it")
    _expect_folder(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise JtError(f"{path}: cannot be written: {error.strerror}; name another") from error


def _check(what: str, name: str, known: Collection[str]) -> None:
    """Raise JtError unless `name` is one of `known`."""
    from jtcore.errors import JtError
    from jtcore.near import did_you_mean

    if name not in known:
        raise JtError(f"unknown {what} {name!r}; {did_you_mean(name, known)}")
