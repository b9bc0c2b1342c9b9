"""Checkpoints of transformers that metrics look through: folders, or ids of the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from jtcore.errors import JtError
from jtcore.evaluation.identity import file_digest

from ..backbones._hub import HUB_ID, Folder, Repository, Source
from ..backbones._networks import freeze, network_class, quiet

if TYPE_CHECKING:  # importing torch costs seconds
    import torch
    from torch import nn

Part = Literal["network", "pictures", "words"]

CONFIG = "config.json"
ONE_OF = {  # sets of files of which one must be whole, in the order that transformers takes them
    "network": (("config.json", "model.safetensors"), ("config.json", "pytorch_model.bin")),
    "pictures": (("preprocessor_config.json",),),
    "words": (("tokenizer.json", "tokenizer_config.json"), ("vocab.json", "merges.txt")),
}
BESIDE = {"words": ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")}


@frozen
class Checkpoint:
    """The files of a network, of how it is shown pictures and of how it is told words; those of
    its `parts` are needed. A hub id is fetched into the hub's cache, or only sought there offline.
    """

    option: str  # that names it
    name: str  # a folder, or a hub id
    parts: tuple[Part, ...]
    kinds: tuple[str, ...] = ()  # of networks that will do, as config.json calls them

    def problems(self) -> list[str]:
        """What keeps it from being loaded; no weights are fetched."""
        try:
            chosen = self._chosen()
            if "network" in self.parts:
                self._raise_if_of_another_kind(self._root([CONFIG]))
            small = [name for name in chosen if Path(name).suffix in (".json", ".txt")]
            self._root(small)
        except JtError as error:
            return list(error.problems)
        return []

    def paths(self) -> dict[str, Path]:
        """All files that are read, by name. Raises JtError."""
        chosen = self._chosen()
        root = self._root(chosen)
        if "network" in self.parts:
            self._raise_if_of_another_kind(root)
        return {name: root / name for name in chosen}

    def root(self) -> Path:
        """The folder with them. Raises JtError."""
        return next(iter(self.paths().values())).parent

    def identity(self) -> dict[str, Any]:
        """What network it is, and the digest of each file, wherever they are. Raises JtError."""
        digests = {name: file_digest(path) for name, path in sorted(self.paths().items())}
        told = {"network": _described(self.config())} if "network" in self.parts else {}
        return {**told, "sha256": digests}

    def config(self) -> Mapping[str, Any]:
        """Raises JtError."""
        return self._config(self.paths()[CONFIG])

    def load(self, kind: str, device: torch.device, **options: Any) -> nn.Module:
        """The network of a class of transformers, in float32. Raises JtError."""
        import torch
        from safetensors import SafetensorError

        root = self.root()
        try:
            with quiet():
                network, info = network_class(kind).from_pretrained(
                    root,
                    dtype=torch.float32,
                    local_files_only=True,
                    output_loading_info=True,
                    **options,
                )
        except (
            OSError,
            ValueError,
            RuntimeError,
            EOFError,
            UnpicklingError,
            SafetensorError,
        ) as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise self.problem(f"cannot be loaded: {told[0]}") from error
        if lacking := sorted(info["missing_keys"]):
            raise self.problem(f"has no weights for {lacking[0]}")
        return freeze(network, device)

    def problem(self, what: str) -> JtError:
        return JtError(f"{self.option}: {self.name!r} {what}")

    @property
    def _source(self) -> Source:
        folder = Path(self.name).expanduser()
        if folder.is_dir():
            return Folder(folder)
        if not HUB_ID.fullmatch(self.name):
            raise self.problem('is no folder; expected one, or a hub id such as "owner/name"')
        return Repository(self.name)

    def _chosen(self) -> list[str]:
        """The names of the files that are read. Raises JtError."""
        try:
            there = self._source.names(".")
        except ValueError as error:
            raise self._missing(str(error)) from error
        chosen: list[str] = []
        for part in self.parts:
            whole = [names for names in ONE_OF[part] if set(names) <= set(there)]
            if not whole:
                expected = ", or ".join(" with ".join(names) for names in ONE_OF[part])
                raise self._missing(f"has no {expected}")
            chosen += whole[0]
            chosen += [name for name in BESIDE.get(part, ()) if name in there]
        return sorted(set(chosen))

    def _root(self, names: Sequence[str]) -> Path:
        try:
            root = self._source.root(names)
        except ValueError as error:
            raise self._missing(str(error)) from error
        for name in names:
            if not (root / name).is_file():
                raise self._missing(f"has no {name}")
        return root

    def _missing(self, what: str) -> JtError:
        if Path(self.name).expanduser().is_dir():
            return self.problem(what)
        return self.problem(f"{what}; `hf download {self.name}` fetches all of it")

    def _raise_if_of_another_kind(self, root: Path) -> None:
        kind = self._config(root / CONFIG).get("model_type", "model without a type")
        if self.kinds and kind not in self.kinds:
            raise self.problem(f"is a {kind}, expected {' or '.join(self.kinds)}")

    def _config(self, path: Path) -> Mapping[str, Any]:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.problem(f"has no readable {CONFIG}: {error}") from error
        if not isinstance(told, Mapping):
            raise self.problem(f"has no readable {CONFIG}: expected a table")
        return told


def _described(config: Mapping[str, Any]) -> str:
    """Such as "clip, 12 layers of 768, patches of 32 px"."""
    sizes = config.get("vision_config", config)
    layers, width, patch = (
        sizes.get(key, "?") for key in ("num_hidden_layers", "hidden_size", "patch_size")
    )
    return f"{config.get('model_type')}, {layers} layers of {width}, patches of {patch} px"
