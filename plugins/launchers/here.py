"""Runs of a grid one after another in this very process: for a debugger, and under torchrun."""

from attrs import frozen

from jtcore import hookimpl
from jtcore.errors import Interrupted, JtError
from jtcore.grids.jobs import Jobs
from jtcore.grids.state import forget_failure
from jtcore.grids.work import Outcome, do
from jtcore.proceed import proceed_run
from jtcore.run import Run
from jtcore.signals import Stop


@frozen
class Here:
    """One run after another in this process

    Nothing is between a run that takes the process down and the rest of the grid. Started by
    torchrun, deepspeed or srun, all processes share each run.
    """

    def launch(self, jobs: Jobs, stop: Stop) -> None:
        for run in jobs.runs:
            if stop.asked:
                return
            outcome = do(run, jobs.say, stop) if jobs.processes.alone else _share(run, jobs, stop)
            jobs.ended(run, outcome)


def _share(folder, jobs: Jobs, stop: Stop) -> Outcome:
    """An error ends all: of several processes, not all have come to the same place.

    Raises JtError.
    """
    run = Run(folder, jobs.say, jobs.quiet or not jobs.processes.leads, jobs.processes)
    try:
        proceed_run(run, stop, forget_failure)
    except Interrupted:
        return Outcome("interrupted")
    except JtError as error:
        raise JtError(f"{folder.name}: {problem}" for problem in error.problems) from error
    return Outcome("finished")


@hookimpl
def jt_launchers():
    return {"here": Here}
