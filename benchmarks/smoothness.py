"""What motion smoothness says of clips as filmed, and of the same made wrong in known ways.

python -m benchmarks.smoothness CLIP ... --out benchmarks/results
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from benchmarks.report import report
from jtcore.media import read_sample
from jtcore.types import Sample
from jtplugins.metrics.motion_smoothness import MotionSmoothness

CPU = torch.device("cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    measure = MotionSmoothness().load(CPU)
    found: dict[str, list[float]] = {}
    for file in given.clips:
        video, fps = read_sample(file)
        for name, wrong in made_wrong(video, given.frames).items():
            value = measure(Sample(wrong, "", 0, fps))["motion_smoothness_dis"]
            found.setdefault(name, []).append(value)
    about = f"`motion_smoothness_dis` of {given.frames} frames of {len(given.clips)} clips"
    with report("smoothness", given.out, about) as say:
        say("| video | least | mean | greatest |")
        say("| --- | --- | --- | --- |")
        for name, values in found.items():
            say(f"| {name} | {min(values):.3f} | {mean(values):.3f} | {max(values):.3f} |")


def made_wrong(video: Tensor, frames: int) -> dict[str, Tensor]:  # (3, F, H, W) in [0, 1]
    """The beginning of a clip, by what was done to it."""
    rng = torch.Generator().manual_seed(0)
    filmed = video[:, :frames]
    darker = filmed.clone()
    darker[:, 1::2] = (darker[:, 1::2] - 0.2).clamp(min=0)
    noise = torch.randn(filmed.shape, generator=rng)
    there = torch.arange(filmed.shape[1])
    return {
        "as filmed": filmed,
        "one frame repeated": filmed[:, torch.zeros_like(there)],
        "every third frame": video[:, : 3 * frames : 3],
        "each even frame twice (a stutter)": filmed[:, there // 2 * 2],
        "shuffled": filmed[:, torch.randperm(len(there), generator=rng)],
        "noise of 0.05 on it": (filmed + 0.05 * noise).clamp(0, 1),
        "every other frame darker by 0.2": darker,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path, help="video files")
    parser.add_argument("--frames", type=int, default=17, help="of each, default 17")
    parser.add_argument("--out", help="folder for smoothness.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
