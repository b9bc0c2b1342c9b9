"""Pretrained pipelines in diffusers' layout: found, fetched part by part, checked, loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from attrs import frozen

from jtcore.errors import JtError

from ._hub import HUB_ID, Folder, Repository, Source
from ._networks import bare_network, freeze, network_class, quiet
from ._weight_files import WeightFiles, digest, find_weights, raise_if_unlisted

if TYPE_CHECKING:
    import torch
    from torch import nn

INDEX = "model_index.json"
Made = TypeVar("Made")
CONFIGS = NETWORK, _, TOKENIZER = (
    "config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
)
VOCABULARIES = ("tokenizer.json", "spiece.model", "vocab.json")
SMALL = ("json", "model", "txt")  # all that a part has besides weights
PARTS = ("transformer", "unet", "vae", "text_encoder", "tokenizer", "scheduler")
KINDS = {  # which backbone takes which class of part
    "CogVideoXTransformer3DModel": "cogvideox",
    "UNet3DConditionModel": "zeroscope",
    "WanTransformer3DModel": "wan",
    "PatchCodec": "pocket",
}
OTHER = {"transformer": "unet", "unet": "transformer"}  # denoisers have one of two names


@frozen
class Checkpoint:
    """A pretrained pipeline in diffusers' layout: a local folder, or a hub id that is fetched part
    by part

    Every JtError that it raises begins with "backbone.weights: ".
    """

    weights: str  # "THUDM/CogVideoX-5b", or a folder
    variant: str | None = None  # "fp16": model.fp16.safetensors and the like
    revision: str | None = None  # of a hub id: a branch, tag or commit

    def folder(self, part: str) -> Path:
        """The folder of "transformer", "vae", "text_encoder", "tokenizer", "scheduler" or "unet",
        with all that it takes to load it. Of a hub id only that part is fetched.

        Raises JtError where it is not there, or not whole.
        """
        self.weight_files(part)
        return self._small(part)

    def config(self, part: str) -> dict[str, Any]:
        """The configuration of a part; its weights are not fetched. Raises JtError."""
        file = self._config_file(part)
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.problem(part, f"has a {file.name} that is not JSON: {error}") from error

    def index(self) -> dict[str, Any]:
        """What the pipeline says of its parts, and options; empty where it says nothing. Raises
        JtError."""
        file = self._root([INDEX]) / INDEX
        try:
            return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except (OSError, ValueError) as error:
            text = f"has a {INDEX} that is not JSON: {error}"
            raise JtError(f"backbone.weights: {self.weights!r} {text}") from error

    def expect(self, part: str, *names: str) -> str:
        """The class of diffusers or transformers that a part is of. Raises JtError where it is none
        of `names`."""
        found = self._class(part)
        if found not in names:
            text = f"expected {' or '.join(names)}, found {found}{self._hint(found)}"
            raise self.problem(part, text, sign=":")
        return found

    def check_files(self, part: str) -> None:
        """Raises JtError where files of a part are missing or not whole. Those of a hub id are only
        looked for among the names there: no weights are fetched."""
        stored = isinstance(self._source(), Folder)
        self._weights(part, find_weights if stored else raise_if_unlisted)

    def weight_files(self, part: str) -> WeightFiles | None:
        """What the weights of a part are in, fetched; None where it has none. Raises JtError."""
        return self._weights(part, find_weights)

    def _weights(self, part: str, find: Callable[..., Made]) -> Made | None:
        """What `find` answers of weights, where the part has any."""
        if (file := self._config_file(part)).name != NETWORK:
            vocabularies = [file.with_name(name) for name in VOCABULARIES]
            if file.name == TOKENIZER and not any(path.is_file() for path in vocabularies):
                raise self.problem(part, f"has no vocabulary: none of {', '.join(VOCABULARIES)}")
            return None
        library = "diffusers" if "_class_name" in self.config(part) else "transformers"
        try:
            return find(self._source(), part, library, self.variant)
        except (OSError, ValueError) as error:
            raise self.problem(part, str(error)) from error

    def read(self, part: str, read: Callable[[Path], Made]) -> Made:
        """What a library's own `read` makes of the folder of a part. Raises JtError."""
        folder = self.folder(part)
        try:
            with quiet():
                return read(folder)
        except UnpicklingError as error:
            text = "has a .bin with more in it than tensors, which is not unpickled"
            raise self.problem(part, f"{text}; find one with safetensors") from error
        except (OSError, ValueError, RuntimeError) as error:
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise self.problem(part, f"cannot be loaded: {told[0]}") from error

    def identity(self, *parts: str) -> str:
        """Hexadecimal digits that change when the files of `parts` do.

        Files up to 64 MiB are read whole. Of larger ones the size, the names, types and shapes of
        tensors and 64 evenly spaced blocks of 64 KiB are: what leaves all these as they were is not
        seen. Training and conversion change every block.
        """
        return digest({f"{part}/{file.name}": file for part in parts for file in self._files(part)})

    def _files(self, part: str) -> list[Path]:
        """Those that `load_network` or a tokenizer reads."""
        weights, folder = self.weight_files(part), self._small(part)
        if weights is None:
            return sorted(p for p in folder.iterdir() if p.suffix.lstrip(".") in SMALL)
        return [folder / NETWORK, *weights.paths]

    def _class(self, part: str) -> str:
        config = self.config(part)
        names = [config["_class_name"]] if "_class_name" in config else config.get("architectures")
        if not names and self._config_file(part).name == TOKENIZER:
            told = config.get("tokenizer_class")
            names = [told] if told else self.index().get(part, ())[1:]
        return " or ".join(names or ["no name"])

    def _config_file(self, part: str) -> Path:
        folder = self._small(part)
        found = [folder / name for name in CONFIGS if (folder / name).is_file()]
        if not found:
            raise self.problem(part, f"has none of {', '.join(CONFIGS)}")
        return found[0]

    def _small(self, part: str) -> Path:
        """The folder of a part; of a hub id, with all but its weights."""
        root = self._root([f"{part}/*.{kind}" for kind in SMALL])
        if not (root / part).is_dir():
            raise JtError(f"backbone.weights: {self.weights!r} {self._lack_of(part)}")
        return root / part

    def _root(self, patterns: list[str]) -> Path:
        try:
            return self._source().root(patterns)
        except ValueError as error:
            raise JtError(f"backbone.weights: {self.weights!r} {error}") from error

    def _source(self) -> Source:
        try:
            path = Path(self.weights).expanduser()
            if path.is_dir():
                if self.revision:
                    raise ValueError("is a folder, which has no revisions; leave `revision` out")
                if _is_part(path):
                    raise ValueError("is one part of a pipeline; name the folder above")
                return Folder(path)
            if path.exists():
                raise ValueError("is a file; expected a folder as diffusers saves a pipeline")
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from error
        except RuntimeError:  # nobody of that name has a home
            pass
        if not HUB_ID.fullmatch(self.weights):
            raise ValueError('is no folder; expected one, or a hub id such as "owner/name"')
        return Repository(self.weights, self.revision)

    def _lack_of(self, part: str) -> str:
        """What to tell of a pipeline without a part."""
        root, whole = self._root([INDEX]), self.index()
        named = sorted(name for name, own in whole.items() if isinstance(own, list) and any(own))
        if part in named:
            return f"lacks the folder {part!r}, which its {INDEX} names"
        there = named or sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
        kind = f", being a {whole['_class_name']}" if "_class_name" in whole else ""
        other = OTHER.get(part)
        hint = self._hint(self._class(other) if other in there else None)
        found = ", ".join(map(repr, there)) or "no parts at all"
        return f"has no {part!r}{kind}; it has {found}{hint}"

    def _hint(self, found: str | None) -> str:
        """Which backbone takes a pipeline whose denoiser is of the class `found`."""
        if (self._root([INDEX]) / "codec").is_dir():  # the denoiser is as CogVideoX's
            found = self._class("codec")
        return f"; use backbone.kind = {KINDS[found]!r}" if found in KINDS else ""

    def problem(self, part: str, text: str, sign: str = "") -> JtError:
        return JtError(f"backbone.weights: {part!r} of {self.weights!r}{sign} {text}")


