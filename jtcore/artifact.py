"""Adapter files: named tensors, and all that it takes to attach them again without a recipe."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import jtcore
from jtcore.adapter import Adapter
from jtcore.errors import JtError
from jtcore.files import write_atomically
from jtcore.plugins import Plugins
from jtcore.provenance import backbone_identity
from jtcore.recipe import Recipe, Sampling
from jtcore.run import read_json
from jtcore.scales import ScaleSchedule
from jtcore.settings import EngineSettings
from jtcore.structure import Component, structure, structure_component, unstructure
from jtcore.tables import parse_toml

FORMAT = "jtcore-adapter-1"


@frozen(eq=False)
class Artifact:
    """What an adapter file holds."""

    path: Path
    name: str  # what it is called here
    own_name: str  # what it was called in its recipe
    adapter: Component
    backbone: Component
    image_encoder: Component | None  # of the pictures that it is conditioned on
    sample: Sampling | None  # what the recipe sampled: sizes and steps that it was made for
    engine: EngineSettings  # the precision that it was trained in, and of the frozen weights
    identity: Mapping[str, str]  # hashes of the backbone that it was trained on
    tensors: Mapping[str, Tensor]

    @property
    def scale(self) -> float:
        """At which its recipe sampled."""
        return self.sample.scales.get(self.own_name, 1.0) if self.sample else 1.0

    @property
    def schedule(self) -> ScaleSchedule | None:
        """With which its recipe sampled."""
        return self.sample.schedule.get(self.own_name) if self.sample else None


def save_adapter(
    path: Path,
    name: str,
    recipe: Recipe,
    adapter: Adapter,
    *,
    state: Mapping[str, Tensor] | None = None,
    imported: bool = False,
) -> None:
    """Write an adapter's tensors, or the `state` given, with the components that rebuild it. On
    what exact weights an `imported` one was trained nobody knows, and none need to be here."""
    facts = {
        "jtcore": jtcore.__version__,
        "name": name,
        "adapter": unstructure(recipe.adapter[name]),
        "backbone": unstructure(recipe.backbone),
        **_encoder(recipe),
        "sample": unstructure(recipe.sample),
        "engine": {"precision": recipe.engine.precision, **_base(recipe.engine)},
        "identity": {} if imported else backbone_identity(recipe.backbone),
    }
    state = adapter.state_dict() if state is None else state
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    path.parent.mkdir(exist_ok=True)
    with write_atomically(path) as aside:
        # one key: safetensors writes several in random order, and equal runs end in equal bytes
        save_file(tensors, aside, {FORMAT: json.dumps(facts)})


def read_adapter(path: Path, plugins: Plugins) -> Artifact:
    """Raises JtError where the file is not an adapter of ours, or its plugin is not here."""
    metadata, tensors = _read(path)
    if FORMAT not in metadata:
        raise JtError(f"{path}: not an adapter file of jtcore: it has no {FORMAT!r} in it")
    try:
        facts = json.loads(metadata[FORMAT])
        return Artifact(
            path=path,
            name=facts["name"],
            own_name=facts["name"],
            adapter=structure_component("adapters", facts["adapter"], plugins),
            backbone=structure_component("backbones", facts["backbone"], plugins),
            image_encoder=_optional("image_encoders", facts.get("image_encoder"), plugins),
            sample=facts["sample"] and structure(Sampling, facts["sample"], plugins),
            engine=structure(EngineSettings, facts["engine"], plugins),
            identity=facts["identity"],
            tensors=tensors,
        )
    except JtError as error:
        raise JtError(f"{path}: {problem}" for problem in error.problems) from error
    except (ValueError, KeyError, TypeError) as error:
        raise JtError(f"{path}: its metadata are damaged: {error!r}") from error


def _encoder(recipe: Recipe) -> dict[str, Any]:
    """Nothing where there is none, so that files of most adapters are as they always were."""
    return {"image_encoder": unstructure(recipe.image_encoder)} if recipe.image_encoder else {}


def _base(engine: EngineSettings) -> dict[str, Any]:
    """How the denoiser was stored that it was trained on; likewise."""
    return {"memory": {"base": engine.memory.base}} if engine.memory.base else {}


def _optional(family: str, table: Mapping[str, Any] | None, plugins: Plugins) -> Component | None:
    return None if table is None else structure_component(family, table, plugins)


def plugin_folders_of(path: Path) -> list[str]:
    """Folders of local plugins that are still there, of the run that a directory is, or that an
    adapter file still stands in."""
    run = path if path.is_dir() else path.absolute().parent.parent
    if read_json(run / "run.json") is None:
        return []
    recorded = parse_toml(run / "recipe.resolved.toml").get("plugins", {})
    return [folder for folder in recorded.get("folders", []) if Path(folder).is_dir()]


def load_weights(artifact: Artifact, adapter: Adapter) -> None:
    """Put an artifact's tensors in place. Raises JtError unless names and shapes all agree."""
    if problems := _misfits(artifact.path, _shapes(artifact.tensors), adapter):
        raise JtError(problems)
    adapter.load_state_dict(artifact.tensors)


def initial_problems(path: Path, component: Component, adapter: Adapter, name: str) -> list[str]:
    """What keeps an adapter from beginning as that of a file is; its weights are not read."""
    place = f"initial.{name}"
    if not path.is_file():
        return [f"{place}: {str(path)!r}: there is no such file; train it first"]
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[FORMAT])
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a dict
        kind = facts["adapter"]["kind"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        return [f"{place}: {str(path)!r}: no adapter file of jtcore: {error!r}"]
    if kind != component.kind:
        return [f"{place}: {str(path)!r} holds a {kind!r}, and the adapter is a {component.kind!r}"]
    return [f"{place}: {problem}" for problem in _misfits(path, found, adapter)]


def load_initial(path: Path, adapter: Adapter) -> Mapping[str, str]:
    """Let an adapter begin as that of a file is. Returns the hashes of the backbone that it was
    trained on. Raises JtError where it does not fit."""
    metadata, tensors = _read(path)
    if problems := _misfits(path, _shapes(tensors), adapter):
        raise JtError(problems)
    adapter.load_state_dict(tensors)
    return json.loads(metadata[FORMAT])["identity"]


def other_backbone(identity: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What is to be told of an adapter that was trained on another backbone than there is `now`."""
    odd = [part for part in now if identity.get(part) != now[part]]
    return f"was trained on another {', '.join(odd)} of the backbone" if odd else None


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _misfits(path: Path, found: Mapping[str, tuple[int, ...]], adapter: Adapter) -> list[str]:
    own = _shapes(adapter.state_dict())
    odd = sorted({n for n in own.keys() | found.keys() if own.get(n) != found.get(n)})
    told = f"{path}: {len(odd)} tensors do not fit the adapter, the first"
    return [f"{told} {odd[0]!r}"] if odd else []


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise JtError(f"{path}: not a readable safetensors file: {error}") from error
