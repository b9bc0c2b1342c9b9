"""Host memory while a denoiser is loaded: its peak, against the size of its files.

A synthetic checkpoint has CogVideoX-5B's widths and three of its 42 blocks, in bfloat16 and in
shards, as the hub has it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.compare import Row

BLOCKS = 3
LOADING = """
import pathlib, re, sys, torch
from jtcore.plugins import load_plugins
import diffusers.models.transformers.cogvideox_transformer_3d

def told(key):  # of this process alone: what getrusage tells begins with its parent's
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(key + r":\\s*(\\d+) kB", status)[1]) * 1024

spec = load_plugins().find("backbones", "cogvideox")(weights=sys.argv[1])
before = told("VmRSS")
denoiser = spec.load(torch.device("cpu"), getattr(torch, sys.argv[2])).denoiser
for weight in denoiser.parameters():
    weight.sum()  # files are mapped: what nobody touches is not in memory
print(told("VmHWM") - before)
"""


def measure() -> Iterator[Row]:
    """What loading adds, at its peak, to a process that has imported all it needs."""
    with TemporaryDirectory() as folder:
        size = build(Path(folder))
        for dtype, what in (("bfloat16", "as stored"), ("float16", "in another type")):
            command = (sys.executable, "-c", LOADING, folder, dtype)
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            added = int(found.split()[-1]) / 2**20
            yield Row(f"memory for {BLOCKS} blocks of CogVideoX-5B {what}", added, size, "MiB")


def build(folder: Path) -> float:
    """Write the transformer and scheduler of a checkpoint; MiB of the weights' files."""
    import torch

    from jtcore.plugins import load_plugins

    cogvideox = load_plugins().find("backbones", "cogvideox")
    spec = cogvideox(weights="random", config="5b", layers=BLOCKS)
    backbone = spec.load(torch.device("cpu"), torch.bfloat16)
    backbone.denoiser.save_pretrained(folder / "transformer", max_shard_size="300MB")
    backbone.scheduler.save_pretrained(folder / "scheduler")
    parts = {
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
    }
    index = {"_class_name": "CogVideoXPipeline"} | parts
    (folder / "model_index.json").write_text(json.dumps(index))
    files = (folder / "transformer").glob("*.safetensors")
    return sum(file.stat().st_size for file in files) / 2**20
