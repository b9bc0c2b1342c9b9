"""Files of RAFT and CoTracker3 with the names and shapes of the published ones, spelled out here,
and drawn weights."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def build_raft(folder: Path, prefix: str = "module.") -> Path:
    """Write `raft-things.pth` to `folder`, as DataParallel leaves it."""
    tensors = drawn(dict(raft_shapes()))
    return _write(folder / "raft-things.pth", {f"{prefix}{n}": t for n, t in tensors.items()})


def build_cotracker(folder: Path) -> Path:
    """Write `scaled_offline.pth` to `folder`."""
    return _write(folder / "scaled_offline.pth", drawn(dict(cotracker_shapes())))


def raft_shapes() -> Shapes:
    """What `raft-things.pth` holds."""
    yield from _encoder("fnet", 256, batch_norm=False)
    yield from _encoder("cnet", 256, batch_norm=True)
    motion = {
        "convc1": (256, 4 * 81, 1, 1),
        "convc2": (192, 256, 3, 3),
        "convf1": (128, 2, 7, 7),
        "convf2": (64, 128, 3, 3),
        "conv": (126, 256, 3, 3),
    }
    for name, shape in motion.items():
        yield from _layer(f"update_block.encoder.{name}", *shape)
    for gate in "zrq":
        yield from _layer(f"update_block.gru.conv{gate}1", 128, 384, 1, 5)
        yield from _layer(f"update_block.gru.conv{gate}2", 128, 384, 5, 1)
    yield from _layer("update_block.flow_head.conv1", 256, 128, 3, 3)
    yield from _layer("update_block.flow_head.conv2", 2, 256, 3, 3)
    yield from _layer("update_block.mask.0", 256, 128, 3, 3)
    yield from _layer("update_block.mask.2", 576, 256, 1, 1)


def cotracker_shapes() -> Shapes:
    """What `scaled_offline.pth` holds."""
    yield "time_emb", (1, 60, 1110)
    yield from _layer("fnet.conv1", 64, 3, 7, 7)
    for stage, (inputs, outputs) in enumerate(((64, 64), (64, 96), (96, 128), (128, 128)), 1):
        yield from _stage(f"fnet.layer{stage}", inputs, outputs, shrinks=stage > 1)
    yield from _layer("fnet.conv2", 256, 416, 3, 3)
    yield from _layer("fnet.conv3", 128, 256, 1, 1)
    yield from _layer("corr_mlp.fc1", 384, 49 * 49)
    yield from _layer("corr_mlp.fc2", 256, 384)
    yield "updateformer.virual_tracks", (1, 64, 1, 384)
    yield from _layer("updateformer.input_transform", 384, 1110)
    yield from _layer("updateformer.flow_head", 2, 384)
    yield from _layer("updateformer.vis_conf_head", 2, 384)
    for depth in range(3):
        for kind in ("time", "space_virtual"):
            yield from _attending(f"updateformer.{kind}_blocks.{depth}", "attn")
        for kind in ("space_point2virtual", "space_virtual2point"):
            place = f"updateformer.{kind}_blocks.{depth}"
            yield f"{place}.norm_context.weight", (384,)
            yield f"{place}.norm_context.bias", (384,)
            yield from _attending(place, "cross_attn")


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """From streams that numpy promises to keep, one for each name, so that numbers can be compared
    with those of other code; scaled so that deep networks neither die nor blow up."""
    return {name: _drawn(name, shape) for name, shape in shapes.items()}


def _encoder(place: str, outputs: int, batch_norm: bool) -> Shapes:
    if batch_norm:
        yield from _norm(f"{place}.norm1", 64)
    yield from _layer(f"{place}.conv1", 64, 3, 7, 7)
    for stage, (inputs, width) in enumerate(((64, 64), (64, 96), (96, 128)), 1):
        yield from _stage(f"{place}.layer{stage}", inputs, width, stage > 1, batch_norm)
    yield from _layer(f"{place}.conv2", outputs, 128, 1, 1)


def _stage(place: str, inputs: int, width: int, shrinks: bool, batch_norm: bool = False) -> Shapes:
    for number, into in ((0, inputs), (1, width)):
        yield from _layer(f"{place}.{number}.conv1", width, into, 3, 3)
        yield from _layer(f"{place}.{number}.conv2", width, width, 3, 3)
        for norm in ("norm1", "norm2") if batch_norm else ():
            yield from _norm(f"{place}.{number}.{norm}", width)
    if shrinks:
        yield from _layer(f"{place}.0.downsample.0", width, inputs, 1, 1)
        for norm in ("norm3", "downsample.1") if batch_norm else ():
            yield from _norm(f"{place}.0.{norm}", width)


def _attending(place: str, attention: str) -> Shapes:
    yield from _layer(f"{place}.{attention}.to_q", 384, 384)
    yield from _layer(f"{place}.{attention}.to_kv", 768, 384)
    yield from _layer(f"{place}.{attention}.to_out", 384, 384)
    yield from _layer(f"{place}.mlp.fc1", 1536, 384)
    yield from _layer(f"{place}.mlp.fc2", 384, 1536)


def _norm(place: str, width: int) -> Shapes:
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{place}.{name}", (width,)
    yield f"{place}.num_batches_tracked", ()


def _layer(place: str, *shape: int) -> Shapes:
    yield f"{place}.weight", shape
    yield f"{place}.bias", shape[:1]


def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(100_000)
    same = name.replace("downsample.1", "norm3")  # one tensor under two names
    rng = np.random.RandomState(sum(same.encode()) * len(same))
    values = rng.uniform(-1, 1, shape)
    if len(shape) > 1 and not name.endswith(("time_emb", "virual_tracks")):
        values = values * (3 / prod(shape[1:])) ** 0.5
    elif len(shape) == 1:
        one = name.endswith("running_var") or (name.endswith("weight") and "norm" in same)
        values = values / 10 + one
    return torch.from_numpy(values).to(torch.float32)


def _write(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, path)
    return path
