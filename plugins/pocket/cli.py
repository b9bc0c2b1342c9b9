"""The embedded model: draw tasks of its world, examine it, validate its metrics, pretrain it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

SIGTERM_STATUS = 143  # what a shell reports of a process that SIGTERM ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 on success, 2 on a user's mistake, 143 after SIGTERM."""
    from jtcore.errors import JtError

    options = _parser().parse_args(argv)
    try:
        return options.run(options)
    except (JtError, OSError) as error:
        print(f"jt-pocket {options.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jt-pocket", description=__doc__)
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
    draw.add_argument("--seed", type=_count, default=0, metavar="N", help="default: %(default)s")
    draw.set_defaults(run=_draw)
    pretrain = commands.add_parser(
        "pretrain", help="train the model anew, or continue, in a folder"
    )
    pretrain.add_argument("out", type=Path, metavar="OUT")
    pretrain.add_argument(
        "--seed", type=_count, default=0, metavar="N", help="default: %(default)s"
    )
    pretrain.add_argument("--threads", type=_count, metavar="N", help="default: PyTorch's choice")
    pretrain.set_defaults(run=_pretrain)
    card = commands.add_parser("card", help="examine a model and write its card, as Markdown")
    card.add_argument("--weights", type=Path, metavar="DIR", help="default: the shipped ones")
    card.add_argument("--out", type=Path, metavar="FILE", help="default: print the card")
    card.add_argument(
        "--videos", type=_positive, default=72, metavar="N", help="a topic; default: %(default)s"
    )
    card.add_argument("--seed", type=_count, default=0, metavar="N", help="default: %(default)s")
    card.set_defaults(run=_card)
    metrics = commands.add_parser(
        "metrics", help="validate the ground-truth metrics on right and wrong videos"
    )
    metrics.add_argument("--out", type=Path, metavar="FILE", help="default: print the table")
    metrics.set_defaults(run=_metrics)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not _count(text):
        raise argparse.ArgumentTypeError("expected at least 1")
    return int(text)


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
    import torch

    from .pretrain import pretrain

    if options.threads:
        torch.set_num_threads(options.threads)
    finished = pretrain(options.out, options.seed, report=lambda line: print(line, flush=True))
    return 0 if finished else SIGTERM_STATUS


def _card(options: argparse.Namespace) -> int:
    import torch

    from .card import write_card
    from .models import SHIPPED

    torch.set_num_threads(1)  # more only wait for each other: the model is that small
    card = write_card(options.weights or SHIPPED, options.videos, options.seed, _tell)
    return _show(card, options.out)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _metrics(options: argparse.Namespace) -> int:
    from .measure.validation import validate

    return _show(validate(), options.out)


def _show(text: str, out: Path | None) -> int:
    from jtcore.files import write_text

    if out:
        write_text(out, text)
        print(f"{out}: written")
    else:
        print(text, end="")
    return 0


def _check(what: str, name: str, known: Collection[str]) -> None:
    """Raise JtError unless `name` is one of `known`."""
    from jtcore.errors import JtError
    from jtcore.near import did_you_mean

    if name not in known:
        raise JtError(f"unknown {what} {name!r}; {did_you_mean(name, known)}")
