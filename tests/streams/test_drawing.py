"""Samples of a stream: which files, clips, mirror images and masks are drawn."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from checkpoints.averages import drawn, same
from PIL import Image

from jtcore.data import Data
from jtcore.media import write_video


def test_a_part_is_what_its_types_say(folder, load):
    (part,) = drawn(*load(folder, batch=2), [0])
    assert part.latents.shape == (2, 3, 1, 5, 5)
    assert part.text[:, 0, 0].tolist() == [len(prompt) for prompt in part.prompts]
    assert (part.stream, part.medium, part.mask) == ("subject", "image", None)


def test_pixels_reach_the_codec_between_minus_1_and_1(folder, load):
    stream, texts = load(folder)
    latents = stream.single(0, texts).latents
    assert latents[0, 0, 0, 0].tolist() == pytest.approx([-1, -1, 0, 1, 1], abs=1e-4)


def test_each_epoch_draws_every_file_once_in_another_order(folder, load):
    stream, texts = load(folder, batch=2)
    order = [prompt for part in drawn(stream, texts, range(25)) for prompt in part.prompts]
    epochs = [tuple(order[start : start + 5]) for start in range(0, 50, 5)]
    assert all(set(epoch) == {"x", "xx", "xxx", "xxxx", "xxxxx"} for epoch in epochs)
    assert any(one != other for one, other in pairwise(epochs))


def test_samples_say_which_file_they_are_of(folder, load):
    stream, texts = load(folder, batch=2, flip=True)
    for part in drawn(stream, texts, range(10)):
        assert part.files == tuple(len(prompt) - 1 for prompt in part.prompts)
    assert [stream.single(file, texts).files for file in range(5)] == [(f,) for f in range(5)]


def test_a_draw_does_not_depend_on_earlier_ones(folder, load):
    stream, texts = load(folder, flip=True)
    (late,) = drawn(stream, texts, [17])
    drawn(stream, texts, range(5))
    assert same(late, drawn(stream, texts, [17])[0])


def test_the_seed_shapes_the_order(folder, load):
    stream, texts = load(folder)
    orders = {
        tuple(part.prompts for part in drawn(stream, texts, range(5), seed))
        for seed in [(0, "joint"), (1, "joint"), (0, "dual")]
    }
    assert len(orders) == 3


def test_half_of_the_draws_are_mirrored(folder, load):
    stream, texts = load(folder / "0.png", flip=True)
    rng = torch.Generator().manual_seed(0)
    parts = [stream.part((0,), draw, rng, texts) for draw in range(200)]
    left = Counter(round(float(part.latents[0, 0, 0, 0, 0])) for part in parts)
    assert set(left) == {-1, 1}
    assert 70 < left[1] < 130


def test_without_flip_nothing_is_mirrored(folder, load):
    stream, texts = load(folder / "0.png")
    parts = drawn(stream, texts, range(20))
    assert all(same(part, stream.single(0, texts)) for part in parts)


def test_clips_of_a_video_are_drawn_alike(tmp_path, load):
    video = torch.linspace(0, 1, 12).view(1, 12, 1, 1).expand(3, 12, 200, 200)
    write_video(tmp_path / "a.mp4", video, fps=10)
    stream, texts = load(tmp_path, prompt="x", frames=4, stride=1, clips=3)
    starts = Counter()
    rng = torch.Generator().manual_seed(0)
    for draw in range(90):
        part = stream.part((0,), draw, rng, texts)
        assert (part.latents.shape, part.medium) == ((1, 3, 4, 5, 5), "video")
        starts[round((float(part.latents[0, 0, 0].mean()) + 1) / 2 * 11)] += 1
    assert set(starts) == {0, 4, 8}
    assert min(starts.values()) > 15


def test_one_frame_of_a_video_is_an_image(tmp_path, load):
    write_video(tmp_path / "a.mp4", torch.rand(3, 12, 24, 24), fps=10)
    (part,) = drawn(*load(tmp_path, prompt="x", clips=4), [0])
    assert (part.latents.shape, part.medium) == ((1, 3, 1, 5, 5), "image")


def test_all_frames_of_a_video_can_be_drawn_one_at_a_time(tmp_path, load):
    shades = torch.linspace(0, 1, 6).view(1, 6, 1, 1).expand(3, 6, 40, 40)
    write_video(tmp_path / "fade.mp4", shades, fps=8)
    stream, texts = load(tmp_path / "fade.mp4", prompt="it fades", frames=1, clips=6)
    parts = drawn(stream, texts, range(300))
    assert all(part.medium == "image" for part in parts)
    found = Counter(round(float((part.latents.mean() + 1) / 2 * 5)) for part in parts)
    assert found.keys() == set(range(6)) and min(found.values()) > 25


def test_masks_go_through_the_geometry_of_their_pictures(folder, load, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    wide = np.zeros((80, 120), np.uint8)
    wide[:, 70:] = 255  # in the middle 80 columns: the last 30
    for number in range(5):
        Image.fromarray(wide).convert("RGB").save(folder / f"{number}.png")
        Image.fromarray(wide).save(masks / f"{number}.png")
    stream, texts = load(folder, masks=str(masks), flip=True)
    for part in drawn(stream, texts, range(20)):
        assert part.mask.shape == (1, 1, 1, 5, 5)
        assert torch.allclose(part.mask[:, 0], (part.latents[:, 0] + 1) / 2, atol=1e-3)


def test_a_mask_is_the_mean_of_its_pixels_or_one_of_them(folder, load, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    half = np.zeros((40, 40), np.uint8)
    half[:, 20:] = 255  # in the middle of the third of five columns of 8 pixels
    Image.fromarray(half).save(masks / "0.png")
    found = []
    for resize in ("area", "nearest"):
        options = {"masks": str(masks), "mask_resize": resize}
        stream, texts = load(folder / "0.png", **options)
        found.append(stream.single(0, texts).mask[0, 0, 0, 0])
    soft, hard = found
    assert torch.allclose(soft, torch.tensor([0.0, 0, 0.5, 1, 1]), atol=1e-3)
    assert hard.tolist()[:2] == [0, 0] and hard.tolist()[3:] == [1, 1] and hard[2] in (0, 1)


def test_masks_that_are_not_there_are_not_resized():
    with pytest.raises(ValueError, match=r"^expected masks with mask_resize$"):
        Data("x", (8, 8), mask_resize="nearest")
