"""Checkpoints: the whole state of a run in one safetensors file, whole or not there."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from jtcore.errors import JtError
from jtcore.files import write_atomically

PATTERN = "step-*.safetensors"


@frozen
class Position:
    """How far a run has come: `index` steps of `stage` are done, `number` steps of the run."""

    stage: str
    index: int
    number: int


@frozen(eq=False)
class Checkpoint:
    """A position with its tensors, by `owner/name`, and the plain values of the optimizer."""

    position: Position
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    def of(self, owner: str) -> dict[str, Tensor]:
        """The tensors of one owner, such as `adapter.joint`."""
        return {
            name.removeprefix(f"{owner}/"): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{owner}/")
        }


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write it aside, then in place; of the older ones, `keep` - 1 stay."""
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{checkpoint.position.number:08d}.safetensors"
    metadata = {
        "position": json.dumps(attrs.asdict(checkpoint.position)),
        "values": json.dumps(checkpoint.values),
    }
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()
    }
    with write_atomically(path) as aside:
        save_file(tensors, aside, metadata)
    for old in sorted(folder.glob(PATTERN))[:-keep]:
        old.unlink()
    return path


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest that reads whole; damaged ones are named and passed over."""
    for path in sorted(folder.glob(PATTERN), reverse=True):
        try:
            return _read(path)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            say(f"{path} is damaged and passed over: {error}")
    return None


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors and plain values. Raises JtError for other things."""
    found = optimizer.state_dict()
    return named_state(type(optimizer).__name__, found["state"], found["param_groups"])


def named_state(
    kind: str, state: Mapping[int, Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Of an optimizer's state by parameter, and its groups. Raises JtError for other things."""
    tensors, values = {}, {}
    for index, entries in state.items():
        for name, value in entries.items():
            (tensors if isinstance(value, Tensor) else values)[f"{index}.{name}"] = value
    options = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    try:
        return tensors, json.loads(json.dumps({"state": values, "groups": options}))
    except TypeError as error:
        raise JtError(f"{kind} cannot be checkpointed: {error}") from error


def state_by_parameter(
    tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """The state that `named_state` named."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **values["state"]}.items():
        index, _, entry = name.partition(".")
        state.setdefault(int(index), {})[entry] = value
    return state


def load_optimizer_state(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Put back what `optimizer_state` took."""
    state = state_by_parameter(tensors, values)
    groups = [
        {**now, **then}
        for now, then in zip(optimizer.state_dict()["param_groups"], values["groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _read(path: Path) -> Checkpoint:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: torch.clone(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a dict
    position = Position(**json.loads(metadata["position"]))
    return Checkpoint(position, tensors, json.loads(metadata["values"]))
