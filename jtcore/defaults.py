"""Core's own answers to the decide hooks, asked last."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from jtcore import hookimpl

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from jtcore.branch import Branch
    from jtcore.recipe import Stage
    from jtcore.types import Step


@hookimpl(trylast=True)
def jt_choose_branches(stage: "Stage", step: "Step", rng: Random) -> Sequence[str]:
    """Every branch by its own chance, or one of them in proportion to the chances."""
    chances = {name: branch.chance for name, branch in stage.branch.items()}
    if stage.select == "one":
        return rng.choices(list(chances), list(chances.values()))
    return [name for name, chance in chances.items() if rng.random() < chance]


@hookimpl(trylast=True)
def jt_run_branch(branch: "Branch", step: "Step") -> Mapping[str, float]:
    """One forward and one backward for each part of the batch."""
    from jtcore.branch import run_branch

    return run_branch(branch)


@hookimpl(trylast=True)
def jt_make_optimizer(
    stage: "Stage", parameters: Mapping[str, Sequence["Parameter"]]
) -> "Optimizer":
    """AdamW over all of them."""
    from torch.optim import AdamW

    everything = [parameter for group in parameters.values() for parameter in group]
    return AdamW(everything, stage.lr, stage.betas, stage.eps, stage.weight_decay)
