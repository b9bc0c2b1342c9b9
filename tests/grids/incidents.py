"""A plugin by which things happen to runs, as files beside it say: FOLDER/RUN with what, once."""

import os
import resource
import signal
import time
from pathlib import Path

from jtcore import hookimpl

FOLDER = Path(__file__).parent
_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)


@hookimpl
def jt_step_finished(run, step):
    told = FOLDER / run.folder.name
    if step.number != 1 or not told.exists():
        return
    what = told.read_text()
    told.unlink()
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "raise":
        raise ZeroDivisionError("by a plugin")
    elif what == "full":  # for this process, as far as it can tell
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, HARD))
    elif what == "wait":
        with (FOLDER / "reached").open("w") as reached:
            reached.write(f"{run.folder.name}\n")
        while not (FOLDER / "go").exists():
            time.sleep(0.01)


@hookimpl
def jt_run_finished():
    resource.setrlimit(resource.RLIMIT_FSIZE, (HARD, HARD))
