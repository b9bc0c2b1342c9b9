"""What commands share: their options, their exit status, and how a mistake is told."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from jtcore import __version__
from jtcore.errors import Interrupted, JtError
from jtcore.surroundings import arrange

TOO_LARGE, MISTAKE, INTERRUPTED = 1, 2, 3

EXIT_STATUS = (
    "exit status: 0 done, 2 your mistake (nothing was lost), 3 stopped by a signal (resumable)"
)
MEASURED = (
    "exit status: 0 done, and metrics that lack a model are named; 2 your mistake; 3 stopped by a"
    " signal (the same command goes on)"
)
FITS = "exit status: 0 fits, or no --gpu was named; 1 does not fit; 2 your mistake"


def make_parser(name: str, description: str, status: str = EXIT_STATUS) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(name, description=description, epilog=status)
    parser.add_argument("--version", action="version", version=f"jtcore {__version__}")
    return parser


def add_set(parser: argparse.ArgumentParser, told: str) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help=told)


def add_plugin_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugin-folder",
        action="append",
        default=[],
        metavar="DIR",
        help="load the plugins in this folder; may be repeated",
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print nothing but problems")


def add_metrics(parser: argparse.ArgumentParser) -> None:
    """Which metrics of a suite, and what they are computed with."""
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="of the metrics; may be repeated",
    )
    parser.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="a folder of downloaded models, each under the last part of its hub id",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def guarded(work: Callable[[], None]) -> int:
    """Run a command; a user's mistake is one message and status 2, never a traceback."""
    arrange()
    try:
        work()
    except JtError as error:
        if error.problems:  # none where another process of the run tells them
            print("\n".join(error.problems), file=sys.stderr)
        return MISTAKE
    except Interrupted:
        return INTERRUPTED
    except KeyboardInterrupt:  # before there was anything to resume
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return MISTAKE
    except OSError as error:  # a full disk, a folder that is not ours to write
        print(error, file=sys.stderr)
        return MISTAKE
    return 0
