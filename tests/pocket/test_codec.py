"""The patch codec is orthonormal, the same for every frame, and keeps what it is fitted on."""

import numpy as np
import pytest
import torch

from jtplugins.pocket.codec import CHANNELS, PatchCodec, from_blocks, to_blocks
from jtplugins.pocket.world import draw_scene, render


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return torch.from_numpy(render([draw_scene(rng, 1) for _ in range(128)]))


@pytest.fixture(scope="module")
def codec(clips):
    codec = PatchCodec()
    codec.fit(clips)
    return codec


def test_blocks_are_cut_and_pasted_exactly(clips):
    torch.testing.assert_close(from_blocks(to_blocks(clips, 6), 6), clips, rtol=0, atol=0)


def test_the_basis_is_orthonormal(codec):
    torch.testing.assert_close(codec.basis.T @ codec.basis, torch.eye(CHANNELS))


def test_latents_have_unit_variance_and_the_documented_shape(codec, clips):
    latents = codec.encode(clips)
    assert latents.shape == (128, CHANNELS, 8, 4, 4)
    assert latents.var().sqrt().item() == pytest.approx(1, abs=0.01)


def test_decoding_then_encoding_changes_nothing(codec):
    latents = torch.randn(2, CHANNELS, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(codec.encode(codec.decode(latents)), latents, rtol=0, atol=1e-5)


def test_encoding_then_decoding_keeps_more_than_29_decibel(codec, clips):
    error = (codec.decode(codec.encode(clips)) - clips).square().mean()
    assert 10 * torch.log10(4 / error) > 29


def test_an_image_is_a_video_of_one_frame(codec, clips):
    frame = codec.encode(clips[:, :, 3:4])
    torch.testing.assert_close(frame, codec.encode(clips)[:, :, 3:4])


def test_a_stored_codec_is_the_same_codec(codec, clips, tmp_path):
    codec.save_pretrained(tmp_path)
    again = PatchCodec.from_pretrained(tmp_path)
    torch.testing.assert_close(again.encode(clips), codec.encode(clips), rtol=0, atol=0)
