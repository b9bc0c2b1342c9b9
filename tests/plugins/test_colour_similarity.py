"""Colour similarity: against histograms of numpy, and what it is blind to."""

import numpy as np
import pytest
import torch
from PIL import Image

from jtcore.types import Sample
from jtplugins.metrics.colour_similarity import ColourSimilarity


@pytest.fixture
def subject(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        pixels = rng.integers(0, 200, (12, 10, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def similarity(subject, video, **options) -> float:
    metric = ColourSimilarity(subject=str(subject), **options).load(torch.device("cpu"))
    return metric(Sample(video, "a wug", 0, 8.0))["colour_similarity"]


def histogram(pixels, levels: int):  # (pixels, 3) in bytes
    """Each pixel shared among the 8 corners of the cell that it lies in."""
    shares = np.zeros((levels,) * 3)
    for at in pixels / 255 * (levels - 1):
        low = np.minimum(at.astype(int), levels - 2)
        for corner in np.ndindex(2, 2, 2):
            weight = np.where(np.array(corner) == 1, at - low, 1 - (at - low)).prod()
            shares[tuple(low + corner)] += weight
    return shares.ravel() / np.linalg.norm(shares)


@pytest.mark.parametrize("levels", [2, 4])
def test_it_is_the_mean_cosine_of_histograms(subject, levels):
    video = torch.rand(3, 3, 6, 5, generator=torch.Generator().manual_seed(1))
    frames = (video * 255).round().permute(1, 2, 3, 0).reshape(3, -1, 3).numpy()
    pictures = [np.asarray(Image.open(path)).reshape(-1, 3) for path in sorted(subject.iterdir())]
    found = [[histogram(f, levels) @ histogram(p, levels) for p in pictures] for f in frames]
    assert similarity(subject, video, levels=levels) == pytest.approx(np.mean(found), abs=1e-6)


def test_the_pictures_themselves_are_alike_and_shuffled_pixels_are_as_good(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    own = torch.from_numpy(pixels).permute(2, 0, 1)[:, None].float() / 255  # (3, 1, 8, 8)
    shuffled = own.flatten(2)[:, :, torch.randperm(64)].view_as(own)
    assert similarity(tmp_path, own) == pytest.approx(1, abs=1e-9)
    assert similarity(tmp_path, shuffled) == pytest.approx(1, abs=1e-9)
    assert similarity(tmp_path, 1 - own) < 0.999


def test_without_a_subject_it_says_so():
    assert ColourSimilarity().problems()[0].startswith("subject: is not given")
