"""Every hook that a plugin can implement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pluggy import HookspecMarker

if TYPE_CHECKING:
    from random import Random

    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from jtcore.adapter import Adapter
    from jtcore.branch import Branch
    from jtcore.recipe import Recipe, Stage
    from jtcore.run import Run
    from jtcore.settings import Memory
    from jtcore.types import Step

hookspec = HookspecMarker("jtcore")


# Provide: every answer is collected. The class's fields are the TOML options.


@hookspec
def jt_backbones() -> Mapping[str, type]:
    """Backbones by kind: attrs classes that are a `BackboneSpec`."""


@hookspec
def jt_adapters() -> Mapping[str, type]:
    """Adapters by kind: attrs classes that are an `AdapterSpec`."""


@hookspec
def jt_losses() -> Mapping[str, type]:
    """Losses by kind: attrs classes that are a `Loss`."""


@hookspec
def jt_metrics() -> Mapping[str, type]:
    """Metrics by kind: attrs classes that are a `MetricSpec`."""


@hookspec
def jt_formats() -> Mapping[str, type]:
    """Layouts of other tools' adapter files by kind: attrs classes that are a `Format`."""


@hookspec
def jt_image_encoders() -> Mapping[str, type]:
    """Image encoders by kind: attrs classes that are an `ImageEncoderSpec`."""


@hookspec
def jt_controls() -> Mapping[str, type]:
    """Controls of sampling by kind: attrs classes that are a `ControlSpec`."""


@hookspec
def jt_launchers() -> Mapping[str, type]:
    """Launchers of grids by kind: attrs classes that are a `Launcher`."""


@hookspec
def jt_observers() -> Sequence[Callable[[Run, Recipe], object]]:
    """Observers with a state: each is made anew for a run, and its methods are observe hooks."""


# Decide: the first plugin that does not answer None decides.


@hookspec(firstresult=True)
def jt_choose_branches(stage: Stage, step: Step, rng: Random) -> Sequence[str] | None:
    """Which branches this step runs, in order. `rng` draws the same on every rank."""


@hookspec(firstresult=True)
def jt_run_branch(branch: Branch, step: Step) -> Mapping[str, float | Tensor] | None:
    """Run one branch forward and backward and return its scalars: the escape hatch.

    Tensors () are best, for reading a number off one waits for the device."""


@hookspec(firstresult=True)
def jt_make_optimizer(
    stage: Stage, parameters: Mapping[str, Sequence[Parameter]], memory: Memory
) -> Optimizer | None:
    """The optimizer of a stage over its trained parameters, by adapter.

    One that does not keep its state as `memory.optimizer` asks is refused.
    """


# Observe: everyone is told. A plugin's functions will do; one that keeps a state is a class that
# `jt_observers` provides.


@hookspec
def jt_run_started(run: Run, recipe: Recipe) -> None:
    """A run begins, or is resumed."""


@hookspec
def jt_step_finished(run: Run, step: Step, scalars: Mapping[str, float]) -> None:
    """The optimizer has stepped."""


@hookspec
def jt_preview_decoded(run: Run, number: int, preview: Mapping[str, Any]) -> None:
    """A preview is on disk, of the weights after `number` steps of the run.

    It has its `file`, relative to the folder `previews` of the run, its `prompt` and its `seed`.
    """


@hookspec
def jt_stage_finished(run: Run, name: str, adapters: Mapping[str, Adapter]) -> None:
    """A stage has ended; its adapters are trained."""


@hookspec
def jt_run_finished(run: Run, error: BaseException | None) -> None:
    """The run has ended, with its samples and metrics on disk unless `error` is given."""
