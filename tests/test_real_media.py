"""The shipped recipe on pictures and clips as people have them: only paths and captions change."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from jtcore import cli

SHARED = Path(__file__).parents[2] / "shared" / "data"


def run_recipe(photographs, clips, folder):
    settings = [
        f"data.subject.source={photographs}",
        "data.subject.prompt=a sks creature stays at mid on gray",
        f"data.motion.source={clips}",
        "data.motion.prompt=a white ball moves eightwise at mid on gray",
        "backbone.weights=random",
        "validation=false",
        "metric=false",
        'sample.prompts=["a sks creature moves eightwise at mid on teal"]',
        "stage.joint.steps=2",
        "sample.steps=2",
        "sample.seeds=[0]",
    ]
    changes = [word for setting in settings for word in ("--set", setting)]
    assert cli.run(["jointtuner_pocket", "--quiet", "--out", str(folder), *changes]) == 0
    samples = json.loads((folder / "metrics.json").read_text())["samples"]
    assert [entry["model"] for entry in samples] == ["base", "adapted"]
    assert (folder / "adapters" / "joint.safetensors").is_file()
    assert (folder / "samples" / "contact_sheet.png").is_file()


@pytest.mark.skipif(not SHARED.is_dir(), reason="dog2 and playing_guitar are not on this machine")
def test_the_recipe_runs_on_the_dog_photographs_and_guitar_clips(tmp_path):
    photographs, clips = SHARED / "subjects" / "dog2", SHARED / "motions" / "playing_guitar"
    run_recipe(photographs, clips, tmp_path / "run")


def test_the_recipe_runs_on_drawn_photographs_and_clips(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    (tmp_path / "clips").mkdir()
    for number in range(3):
        shape = (300 + 40 * number, 400, 3)
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        picture.save(tmp_path / "photographs" / f"{number}.jpg")
    for number in range(2):
        _write_avi(tmp_path / "clips" / f"{number}.avi", rng.integers(0, 256, (30, 120, 160, 3)))
    run_recipe(tmp_path / "photographs", tmp_path / "clips", tmp_path / "run")


def _write_avi(path, frames):
    with av.open(path, "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in frames.astype(np.uint8):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
