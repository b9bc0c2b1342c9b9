"""Tiny checkpoints of each kind beside diffusers' own pipelines of them."""

import pytest
from checkpoints.cogvideox import LENGTH, build
from checkpoints.stock import Stock
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from diffusers import (
    CogVideoXPipeline,
    TextToVideoSDPipeline,
    WanPipeline,
)


@pytest.fixture(scope="module")
def cogvideox(tmp_path_factory) -> Stock:
    folder = build(tmp_path_factory.mktemp("cogvideox"), "5b")
    options = {"max_sequence_length": LENGTH, "num_frames": 9}
    return Stock("cogvideox", folder, CogVideoXPipeline, options)


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> Stock:
    folder = build_wan(tmp_path_factory.mktemp("wan"))
    return Stock("wan", folder, WanPipeline, {"num_frames": 5})


@pytest.fixture(scope="module")
def zeroscope(tmp_path_factory) -> Stock:
    folder = build_zeroscope(tmp_path_factory.mktemp("zeroscope"))
    return Stock("zeroscope", folder, TextToVideoSDPipeline, {"num_frames": 2})
