"""Which frames metrics look at, how pictures are prepared, and what frames' likeness amounts to."""

import math

import cv2
import numpy as np
import pytest
import torch
from transformers import BitImageProcessorPil, CLIPImageProcessorPil

from jtcore.errors import JtError
from jtcore.plugins import load_plugins
from jtcore.structure import structure
from jtcore.types import Sample
from jtplugins.metrics._consistency import consecutive, vbench
from jtplugins.metrics._frames import OfFrames, OfFramesOrReleased
from jtplugins.metrics._preparations import dreamvideo, openai, vbench_clip, vbench_dino
from jtplugins.metrics.clip_text import ClipText


def clip(frames: int, fps: float) -> Sample:
    """Each frame is as bright as its number."""
    levels = torch.arange(frames).view(1, -1, 1, 1) / 255
    return Sample(levels.expand(3, -1, 2, 2), "", 0, fps)


def shown(spec: OfFrames, sample: Sample) -> list[int]:
    numbers = [index for index, _ in spec.shown_at(sample)]
    assert [int(picture[0, 0, 0]) for picture in spec.shown(sample)] == numbers
    return numbers


@pytest.mark.parametrize(("fps", "rate"), [(24, 8), (25, 8), (30, 8), (23.976, 10), (16, 3.5)])
def test_a_rate_shows_what_a_player_shows_at_each_moment(fps, rate):
    starts = np.arange(49) / fps
    moments = np.arange(0, 49 / fps - 1e-9, 1 / rate)
    expected = [int(np.searchsorted(starts, moment + 1e-6, "right")) - 1 for moment in moments]
    assert shown(OfFrames(frames=rate), clip(49, fps)) == expected


def test_all_frames_are_shown_unless_a_lower_rate_is_asked_for():
    every = list(range(6))
    assert shown(OfFrames(), clip(6, 8)) == every
    assert shown(OfFrames(frames=8), clip(6, 8)) == every
    assert shown(OfFrames(frames=30.0), clip(6, 8)) == every
    assert shown(OfFrames(frames=0.01), clip(6, 8)) == [0]


@pytest.mark.parametrize(("fps", "interval"), [(8, 1), (15, 1), (15.999, 1), (16, 2), (25, 3)])
def test_the_released_code_divides_and_drops_the_rest(fps, interval):
    spec = OfFramesOrReleased(compat="jointtuner")
    assert shown(spec, clip(20, fps)) == list(range(0, 20, interval))
    assert shown(spec, clip(20, fps - 1e-5)) == list(range(0, 20, interval))  # as files round it


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"frames": 0}, 'frames: expected "all" or a number of frames per second, got 0'),
        ({"frames": "8"}, "frames: expected \"all\" or a number of frames per second, got '8'"),
        ({"frames": True}, 'frames: expected "all" or a number of frames per second, got True'),
        ({"batch": 0}, "batch: must be >= 1: 0"),
        ({"compat": "vbench"}, "compat: expected 'jointtuner', got 'vbench' (str)"),
        (
            {"compat": "jointtuner", "frames": 8},
            "recipe: expected frames or compat, got both: compat says which frames",
        ),
    ],
)
def test_what_is_wrong_with_an_option_is_told(options, told):
    with pytest.raises(JtError) as caught:
        structure(ClipText, options, load_plugins())
    assert caught.value.problems == (told,)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:  # uint8 (H, W, 3)
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 6, 3)).astype(np.float32)
    return (
        cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        .clip(0, 255)
        .astype(np.uint8)
    )


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(64, 44), (44, 64), (32, 32), (20, 40), (64, 128)])
def test_pictures_are_prepared_for_clip_as_transformers_own_processor_does(size):
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    expected = processor(picture(*size), return_tensors="pt").pixel_values
    found = openai(32)([tensor(picture(*size))])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_torchvision_cuts_a_pixel_off_where_transformers_does_not():
    """Of three pixels too many it cuts two before and one after: 1.5 is rounded to the even."""
    wide = tensor(picture(32, 35))
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    one, two = (
        processor(picture(32, 35)[:, start : start + 32], return_tensors="pt").pixel_values
        for start in (1, 2)
    )
    stock = processor(picture(32, 35), return_tensors="pt").pixel_values
    assert torch.equal(stock, one)
    torch.testing.assert_close(openai(32)([wide]), two, rtol=0, atol=1e-5)


def test_pictures_are_prepared_for_dino_as_dreamvideo_does():
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor = BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=mean,
        image_std=deviation,
    )
    for size in ((300, 400), (480, 720)):
        expected = processor(picture(*size), return_tensors="pt").pixel_values
        found = dreamvideo(224)([tensor(picture(*size))])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(90, 64), (41, 73), (20, 32)])
def test_vbench_scales_floats_without_antialiasing_and_keeps_what_overshoots(size):
    pixels = picture(*size).astype(np.float32)
    pixels[:, :5] = 255  # an edge, at which bicubic overshoots
    pixels[:, 5:9] = 0
    short = min(size)
    tall, wide = (int(32 * side / short) for side in size)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = cv2.resize(pixels, (wide, tall), interpolation=cv2.INTER_LINEAR) / 255
    found = vbench_dino(32)([tensor(pixels.astype(np.uint8))])
    assert found.shape == (1, 3, tall, wide)
    np.testing.assert_allclose(
        found[0].permute(1, 2, 0), (scaled - mean) / deviation, rtol=0, atol=1e-5
    )
    scaled = cv2.resize(pixels, (wide, tall), interpolation=cv2.INTER_CUBIC) / 255
    found = vbench_clip(32)([tensor(pixels.astype(np.uint8))])
    assert found.shape == (1, 3, 32, 32)
    top, left = round((tall - 32) / 2), round((wide - 32) / 2)
    numbers = vbench_clip(32)
    back = found[0].permute(1, 2, 0).numpy() * numbers.deviation + numbers.mean
    np.testing.assert_allclose(back, scaled[top : top + 32, left : left + 32], rtol=0, atol=1e-5)
    if size == (20, 32):
        assert back.max() > 1 and back.min() < 0


def turned(*degrees: float) -> torch.Tensor:  # (F, 2), of length 1
    angles = torch.tensor([math.radians(each) for each in degrees], dtype=torch.float64)
    return torch.stack((angles.cos(), angles.sin()), 1)


def test_consecutive_frames_count_alone_for_temporal_consistency():
    assert consecutive(turned(0, 10, 20, 30)) == pytest.approx(math.cos(math.radians(10)))
    assert consecutive(turned(0, 180, 0)) == pytest.approx(-1)


def test_the_first_frame_counts_for_vbench_and_opposites_are_nothing():
    cosines = [math.cos(math.radians(each)) for each in (10, 10, 10, 20)]
    assert vbench(turned(0, 10, 20)) == pytest.approx(sum(cosines) / 4)
    assert vbench(turned(0, 180, 0)) == pytest.approx(0.25)  # the last is the first
    assert vbench(turned(0, 120, 240)) == 0


@pytest.mark.parametrize("consistency", [consecutive, vbench])
def test_frozen_drifting_shuffled_and_flickering_videos_are_ordered(consistency):
    drifting = turned(*range(0, 64, 8))
    shuffled = drifting[[0, 5, 1, 7, 2, 6, 3, 4]]
    flickering = turned(0, 80, 0, 80, 0, 80, 0, 80)
    values = [consistency(each) for each in (turned(*[0] * 8), drifting, shuffled, flickering)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True) and len(set(values)) == 4
