"""Pretrained pipelines in diffusers' layout: found, fetched part by part, checked, loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from attrs import frozen

from jtcore.errors import JtError

from ._hub import HUB_ID, Folder, Repository, Source
from ._weight_files import WeightFiles, digest, find_weights

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
KINDS = {  # which backbone takes which denoiser
    "CogVideoXTransformer3DModel": "cogvideox",
    "UNet3DConditionModel": "zeroscope",
    "WanTransformer3DModel": "wan",
}


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

    def expect(self, part: str, *names: str) -> str:
        """The class of diffusers or transformers that a part is of. Raises JtError where it is none
        of `names`."""
        config = self.config(part)
        found = config.get("_class_name") or " or ".join(config.get("architectures") or ["no name"])
        if found not in names:
            hint = f"; use backbone.kind = {KINDS[found]!r}" if found in KINDS else ""
            text = f"expected {' or '.join(names)}, found {found}{hint}"
            raise self.problem(part, text, sign=":")
        return found

    def weight_files(self, part: str) -> WeightFiles | None:
        """What the weights of a part are in; None where it has none. Raises JtError."""
        if (file := self._config_file(part)).name != NETWORK:
            vocabularies = [file.with_name(name) for name in VOCABULARIES]
            if file.name == TOKENIZER and not any(path.is_file() for path in vocabularies):
                raise self.problem(part, f"has no vocabulary: none of {', '.join(VOCABULARIES)}")
            return None
        library = "diffusers" if "_class_name" in self.config(part) else "transformers"
        try:
            return find_weights(self._source(), part, library, self.variant)
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
        root = self._root([INDEX])
        whole = json.loads((root / INDEX).read_text()) if (root / INDEX).is_file() else {}
        named = sorted(name for name, value in whole.items() if isinstance(value, list))
        if part in named:
            return f"lacks the folder {part!r}, which its {INDEX} names"
        there = named or sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
        kind = f", being a {whole['_class_name']}" if "_class_name" in whole else ""
        return f"has no {part!r}{kind}; it has {', '.join(map(repr, there)) or 'no parts at all'}"

    def problem(self, part: str, text: str, sign: str = "") -> JtError:
        return JtError(f"backbone.weights: {part!r} of {self.weights!r}{sign} {text}")


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


def with_defaults(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of the class `name`, with what files older than an option do not say."""
    options = signature(network_class(name)).parameters.values()
    known = {each.name: each.default for each in options if each.default is not each.empty}
    return known | dict(config)


def bare_network(name: str, config: Mapping[str, Any], device: torch.device) -> nn.Module:
    """A network of the class `name`, with weights as its constructor draws them; on "meta" none."""
    cls = network_class(name)
    with device:
        if hasattr(cls, "config_class"):  # of transformers
            return cls(cls.config_class.from_dict(dict(config)))
        return cls.from_config(dict(config))


def freeze(model: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """On `device` and in `dtype`, without gradients or dropout. What diffusers keeps in float32
    when it loads a network stays in it."""
    from torch import float32, nn

    nn.Module.to(model, device)  # the classes' own `to` warns of a dtype
    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if dtype and tensor is not None and tensor.is_floating_point():
                precise = not kept.isdisjoint(f"{path}.{name}".split("."))
                tensor.data = tensor.data.to(float32 if precise else dtype)
    return model.requires_grad_(False).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers and transformers from drawing progress bars."""
    import diffusers
    import transformers

    logs = [library.utils.logging for library in (diffusers, transformers)]
    shown = [log for log in logs if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


def network_class(name: str) -> Any:
    """Of diffusers, or of transformers where that has none of the name."""
    import diffusers
    import transformers

    return getattr(diffusers, name, None) or getattr(transformers, name)
