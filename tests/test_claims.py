"""Claims are between processes: those here are real ones, and some are killed."""

import errno
import fcntl
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from jtcore.claims import claimed
from jtcore.errors import Interrupted

CLAIM = """
import sys
from pathlib import Path
from jtcore.claims import claimed
from jtcore.signals import stop_on_signals

with stop_on_signals() as stop:
    print("here", flush=True)
    with claimed(Path(sys.argv[1]), stop.check) as mine:
        print("mine" if mine else "busy", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def claim(tmp_path) -> Iterator[Callable[[], subprocess.Popen]]:
    """Start a process that claims a file, waiting for whoever has it, until it hears a line."""
    started = []

    def start() -> subprocess.Popen:
        command = [sys.executable, "-c", CLAIM, str(tmp_path / "cache" / "file")]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        started.append(subprocess.Popen(command, text=True, **pipes))
        assert started[-1].stdout.readline() == "here\n"
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def says(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def test_one_has_it_at_a_time_and_nothing_is_left(claim, tmp_path):
    first, file = claim(), tmp_path / "cache" / "file"
    assert says(first) == "mine"
    others = [claim(), claim()]
    with claimed(file) as mine:
        assert not mine
    first.communicate("\n")

    for each in others:  # whichever of them has it ends when it is told to, and then the other has
        each.stdin.write("\n")
        each.stdin.flush()
    assert [says(each) for each in others] == ["mine", "mine"]
    assert [each.wait() for each in others] == [0, 0]
    with claimed(file) as mine:
        assert mine
        with claimed(file) as again:
            assert not again
    assert list(file.parent.iterdir()) == []


def test_what_was_removed_by_another_while_it_was_opened_claims_nothing(tmp_path, monkeypatch):
    file, lock, calls = tmp_path / "file", fcntl.flock, []

    def late(handle: int, operation: int) -> None:
        if not calls:
            file.unlink()
        calls.append(handle)
        lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with claimed(file) as mine, claimed(file) as other:
        assert mine
        assert not other


def test_a_process_that_is_killed_lets_go(claim, tmp_path):
    first = claim()
    assert says(first) == "mine"
    second = claim()
    first.kill()

    assert says(second) == "mine"
    second.communicate("\n")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_leaves_claims_nothing(claim, tmp_path):
    first, file = claim(), tmp_path / "cache" / "file"
    assert says(first) == "mine"
    first.kill()
    first.wait()
    assert file.exists()

    with claimed(file) as mine:
        assert mine
    assert not file.exists()


def test_a_signal_ends_the_waiting_of_one_that_is_asked_to_end(claim, tmp_path):
    with claimed(tmp_path / "cache" / "file"):
        waiting = claim()
        waiting.send_signal(signal.SIGTERM)
        _, told = waiting.communicate(timeout=60)
        assert told.splitlines()[-1].startswith("jtcore.errors.Interrupted")
        assert (tmp_path / "cache" / "file").exists()


def test_an_error_while_it_is_claimed_lets_go(tmp_path):
    with pytest.raises(Interrupted), claimed(tmp_path / "file"):
        raise Interrupted
    with claimed(tmp_path / "file") as mine:
        assert mine


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_a_file_system_has_no_locks_nobody_waits(number, tmp_path, monkeypatch):
    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        claimed(tmp_path / "file") as mine,
        claimed(tmp_path / "file", pytest.fail) as other,
    ):
        assert mine and other


def test_where_nothing_can_be_written_nobody_waits(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with claimed(tmp_path / "file" / "folder" / "file") as mine:
        assert mine
