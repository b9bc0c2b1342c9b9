"""Core's own answers to the decide hooks, asked last."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from jtcore import hookimpl

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from jtcore.branch import Branch
    from jtcore.recipe import Stage
    from jtcore.settings import Memory
    from jtcore.types import Step


@hookimpl(trylast=True)
def jt_choose_branches(stage: "Stage", step: "Step", rng: Random) -> Sequence[str]:
    """Every branch by its own chance, or one of them in proportion to the chances, and those that
    go by them."""
    free = {name: b.chance for name, b in stage.branch.items() if b.follows is None}
    if stage.select == "one":
        drawn = rng.choices(list(free), list(free.values()))
    else:
        drawn = [name for name, chance in free.items() if rng.random() < chance]

    def runs(name: str) -> bool:
        branch = stage.branch[name]
        if branch.follows is None:
            return name in drawn
        return runs(branch.follows) == (branch.when is not None)

    return [name for name in stage.branch if runs(name)]


@hookimpl(trylast=True)
def jt_run_branch(branch: "Branch", step: "Step") -> Mapping[str, "Tensor"]:
    """One forward and one backward for each part of the batch."""
    from jtcore.branch import run_branch

    return run_branch(branch)


@hookimpl(trylast=True)
def jt_make_optimizer(
    stage: "Stage", parameters: Mapping[str, Sequence["Parameter"]], memory: "Memory"
) -> "Optimizer":
    """AdamW over all of them."""
    from jtcore.optimizers import make_optimizer

    everything = [parameter for group in parameters.values() for parameter in group]
    return make_optimizer(stage, everything, memory.optimizer)
