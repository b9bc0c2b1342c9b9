"""What `jt-convert` does: adapters into the layouts of other tools, and out of them."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from re import fullmatch
from typing import Any, TypeVar

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from jtcore.adapter import Adapter, switched_on
from jtcore.artifact import Artifact, load_weights, plugin_folders_of, read_adapter, save_adapter
from jtcore.errors import JtError
from jtcore.files import write_atomically
from jtcore.model import attach_adapters
from jtcore.near import did_you_mean
from jtcore.plugins import Plugins, can, load_plugins
from jtcore.recipe import Recipe
from jtcore.run import speaker
from jtcore.settings import EngineSettings
from jtcore.structure import (
    NAME,
    Component,
    component,
    structure,
    structure_component,
    unstructure,
)
from jtcore.tables import Table, change
from jtcore.types import Backbone

META = torch.device("meta")
CLOSE = 1e-4  # of what a layer adds, relative: two orders of float32 arithmetic
SUFFIX = ".safetensors"
T = TypeVar("T")


@frozen
class Conversion:
    """From what to what."""

    format: Component = component("formats")
    backbone: Component = component("backbones")
    adapter: Component | None = component("adapters", default=None)  # of ours, that is written
    engine: EngineSettings = EngineSettings()  # its precision is written into the adapter


def convert(given: Namespace) -> None:
    """Write what the command line asks for. Raises JtError, and then there is no file."""
    _check_names(given.source, given.out)
    speaker(given.quiet)(_into(given) if given.to else _out_of(given))


def _into(given: Namespace) -> str:
    """Write an adapter of ours in another layout, and read it again."""
    plugins = load_plugins([*plugin_folders_of(given.source), *given.plugin_folder])
    artifact = read_adapter(given.source, plugins)
    parts = {"backbone": unstructure(artifact.backbone), "adapter": unstructure(artifact.adapter)}
    conversion = _conversion(given, given.to, ("write", "load"), parts, plugins)
    layout, ours = conversion.format.spec, _shell(conversion.backbone)
    adapter = _attached(evolve(artifact, adapter=conversion.adapter), ours)
    updates = _updates(artifact, adapter)
    with write_atomically(given.out) as aside:
        _prefixed(given.source, layout.write, updates, ours.denoiser, aside)
        theirs = _shell(conversion.backbone)
        reader = _prefixed(given.out, layout.load, aside, theirs.denoiser)
        _compare(given.out, ours.denoiser, theirs.denoiser, adapter)
    return f"{given.out}: LoRA of {len(updates)} layers, read again by {reader}"


def _out_of(given: Namespace) -> str:
    """Write what is in another layout as an adapter of ours."""
    plugins = load_plugins(given.plugin_folder)
    parts = {"backbone": {"kind": given.backbone}}
    conversion = _conversion(given, given.origin, ("read",), parts, plugins)
    backbone = conversion.backbone.spec.load(META, torch.float32)
    imported = _prefixed(given.source, conversion.format.spec.read, given.source, backbone)
    name = given.out.name.removesuffix(SUFFIX)
    chosen = structure_component("adapters", imported.adapter, plugins)
    others = {
        other: structure_component("adapters", table, plugins)
        for other, table in imported.others.items()
    }
    attached = attach_adapters({**others, name: chosen}, backbone, seed=0)
    adapter = attached[name].to_empty(device="cpu")
    adapter.load_state_dict(dict(imported.tensors))
    recipe = Recipe(conversion.backbone, adapter={name: chosen}, engine=conversion.engine)
    save_adapter(given.out, name, recipe, adapter, imported=True)
    return f"{given.out}: adapter {name!r}, a {chosen.kind} of {len(imported.tensors)} tensors"


def _check_names(source: Path, out: Path) -> None:
    if not source.is_file():
        raise JtError(f"{source}: there is no such file")
    if out.suffix != SUFFIX or not fullmatch(NAME, out.stem):
        raise JtError(
            f"--out {out}: expected NAME{SUFFIX}; a name may have letters, digits, _ and -"
        )
    if out.exists():
        raise JtError(f"{out} exists; name another file with --out")


def _conversion(
    given: Namespace,
    kind: str,
    way: tuple[str, ...],
    parts: Table,
    plugins: Plugins,
) -> Conversion:
    """What the command line asks for of the `parts` that are known already. Raises JtError where a
    format cannot go that way."""
    able = [known for known, spec in plugins.families["formats"].items() if can(spec, *way)]
    if kind not in able and kind in plugins.families["formats"]:
        verb = "written" if "write" in way else "read"
        raise JtError(f"{kind!r} cannot be {verb}; {did_you_mean(kind, able)}")
    table = {"format": {"kind": kind}, **parts, "engine": {}}
    *known, last = table
    for setting in given.set:
        if setting.partition(".")[0] not in table:
            told = f"only {', '.join(known)} and {last} can be changed here"
            raise JtError(f"--set {setting}: {told}")
    return structure(Conversion, change(table, given.set), plugins)


def _shell(backbone: Component) -> Backbone:
    """A backbone whose linears have weights of zero, and nothing else weights at all.

    What a linear answers is then what adapters add to it, without rounding beside large numbers,
    and the largest denoiser needs no memory.
    """
    loaded = backbone.spec.load(META, torch.float32)
    for module in loaded.denoiser.modules():
        if isinstance(module, nn.Linear):
            for name, weight in list(module.named_parameters(recurse=False)):
                zeros = torch.zeros(()).expand(weight.shape)
                setattr(module, name, nn.Parameter(zeros, requires_grad=False))
    return loaded


def _attached(artifact: Artifact, backbone: Backbone) -> Adapter:
    adapter = attach_adapters({artifact.name: artifact.adapter}, backbone, seed=0)[artifact.name]
    load_weights(artifact, adapter)
    return adapter.eval()


def _updates(artifact: Artifact, adapter: Adapter) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Raises JtError where the adapter is no plain LoRA, or one that nobody can want."""
    try:
        found = adapter.low_rank()
    except JtError as error:
        raise JtError(
            f"{artifact.path}: cannot be a plain LoRA: {error}; attach it to a diffusers pipeline"
            " as it is, with jtcore.load_adapters(pipe, path)"
        ) from error
    updates = {
        name: tuple(matrix.detach().clone().contiguous() for matrix in pair)
        for name, pair in found.items()
    }
    if not all(matrix.isfinite().all() for pair in updates.values() for matrix in pair):
        raise JtError(f"{artifact.path}: has numbers that are not finite")
    if not any(down.any() and up.any() for down, up in updates.values()):
        raise JtError(f"{artifact.path}: changes nothing, its updates are zero; was it trained?")
    return updates


@torch.no_grad()
def _compare(path: Path, ours: nn.Module, theirs: nn.Module, adapter: Adapter) -> None:
    """Raises JtError unless every linear answers alike in both, ours with the adapter on."""
    rng = torch.Generator().manual_seed(0)
    linears = {name: one for name, one in ours.named_modules() if isinstance(one, nn.Linear)}
    odd = []
    for name, layer in linears.items():
        tokens = torch.randn(1, 4, layer.in_features, generator=rng)
        with switched_on({adapter: 1.0}, batch=1):
            expected = layer(tokens)
        if (theirs.get_submodule(name)(tokens) - expected).norm() > CLOSE * expected.norm():
            odd.append(name)
    if odd:
        raise JtError(
            f"{path}: read again, it is another adapter at {len(odd)} of {len(linears)} layers, the"
            f" first {odd[0]!r}; no file is kept"
        )


def _prefixed(path: Path, work: Callable[..., T], *values: Any) -> T:
    """What `work` returns; what it raises names the file."""
    try:
        return work(*values)
    except JtError as error:
        raise JtError(f"{path}: {problem}" for problem in error.problems) from error
