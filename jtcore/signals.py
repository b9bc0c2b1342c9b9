"""SIGTERM and SIGINT: end at the next safe point, with everything on disk."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from jtcore.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STDERR = 2


class Stop:
    """Whether a signal has asked to end."""

    def __init__(self):
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def check(self) -> None:
        """Raises Interrupted where a signal has asked to end: only where nothing can be lost."""
        if self.asked:
            raise Interrupted

    def ask(self, number: int, frame: object) -> None:
        if self.asked:  # the second one means it
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = True
        name = signal.Signals(number).name
        # past Python's and rich's buffers: the signal may have come while one is being written
        os.write(STDERR, f"{name}: ending at the next safe point\n".encode())


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Let SIGTERM and SIGINT ask for an end, until the block is left."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
