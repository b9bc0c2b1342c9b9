"""What a command costs before it works: `jt-run --help` against an idle interpreter."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.compare import Row, time_pair

COMMAND = Path(sys.executable).parent / "jt-run"


def measure() -> Iterator[Row]:
    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True)

    yield time_pair(
        "jt-run --help, against python -c pass",
        lambda: run(COMMAND, "--help"),
        lambda: run(sys.executable, "-c", "pass"),
    )
