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
import resource, sys, torch
from jtcore.plugins import load_plugins
import diffusers.models.transformers.cogvideox_transformer_3d

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

spec = load_plugins().find("backbones", "cogvideox")(weights=sys.argv[1])
before = peak()
spec.load(torch.device("cpu"), torch.bfloat16)
print(peak() - before)
"""


def measure() -> Iterator[Row]:
    """Bytes that loading adds to the peak of a process that has imported all it needs."""
    with TemporaryDirectory() as folder:
        size = build(Path(folder))
        command = (sys.executable, "-c", LOADING, folder)
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    added = int(found.split()[-1])
    what = f"memory to load {BLOCKS} blocks of CogVideoX-5B, against their files"
    yield Row(what, added / 2**20, size / 2**20, "MiB")


def build(folder: Path) -> int:
    """Write the transformer and scheduler of a checkpoint; the bytes of the weights."""
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
    return sum(file.stat().st_size for file in (folder / "transformer").glob("*.safetensors"))
