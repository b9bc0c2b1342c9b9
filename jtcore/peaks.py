"""The most memory that a run has held, in bytes, where the system can tell."""

import re
import sys
from pathlib import Path

PROCESS = Path("/proc/self")
FORGET = "5"  # what Linux takes for: the most so far is what is held now


def forget_peaks() -> bool:
    """Count from now on; whether the host's memory can be."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        (PROCESS / "clear_refs").write_text(FORGET)
    except OSError:
        return False
    return True


def peaks(host: bool) -> dict[str, int]:
    """The most since the last `forget_peaks`, which said whether `host` can be told: of this
    process, and of tensors on the current GPU."""
    found = {}
    if host and (told := re.search(r"VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text())):
        found["host"] = int(told[1]) * 1024
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["device"] = torch.cuda.max_memory_allocated()
    return found
