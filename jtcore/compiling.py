"""Regional compilation: the block that a denoiser repeats is compiled, once for all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from jtcore.adapter import TABLES, Adapter
from jtcore.types import Backbone

if TYPE_CHECKING:
    from jtcore.recipe import Recipe

BACKEND = "inductor"  # which compiles; tests take one that is quick
VARIANTS = 64  # of the compiled block: shapes, adapters that are on, whether its input has gradient


def compile_blocks(backbone: Backbone) -> None:
    """Compile the blocks for passes with gradient.

    Adapters have to be attached; their hooks are compiled with the block that they are in. Other
    passes run as they are: scales that change between them would each be compiled anew. A block
    that is checkpointed runs its compiled forward twice. It answers the same up to the order of
    kernels' sums; on a GPU dropout draws otherwise.
    """
    import torch._dynamo

    # hooks that come later, as those that watch attention, are not passed over in silence
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    for block in backbone.blocks().values():
        for module in block.modules():
            number_hooks(module)
        compiled = torch.compile(block.forward, backend=BACKEND, dynamic=False)
        block.forward = partial(_compiled_with_gradient, compiled, block.forward)


def _compiled_with_gradient(compiled: Callable, plain: Callable, *given: Any, **named: Any) -> Any:
    return (compiled if torch.is_grad_enabled() else plain)(*given, **named)


def number_hooks(module: nn.Module) -> None:
    """Number a module's hooks from 0: blocks whose hooks are numbered alike share what is compiled.

    Their handles remove nothing any more.
    """
    numbers = {n: None for table in TABLES for n in getattr(module, table)}
    order = {number: index for index, number in enumerate(numbers)}
    for table in TABLES:
        hooks = getattr(module, table)
        found = [(order[number], hook) for number, hook in hooks.items()]
        hooks.clear()
        hooks.update(found)


def compile_problems(
    recipe: Recipe, backbone: Backbone, attached: Mapping[str, Adapter], device: torch.device
) -> Iterator[str]:
    """Why the blocks cannot be compiled, or not once for all of them."""
    if missing := _compiler_problem(device):
        yield missing
    blocks = getattr(backbone, "blocks", dict)()
    if not blocks:
        yield "this backbone repeats no block; leave it out"
    if (count := len({_shape(block) for block in blocks.values()})) > 1:
        yield (
            f"the {len(blocks)} blocks of this backbone are of {count} shapes, each of which would"
            " be compiled by itself; leave it out"
        )
    if recipe.engine.memory.base:
        yield "weights in few bits are read by kernels of their own; leave one of the two out"
    if recipe.engine.kind == "deepspeed":
        yield "DeepSpeed hooks into modules as they run; leave it out, or take another kind"
    for name, adapter in attached.items():
        if not adapter.compiles:
            yield f"the hooks of adapter.{name} are not made to be compiled; leave it out"
    for place, branch in recipe.branches.items():
        for name, term in branch.losses.items():
            if hasattr(term.loss.spec, "attention"):
                yield f"{place}.losses.{name} watches attention, which compiled blocks do not show"


def _shape(block: nn.Module) -> tuple:
    return type(block), *((name, weight.shape) for name, weight in block.named_parameters())


def _compiler_problem(device: torch.device) -> str | None:
    if device.type == "cuda":
        return None if find_spec("triton") else "on a GPU it needs triton, which is not installed"
    compilers = (os.environ.get("CXX"), "g++", "clang++", "c++")
    if any(shutil.which(name) for name in compilers if name):
        return None
    return "on a CPU it needs a C++ compiler, and there is none; install g++, or leave it out"
