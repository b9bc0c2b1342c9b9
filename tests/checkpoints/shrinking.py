"""Shipped recipes made so small that they run in seconds, on tiny checkpoints and drawn data."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from checkpoints.clip import build_clip
from checkpoints.cogvideox import build
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from jtcore.tables import read_table

BUILDERS: Mapping[str, Callable[[Path], Path]] = {  # by the published weights that they stand for
    "THUDM/CogVideoX-2b": partial(build, flavour="2b"),
    "THUDM/CogVideoX-5b": partial(build, flavour="5b"),
    "cerspense/zeroscope_v2_576w": build_zeroscope,
    "damo-vilab/text-to-video-ms-1.7b": build_zeroscope,
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": build_wan,
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": build_clip,
}
STILL = ("subject", "class")  # in names of folders of pictures, which videos may be made of
NETWORKS = ("clip_text", "clip_image", "dino_image", "copying_score")  # metrics that need one
SIDE, FRAMES = 32, {"zeroscope": 4, "modelscope": 4}  # else 9
WHOLE = {"unit": "fraction", "between": [0, 1]}  # all steps of sampling
FILES = 2  # of each kind in the drawn task


def settings(recipe: Path, folder: Path) -> list[str]:
    """Those of a recipe's file."""
    return settings_of(read_table(recipe), folder)


def settings_of(table: Mapping[str, Any], folder: Path) -> list[str]:
    """`--set` values with which a recipe of real weights runs on a tiny checkpoint, built in
    `folder`, and on the task in `folder`/task, which `jt-pocket draw` drew; without metrics that
    need networks."""
    backbone, size = table["backbone"], [SIDE, SIDE]
    frames = FRAMES.get(backbone["kind"], 9)
    values: dict[str, Any] = {"engine.device": "cpu"}
    for part in ("backbone", "image_encoder"):
        if part in table:
            values[f"{part}.weights"] = checkpoint(table[part]["weights"], folder)
    for name, data in table["data"].items():
        videos = data.get("frames", 1) > 1 or "clips" in data  # or single frames of them
        videos &= not any(word in data["source"] for word in STILL)
        source = folder / "task" / ("motion" if videos else "subject")
        values |= {f"data.{name}.source": str(source), f"data.{name}.size": size}
        if data.get("frames", 1) > 1:
            values[f"data.{name}.frames"] = frames
        if "masks" in data:
            values[f"data.{name}.masks"] = str(folder / "task" / "masks")
    if "reference" in table["sample"]:
        values["sample.reference.picture"] = str(folder / "task" / "subject" / "00.png")
    for name, adapter in table["adapter"].items():
        if "groups" in adapter:
            values[f"adapter.{name}.groups"] = 1
        if adapter["kind"] in ("lora", "glora"):
            values[f"adapter.{name}.rank"] = 2
        if "bank" in adapter:
            values[f"adapter.{name}.bank"] = FILES
    values |= {f"stage.{name}.steps": 2 for name in table["stage"]}
    for name, stage in table["stage"].items():
        for branch, losses in ((n, b["losses"]) for n, b in stage["branch"].items()):
            # of a tiny UNet, which has not as many levels
            for loss in (n for n, each in losses.items() if each.get("cells", 0) > 2):
                values[f"stage.{name}.branch.{branch}.losses.{loss}.cells"] = 1
    for name, control in table["sample"].get("control", {}).items():
        if "between" in control:
            values |= {f"sample.control.{name}.{key}": value for key, value in WHOLE.items()}
    sampled = {"frames": frames, "size": size, "steps": 2, "prompts": [prompt(table)]}
    values |= {f"sample.{key}": value for key, value in sampled.items()}
    for name, metric in table.get("metric", {}).items():
        if metric["kind"] in NETWORKS or "model" in metric:
            values[f"metric.{name}"] = False
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def prompt(table: Mapping[str, Any]) -> str:
    """One that its controls, which look for words, can lead."""
    return table["sample"]["prompts"][0] if "control" in table["sample"] else "a cat"


def checkpoint(weights: str, folder: Path) -> str:
    """The folder that stands for published `weights`, built once."""
    built = folder / weights.replace("/", "--")
    if not built.exists():
        BUILDERS[weights](built)
    return str(built)
