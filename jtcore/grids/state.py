"""How far a run of a grid has come, as its folder says."""

import fcntl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from attrs import asdict, frozen

from jtcore.run import read_json, write_json

FAILURE = "failure.json"

Kind = Literal["mistake", "error", "killed"]
State = Literal["finished", "failed", "running", "interrupted", "waiting"]


@frozen
class Failure:
    """Why a run has not come to its end: a mistake, an error in code, or its process died."""

    kind: Kind
    problems: tuple[str, ...]
    at: str = ""  # ISO time


def state_of(run: Path) -> State:
    """Of a run directory."""
    if _is_locked(run):
        return "running"
    if (run / FAILURE).is_file():  # which a run that begins again removes
        return "failed"
    if (run / "result.json").is_file():
        return "finished"
    return "interrupted" if any((run / "checkpoints").glob("*")) else "waiting"


def is_done(run: Path) -> bool:
    """Whether it has a result, and nothing has been said against that since."""
    return (run / "result.json").is_file() and not (run / FAILURE).is_file()


def read_failure(run: Path) -> Failure | None:
    """Why a run failed the last time; None where it did not."""
    found = read_json(run / FAILURE)
    return None if found is None else Failure(found["kind"], tuple(found["problems"]), found["at"])


def write_failure(run: Path, kind: Kind, problems: Sequence[str]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(run / FAILURE, asdict(Failure(kind, tuple(problems), now)))


def forget_failure(run: Path) -> None:
    """A run begins again."""
    (run / FAILURE).unlink(missing_ok=True)


def _is_locked(run: Path) -> bool:
    try:
        with (run / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
