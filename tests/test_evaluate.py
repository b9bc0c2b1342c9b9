"""Metrics over videos on disk: what has no value is left out of means, and counted out."""

import math

import pytest
import torch
from attrs import frozen

from jtcore.evaluate import measure, summarise
from jtcore.media import write_video
from jtcore.structure import Component

PROMPTS = ("a dark clip", "a bright clip")


@frozen
class Brightness:
    """Has no value for what is dark."""

    def load(self, device):
        return self.look

    def look(self, sample):
        level = sample.video.mean().item()
        return {"level": level if level > 0.5 else math.nan, "frames": sample.video.shape[1]}


def test_a_value_that_is_none_counts_for_nothing(tmp_path):
    entries = []
    for index, prompt in enumerate(PROMPTS):
        write_video(tmp_path / f"{index}.mp4", torch.full((3, 4, 64, 64), 0.2 + 0.6 * index), 8)
        entries.append({"file": f"{index}.mp4", "prompt": prompt, "seed": 0, "model": "adapted"})
    metrics = {"m": Component("brightness", Brightness())}

    measured = measure(entries, tmp_path, metrics, torch.device("cpu"))

    assert measured[0]["metrics"] == {"m.frames": 4.0}
    found = summarise(measured)["adapted"]
    assert found["m.level"] == {"mean": pytest.approx(0.8, abs=0.02), "deviation": 0.0, "videos": 1}
    assert found["m.frames"] == {"mean": 4.0, "deviation": 0.0, "videos": 2}
