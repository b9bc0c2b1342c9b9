"""A process that does runs, as its parent tells it, and ends when its parent has gone.

The parent writes a line of JSON for each run to the worker's standard input, and reads one from a
pipe when that has ended. What a run says goes to the `log.txt` of its folder.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from attrs import asdict, frozen

from jtcore.grids.work import Outcome, do

LOG = "log.txt"
MODULE = "jtplugins.launchers._workers"


@frozen
class Slot:
    """Where a worker is to compute: on which cores, with how many threads (0: as many as cores),
    and with which GPU."""

    cores: tuple[int, ...]
    threads: int = 0
    gpu: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        threads = str(self.threads or os.environ.get("OMP_NUM_THREADS") or len(self.cores))
        found = {**os.environ, "OMP_NUM_THREADS": threads}
        if self.gpu is not None:
            found["CUDA_VISIBLE_DEVICES"] = self.gpu
        return found


class Worker:
    """A worker, as its parent sees it. It is in a session of its own, out of reach of Ctrl-C."""

    def __init__(self, slot: Slot):
        answers, theirs = os.pipe()  # not its standard output, to which anybody may print
        self._answers = os.fdopen(answers)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, json.dumps(slot.cores), str(theirs)],
                stdin=subprocess.PIPE,
                text=True,
                env=slot.environment,
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)

    def do(self, run: Path) -> Outcome | None:
        """Have a run done, and wait. None where the worker dies of it."""
        try:
            self._process.stdin.write(json.dumps(str(run)) + "\n")
            self._process.stdin.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            return None
        if not line:
            return None
        found = json.loads(line)
        return Outcome(found["state"], tuple(found["problems"]))

    def wait(self) -> str:
        """Until it is dead: how it died."""
        status = self._left()
        if status >= 0:
            return f"ended with status {status}"
        return f"was killed by {signal.Signals(-status).name}"

    def end(self) -> None:
        self._process.terminate()

    def close(self) -> None:
        """There are no more runs."""
        self._left()

    def _left(self) -> int:
        """Its status, when it has nothing more to hear or to say."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        status = self._process.wait()
        self._answers.close()
        return status


def main() -> None:
    """The worker itself."""
    if hasattr(os, "sched_setaffinity"):  # not on macOS
        os.sched_setaffinity(0, json.loads(sys.argv[1]))
    answers = os.fdopen(int(sys.argv[2]), "w")
    orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    while (order := orders.get()) is not None:
        run = Path(json.loads(order))
        _log_to(run / LOG)
        outcome = do(run, _say)
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()


def _listen(orders: "queue.SimpleQueue[str | None]") -> None:
    """Where the parent has gone, whatever is done now ends at its next safe point."""
    for line in sys.stdin:
        orders.put(line)
    orders.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


def _log_to(path: Path) -> None:
    """From now on, whatever this process says or prints."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
