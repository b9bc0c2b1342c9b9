"""Programs in Slurm's place, which answer as it does."""

import os
from pathlib import Path

import pytest

PROGRAMS = {
    "sbatch": 'tell refusal || tell mumble || echo "Submitted batch job 42"',
    "squeue": "tell outage || tell queue || true",
    "sacct": "tell accounts || true",
    "srun": "exit 1",
}
TELL = """#!/bin/sh
tell() {  # what a file says, to standard error where that makes it fail
    [ -e "$ANSWERS/$1" ] || return 1
    case $1 in refusal|outage) cat "$ANSWERS/$1" >&2; exit 1;; esac
    cat "$ANSWERS/$1"
}
"""


@pytest.fixture
def answers(tmp_path, monkeypatch) -> Path:
    """A folder of what Slurm's programs answer; sbatch takes all, and the queue is empty."""
    folder, programs = tmp_path / "answers", tmp_path / "bin"
    for each in (folder, programs):
        each.mkdir()
    for name, script in PROGRAMS.items():
        (programs / name).write_text(f"{TELL}{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("ANSWERS", str(folder))
    return folder
