import signal
import subprocess
import sys

import pytest

from jtcore.files import remove_leftovers, sha256, write_atomically

HALF_WRITER = """
import sys, time
from pathlib import Path
from jtcore.files import write_atomically

with write_atomically(Path(sys.argv[1])) as aside:
    aside.write_text("half of the")
    print("written", flush=True)
    time.sleep(60)
"""


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_what_is_written_aside_becomes_the_file(tmp_path):
    path = tmp_path / "deep" / "result.txt"
    with write_atomically(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["result.txt"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


@pytest.fixture
def killed(tmp_path):
    """A folder in which a process that was overwriting `result.mp4` got kill -9."""
    path = tmp_path / "result.mp4"
    path.write_text("old")
    command = [sys.executable, "-c", HALF_WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    return tmp_path


def test_kill_9_leaves_the_old_file(killed):
    assert (killed / "result.mp4").read_text() == "old"


def test_what_kill_9_leaves_is_not_taken_for_a_result(killed):
    assert len(names(killed)) == 2
    assert [path.name for path in killed.rglob("*.mp4")] == ["result.mp4"]


def test_leftovers_are_removed_and_results_stay(killed):
    remove_leftovers(killed)
    assert names(killed) == ["result.mp4"]


def test_a_written_file_has_the_permissions_of_any_other(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    with write_atomically(tmp_path / "atomic") as aside:
        aside.write_text("")
    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode


def test_sha256_is_of_the_bytes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
