"""What two processes are asked to run, and how it is held against one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

LONG = 900  # s, for a machine that does other things as well
DDP = {"kind": "ddp"}
# DeepSpeed leaves weights of up to 100,000 numbers whole, which here are all
NONE_SMALL = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


def zero(stage: int, **options) -> dict:
    return {"kind": "deepspeed", "deepspeed": {"stage": stage, **options}}


def accumulating(table: dict) -> dict:
    """What one process does that does the work of two."""
    stages = {
        name: {**stage, "accumulate": 2 * stage.get("accumulate", 1)}
        for name, stage in table["stage"].items()
    }
    return {**table, "stage": stages}


def shared(table: dict, engine: dict) -> dict:
    return {**table, "engine": {**table["engine"], **engine}}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.stem}.{name}": tensor
        for file in sorted(run.glob("adapters/*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def assert_alike(run: Path, other: Path, most: float = 1e-6) -> None:
    """Trained to the same weights but for the order in which sums are taken, and whole at the end,
    where the first process validates."""
    found, expected = weights(run), weights(other)
    assert found.keys() == expected.keys() != set()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=most, msg=name)
    measured, same = (json.loads((r / "metrics.json").read_text()) for r in (run, other))
    changed = [each["validation"]["held_out"]["change"] for each in (measured, same)]
    assert changed[0] == pytest.approx(changed[1], abs=1e-5) and changed[1] != 0
