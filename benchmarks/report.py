"""What a benchmark tells: printed, and written with its command, machine, versions and date."""

import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from jtcore.files import write_text

LIBRARIES = ("torch", "diffusers", "peft")


@contextmanager
def report(name: str, folder: str | None, about: str = "") -> Iterator[Callable[[str], None]]:
    """Yields what takes one line after another; with a `folder` it ends as `NAME.md` there."""
    lines = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    for line in (f"    {command()}", "", circumstances(), *([about] if about else []), ""):
        say(line)
    yield say
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / f"{name}.md", "\n".join([f"# {name}", "", *lines, ""]))


def command() -> str:
    """As it was given, but for the file that the module is in."""
    name = Path(sys.argv[0]).stem
    module = "benchmarks" if name == "__main__" else f"benchmarks.{name}"
    return " ".join(["python -m", module, *sys.argv[1:]])


def circumstances() -> str:
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
    threads = f"{torch.get_num_threads()} threads"
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return f"{day}; {processor()}, {threads}; Python {platform.python_version()}, {versions}"


def processor() -> str:
    """The GPU's name where there is one, or the CPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.machine()
    return f"{name}, {torch.multiprocessing.cpu_count()} cores"
