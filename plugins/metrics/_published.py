"""Weights as authors publish them for networks that no library has: one file of named tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from attrs import frozen

from jtcore.errors import JtError

from ..backbones._hub import HUB_ID, Repository
from ..backbones._networks import freeze

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

WRAPPERS = ("state_dict", "params")  # keys under which a training script leaves the tensors
SHOWN = 3  # differences from a network that are named


@frozen
class Published:
    """A file by its published name: in a hub repository, in a folder, or where `model` says"""

    name: str
    hub: str  # the id of the repository that has it

    def find(self, model: str) -> Path:
        """Where it is; of a hub id it is fetched into the hub's cache. Raises JtError."""
        path = self._on_disk(model)
        if path is None:
            try:
                path = Repository(model).root([self.name]) / self.name
            except ValueError as error:
                raise self._problem(model, str(error)) from error
        if not path.is_file():
            raise self._problem(model, f"has no {self.name}")
        return path

    def there(self, model: str) -> Path | None:
        """The same, but nothing is fetched: None where the hub has it. Raises JtError."""
        from huggingface_hub import try_to_load_from_cache

        if path := self._on_disk(model):
            return path
        if isinstance(cached := try_to_load_from_cache(model, self.name), str):
            return Path(cached)
        try:
            names = Repository(model).names(".")
        except ValueError as error:
            raise self._problem(model, str(error)) from error
        if self.name not in names:
            raise self._problem(model, f"has no {self.name}")
        return None

    def _on_disk(self, model: str) -> Path | None:
        """The file, or the one in a folder; None of a hub id. Raises JtError."""
        path = Path(model).expanduser()
        if path.is_dir() and not (path / self.name).is_file():
            raise self._problem(model, f"has no {self.name}")
        if path.exists():
            return path / self.name if path.is_dir() else path
        if not HUB_ID.fullmatch(model):
            raise self._problem(model, "is no file, folder or hub id")
        return None

    def _problem(self, model: str, what: str) -> JtError:
        return JtError(
            f"model: {model!r} {what}; get {self.name} by `hf download {self.hub} {self.name}"
            " --local-dir FOLDER` and set model to the folder or the file"
        )


def read_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a file by name; on "meta" only their shapes. Raises JtError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            held = load_file(path, device="cpu")
        else:
            held = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError, SafetensorError) as error:
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JtError(f"model: {path} is no file of tensors that can be read: {told}") from error
    for key in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    if not isinstance(held, Mapping) or not all(map(torch.is_tensor, held.values())):
        raise JtError(f"model: {path} holds something else than named tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in held.items()}


def misfits(published: Published, model: str, build: Callable[[], nn.Module]) -> list[str]:
    """What keeps the file from being loaded into a network, on the meta device; nothing is
    fetched."""
    try:
        if path := published.there(model):
            raise_unless_alike(build(), read_tensors(path, "meta"), path)
    except JtError as error:
        return list(error.problems)
    return []


def load_frozen(
    network: nn.Module, tensors: Mapping[str, Tensor], path: Path, device: torch.device
) -> nn.Module:
    """A network on the meta device, with a file's tensors in float32, on `device` and without
    gradients. Raises JtError where the two are not alike."""
    raise_unless_alike(network, tensors, path)
    network.load_state_dict({name: each.float() for name, each in tensors.items()}, assign=True)
    return freeze(network, device)


def raise_unless_alike(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises JtError where names or shapes of a file differ from a network's."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [
        *(f"{name} is missing" for name in expected if name not in found),
        *(f"{name} is not of this network" for name in found if name not in expected),
        *(
            f"{name} is {found[name]}, expected {shape}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        kind = type(network).__name__
        raise JtError(f"model: {path} does not fit {kind}: {', '.join(wrong[:SHOWN])}{more}")