def _is_part(folder: Path) -> bool:
    """Whether it has a configuration of its own, and lies where parts do."""
    folder = folder.resolve()
    inside = folder.name in PARTS or (folder.parent / INDEX).is_file()
    return inside and any((folder / name).is_file() for name in CONFIGS)


def kind_hint(root: Path) -> str:
    """Which backbone takes a folder, to be told by one that does not; empty where none does."""
    parts = [part for part in OTHER if (root / part / NETWORK).is_file()]
    found = Checkpoint(str(root)).config(parts[0]).get("_class_name") if parts else None
    whole = found in KINDS and (root / "vae").is_dir()
    return f"; use backbone.kind = {KINDS[found]!r}" if whole else ""


def load_network(
    name: str,
    checkpoint: Checkpoint,
    part: str,
    device: torch.device,
    dtype: torch.dtype | Literal["auto"] = "auto",
) -> nn.Module:
    """A part, as the diffusers or transformers class `name`, frozen and in evaluation mode.

    "auto" is the type that it is stored in. On "meta" it is made of the configuration alone, and
    no weights are fetched. Raises JtError.
    """
    checkpoint.expect(part, name)
    if device.type == "meta":
        assert dtype != "auto", "nothing is stored of what is on meta"
        return freeze(bare_network(name, checkpoint.config(part), device), device, dtype)
    files = checkpoint.weight_files(part)
    assert files is not None, f"{part} has no weights"

    def read(folder: Path) -> tuple[nn.Module, Mapping[str, Any]]:
        stored = files.dtype()
        return network_class(name).from_pretrained(
            folder,
            dtype=stored if dtype == "auto" else dtype,
            variant=checkpoint.variant,
            use_safetensors=files.safe,
            output_loading_info=True,
        )

    model, info = checkpoint.read(part, read)
    if lacking := sorted(info["missing_keys"]):
        more = f" and {len(lacking) - 1} more tensors" if len(lacking) > 1 else ""
        raise checkpoint.problem(part, f"has no weights for {lacking[0]}{more}")
    return freeze(model, device)
