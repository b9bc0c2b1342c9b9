"""Copies between host and device beside the computation, and host memory that they can be from."""

from pathlib import Path
from weakref import finalize

import torch
from torch import Tensor

from jtcore.errors import JtError

MEMORY = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")  # of a container, its own
GIB = 2**30
PAGE = 4096


class Copies:
    """Copies that wait for what was queued before them, while what is queued after them need not
    wait: on a GPU they have a stream of their own. Elsewhere each is done when it has begun."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def begin(self, into: Tensor, source: Tensor) -> "torch.cuda.Event | None":
        """Copy `source` to `into`, of its shape. Returns what to `wait` for: until then, neither
        may be written to or be given back, and `into` not be read."""
        if self.stream is None:
            into.copy_(source)
            return None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            into.copy_(source, non_blocking=True)
            return self.stream.record_event()

    def wait(self, done: "torch.cuda.Event | None") -> None:
        """Let what is queued from now on begin after a copy."""
        if done is not None:
            torch.cuda.current_stream(self.device).wait_event(done)

    def finish(self, done: "torch.cuda.Event | None") -> None:
        """Wait until a copy is done, which the host is about to read."""
        if done is not None:
            done.synchronize()


def page_locked(count: int, device: torch.device, option: str) -> Tensor:  # (at least count,)
    """Bytes of host memory; for a GPU they are pinned, which lets it copy while it computes.

    Raises JtError, naming the `option` that asks for them, where there are not as many.
    """
    require_host_memory(count, option)
    whole = -(-max(count, 1) // PAGE) * PAGE  # pages of its own: none can be pinned twice
    memory = torch.empty(whole + PAGE, dtype=torch.uint8)
    memory = memory[-memory.data_ptr() % PAGE :][:whole]
    if device.type == "cuda":
        # torch's own allocator of pinned memory takes the next power of two
        cudart, address = torch.cuda.cudart(), memory.data_ptr()
        if int(problem := cudart.cudaHostRegister(address, whole, 0)):
            raise JtError(f"{option}: {count / GIB:.1f} GiB cannot be pinned (CUDA: {problem})")
        finalize(memory, cudart.cudaHostUnregister, address).atexit = False
    return memory


def require_host_memory(count: int, option: str) -> None:
    """Raises JtError, naming an `option`, where the host has not so many bytes."""
    there = available()
    if there is not None and count > there:
        raise JtError(
            f"{option}: needs {count / GIB:.1f} GiB of host memory, and {there / GIB:.1f} GiB are"
            " available"
        )


def available() -> int | None:
    """Bytes of host memory, as far as the system tells."""
    found = []
    if MEMORY.is_file():
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, used = GROUP / "memory.max", GROUP / "memory.current"
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
        found.append(int(most) - int(used.read_text()))
    return min(found, default=None)
