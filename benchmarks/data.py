"""Clips a second: read and encoded, and then found in the cache."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from benchmarks.compare import Row
from jtcore.cache import Cache
from jtcore.data import Data
from jtcore.media import write_video
from jtcore.plugins import load_plugins
from jtcore.stream import load_items

CLIPS, FRAMES, SIDE, SHOWN = 8, 16, 96, 24


def measure(clips: int = CLIPS, frames: int = FRAMES, side: int = SIDE) -> Iterator[Row]:
    """Of drawn videos, by pocket's codec: what a codec of its own costs is not in it."""
    spec = load_plugins().find("backbones", "pocket")(weights="random")
    with TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        videos.mkdir()
        rng = torch.Generator().manual_seed(0)
        for number in range(clips):
            video = torch.rand(3, frames, side, side, generator=rng)
            write_video(videos / f"{number}.mp4", video, SHOWN)
            (videos / f"{number}.txt").write_text("a clip")
        data, cache = (
            Data(source=str(videos), size=(side, side), frames=frames),
            Cache(Path(folder) / "cache"),
        )
        speeds = []
        for _ in range(2):
            began = perf_counter()
            load_items("data", data, spec, cache, torch.device("cpu"), lambda line: None)
            speeds.append(clips / (perf_counter() - began))
        what = f"clips of {frames}x{side}x{side} from the cache, against encoding them"
        yield Row(what, speeds[1], speeds[0], "clips/s")
