"""What `jt-eval` needs of memory for more and more videos, and how often its intervals hold.

python -m benchmarks.evaluating --out benchmarks/results
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import report
from jtcore.media import write_video
from jtcore.statistics import cluster_bootstrap

FRAMES, SIDE = 16, 256
SEEDS = 4  # of a prompt
METRICS = ("temporal_consistency", "temporal_flickering")  # of the suite offline
PEAK = """
import resource, sys
from jtcore import cli
assert cli.evaluate(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parse(arguments)
    about = f"`jt-eval` over videos of {FRAMES}x{SIDE}x{SIDE}, by {' and '.join(METRICS)}"
    with report("evaluating", given.out, about) as say:
        say("| videos | peak memory of the whole process, MiB |")
        say("| --- | --- |")
        with tempfile.TemporaryDirectory() as folder:
            for run in range(given.runs):
                for count in given.videos:
                    say(f"| {count} | {peak(Path(folder), count, run)} |")
        say("\nHow often the 95 % interval of a bootstrap over prompts holds the mean, of values")
        say(f"normal over prompts (deviation 1) and over {SEEDS} seeds of each (deviation 1):\n")
        say(f"| prompts | of {given.repetitions:,} intervals |")
        say("| --- | --- |")
        for prompts in given.prompts:
            say(f"| {prompts} | {held(prompts, given.repetitions):.1%} |")


def peak(folder: Path, count: int, run: int) -> int:
    """MiB, of a process that measures so many different videos and knows none of them."""
    videos = folder / f"{count}"
    for number in range(count if not videos.exists() else 0):
        rng = torch.Generator().manual_seed(number)
        coarse = torch.rand(1, 3, FRAMES, 8, 8, generator=rng)
        video = torch.nn.functional.interpolate(coarse, (FRAMES, SIDE, SIDE), mode="trilinear")
        write_video(videos / f"{number:03d}-word-{number}.mp4", video[0], 8)
    only = [option for name in METRICS for option in ("--only", name)]
    command = ["--videos", str(videos), "--suite", "offline", *only, "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command],
        env={**os.environ, "JT_CACHE": str(folder / f"cache-{count}-{run}")},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(done.stdout.splitlines()[-1])


def held(prompts: int, repetitions: int) -> float:
    """The share of intervals that hold the true mean, which is 0."""
    rng = np.random.default_rng(prompts)
    asked = np.repeat(np.arange(prompts), SEEDS).tolist()
    hits = 0
    for _ in range(repetitions):
        values = rng.normal(size=(prompts, 1)) + rng.normal(size=(prompts, SEEDS))
        found = cluster_bootstrap(values.ravel().tolist(), asked)
        hits += found.low <= 0 <= found.high
    return hits / repetitions


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--runs", type=int, default=2, help="of each number of videos")
    parser.add_argument("--prompts", nargs="+", type=int, default=[2, 3, 5, 10, 20, 50, 90])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--out", help="a folder, in which the tables are written to a file too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
