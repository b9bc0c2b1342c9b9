"""Work that processes would do alike is done by one of them, while the others wait for it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep

PAUSES = (0.01, 0.5)  # s, at first and at most, between two looks at what another has claimed
BUSY = -1


@contextmanager
def claimed(file: Path, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Keep others out of what `file` stands for until the block is left, also those on other
    machines that see the same file system.

    Yields True; or, where another has claimed it, False at once. With `waiting`, which is called
    every half second and may raise, that is waited for instead. The kernel lets go of what a
    process had claimed that is killed. Where a file system knows no locks, as some of networks do
    not, nobody waits, and work may be done twice.
    """
    pause, most = PAUSES
    while (handle := _claim(file)) == BUSY and waiting is not None:
        waiting()
        sleep(pause)
        pause = min(2 * pause, most)
    try:
        yield handle != BUSY
    finally:
        if handle not in (BUSY, None):
            with suppress(OSError):
                file.unlink(missing_ok=True)  # while it is still claimed: nobody else's goes
            os.close(handle)


def _claim(file: Path) -> int | None:
    """What holds the claim until it is closed; BUSY, or None where nothing can be claimed."""
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            return BUSY
        except FileNotFoundError:
            pass  # who had claimed it has removed it since it was opened here
        except OSError:
            os.close(handle)
            return None
        os.close(handle)
