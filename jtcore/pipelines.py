"""Adapters on stock diffusers pipelines."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from inspect import signature
from math import isfinite
from pathlib import Path
from typing import Any
from warnings import warn

from torch import Tensor, nn

from jtcore.adapter import Adapter, Hook, hooks_of, switched_on
from jtcore.artifact import Artifact, load_weights
from jtcore.composition import Source, folders_of, read_adapters
from jtcore.errors import JtError
from jtcore.model import attach_adapters, attach_order
from jtcore.near import did_you_mean
from jtcore.plugins import Plugins, can, load_plugins
from jtcore.types import Backbone

Paths = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


def load_adapters(
    pipe: object,
    paths: Paths,
    scale: float | None = None,
    *,
    plugin_folders: Sequence[str | Path] = (),
) -> "LoadedAdapters":
    """Attach adapters to a stock diffusers pipeline, and have them on whenever it samples.

    `paths` are files and run directories, also as "NAME=PATH" or {NAME: PATH} where two adapters
    have one name. Adapters of any kind are attached as they were trained, gates and all, and are
    on at `scale`, or each at that with which its recipe sampled. `plugin_folders` are for adapters
    of local plugins. Raises JtError where a file cannot be read, where no backbone knows the
    pipeline, where an adapter does not fit its denoiser, and where its recipe sampled with a
    schedule of scales and none is given here; the pipeline is then as it was. Warns of adapters
    that are conditioned on a picture, for they are shown none.
    """
    sources = _sources(paths)
    if not sources:
        raise JtError("load_adapters: expected at least one adapter file")
    plugins = load_plugins([*folders_of(sources), *plugin_folders])
    artifacts = read_adapters(sources, plugins)
    scales = {each.name: _scale_of(each) if scale is None else scale for each in artifacts}
    backbone = _adopt(pipe, artifacts, plugins)
    before = set(hooks_of(backbone.denoiser))
    try:
        loaded = LoadedAdapters(backbone.denoiser, _attach(artifacts, backbone), scales)
    except BaseException:
        _unhook(set(hooks_of(backbone.denoiser)) - before)
        raise
    loaded.hooks = set(hooks_of(backbone.denoiser)) - before
    if blind := [each.name for each in artifacts if _is_conditioned(each)]:
        warn(
            f"{', '.join(blind)}: conditioned on a picture, of which a stock pipeline shows none;"
            " on without its condition (jt-sample --reference FILE shows one)",
            stacklevel=2,
        )
    return loaded


def _is_conditioned(artifact: Artifact) -> bool:
    return getattr(artifact.adapter.spec, "reference_width", None) is not None


def _scale_of(artifact: Artifact) -> float:
    if artifact.schedule:
        raise JtError(
            f"{artifact.path}: its recipe sampled with a schedule of scales, which stock pipelines"
            " do not follow; give a `scale`, or take jt-sample"
        )
    return artifact.scale


def _sources(paths: Paths) -> list[Source]:
    if isinstance(paths, Mapping):
        return [Source.named(name, path) for name, path in paths.items()]
    return [Source.parse(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


class LoadedAdapters:
    """Adapters that are on whenever a pipeline's denoiser computes, each at its scale.

    One call of the denoiser is one pass: a gate that averages over the batch averages over what the
    pipeline hands it at once, which is both halves of guidance in some and each alone in others.
    """

    hooks: Collection[Hook] = ()  # what attaching has put into the denoiser

    def __init__(
        self, denoiser: nn.Module, adapters: Mapping[str, Adapter], scales: Mapping[str, float]
    ):
        self._adapters = adapters
        self._scales: dict[str, float] = {}
        self._pass = ExitStack()
        self._latents = list(signature(type(denoiser).forward).parameters)[1]  # after self
        for name in adapters:
            self.scale(name, scales[name])
        # ahead of the adapters' own, of which one may be at the denoiser itself
        denoiser.register_forward_pre_hook(self._open, with_kwargs=True, prepend=True)
        denoiser.register_forward_hook(self._close, always_call=True)

    @property
    def scales(self) -> dict[str, float]:
        """By the adapter's name."""
        return dict(self._scales)

    def scale(self, name: str, value: float) -> None:
        """Set the scale of an adapter from the next step on; at 0 it is off.

        Raises JtError where there is none of this name, or the value is not a number.
        """
        if name not in self._adapters:
            raise JtError(f"no adapter {name!r}; {did_you_mean(name, self._adapters)}")
        if type(value) not in (int, float) or not isfinite(value):
            raise JtError(f"the scale of {name!r} must be a finite number, found {value!r}")
        self._scales[name] = float(value)

    def remove(self) -> None:
        """Take the adapters off; the pipeline is as it was. Nothing happens the second time."""
        _unhook(self.hooks)
        self.hooks = ()

    def _open(self, denoiser: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        latents: Tensor = inputs[0] if inputs else named[self._latents]  # (B, ...)
        on = {self._adapters[name]: scale for name, scale in self._scales.items() if scale}
        for adapter in on:  # offloading moves the denoiser, which does not know of adapters
            adapter.to(latents.device)
        self._pass.enter_context(switched_on(on, len(latents)))

    def _close(self, denoiser: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._pass.close()


def _adopt(pipe: object, artifacts: Sequence[Artifact], plugins: Plugins) -> Backbone:
    """The backbone around the pipeline's denoiser, of the adapters' own kind where it can be."""
    own = [type(artifact.backbone.spec) for artifact in artifacts]
    able = {k: c for k, c in plugins.families["backbones"].items() if can(c, "adopt")}
    for cls in sorted(able.values(), key=lambda cls: cls not in own):
        if (backbone := cls.adopt(pipe)) is not None:
            return backbone
    raise JtError(
        f"{type(pipe).__name__} is of no kind that a backbone knows;"
        f" known are the pipelines of {', '.join(sorted(able))}"
    )


def _attach(artifacts: Sequence[Artifact], backbone: Backbone) -> dict[str, Adapter]:
    """By name, frozen and switched off. Raises JtError where one does not fit the denoiser."""
    by_name = {artifact.name: artifact for artifact in artifacts}
    attached: dict[str, Adapter] = {}
    for name in attach_order({name: artifact.adapter for name, artifact in by_name.items()}):
        artifact = by_name[name]
        try:
            attached[name] = _attach_one(artifact, backbone, attached)
        except JtError as error:
            cls = type(backbone.denoiser).__name__
            raise JtError(
                f"{artifact.path}: trained on {artifact.backbone.kind!r}, it does not fit this"
                f" {cls}: {problem}"
                for problem in error.problems
            ) from error
    return {name: attached[name] for name in by_name}


def _attach_one(artifact: Artifact, backbone: Backbone, others: Mapping[str, Adapter]) -> Adapter:
    name = artifact.name
    adapter = attach_adapters({name: artifact.adapter}, backbone, 0, others)[name]
    if any(weight.is_meta for weight in adapter.parameters()):  # the denoiser's are offloaded
        adapter.to_empty(device="cpu")
    load_weights(artifact, adapter)
    return adapter.requires_grad_(False).eval()


def _unhook(hooks: Iterable[Hook]) -> None:
    for module, table, number in hooks:
        getattr(module, table).pop(number, None)
