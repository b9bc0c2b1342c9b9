"""Image encoders against transformers' own, and against a count of pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from jtcore import JtError
from jtplugins.image_encoders.clip import CLIP, prepared
from jtplugins.image_encoders.colours import Colours

CPU = torch.device("cpu")
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
TEXT = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 9,
    "eos_token_id": 8,
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """An image encoder of its own."""
    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=10))
    network.save_pretrained(folder)
    return folder


def picture(height: int, width: int) -> Tensor:  # uint8 (3, height, width)
    """Smooth, as pictures are."""
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 5, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (fine[0].clamp(0, 1) * 255).round().byte()


@pytest.mark.parametrize("size", [(60, 45), (33, 90), (28, 28), (20, 24)])
def test_a_picture_is_prepared_as_clips_own_processor_does(size):
    pixels = picture(*size)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    expected = processor(image, return_tensors="pt").pixel_values
    found = prepared(pixels[None].float() / 255, 28)
    assert (found - expected).abs().max() < 0.02  # it rounds to whole pixel values in between


def test_an_embedding_is_that_of_the_stock_network(clip):
    stock = CLIPVisionModelWithProjection.from_pretrained(clip).eval()
    pixels = picture(28, 28)[None].float() / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = stock((pixels - mean) / deviation).image_embeds
    encoder = CLIP(str(clip))
    found = encoder.load(CPU).embed(pixels)
    assert found.shape == (1, encoder.width()) == (1, 10)
    torch.testing.assert_close(found, expected)


def test_the_image_encoder_of_a_whole_clip_is_found_in_it(tmp_path):
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
    with torch.random.fork_rng(devices=[]):
        whole = CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    encoder = CLIP(str(tmp_path))
    pixels = picture(28, 28)[None].float() / 255
    with torch.no_grad():
        vision = whole.vision_model(prepared(pixels, 28)).pooler_output
        expected = whole.visual_projection(vision)
    assert encoder.width() == 12
    torch.testing.assert_close(encoder.load(CPU).embed(pixels), expected)


def test_its_identity_is_that_of_its_files(clip, tmp_path):
    other = tmp_path / "other"
    CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=10)).save_pretrained(
        other
    )
    assert CLIP(str(clip)).identity() == CLIP(str(clip)).identity() != CLIP(str(other)).identity()


def test_what_is_no_clip_is_told(clip, tmp_path):
    t5 = tmp_path / "t5"
    t5.mkdir()
    (t5 / "config.json").write_text(json.dumps({"model_type": "t5"}))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((clip / "config.json").read_text())
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        "nowhere": 'is no folder; expected one, or a hub id such as "owner/name"',
        str(empty): "has no config.json",
        str(t5): "is a t5, not a CLIP",
    }
    for weights, told in cases.items():
        with pytest.raises(JtError) as caught:
            CLIP(weights).width()
        assert str(caught.value) == f"weights: {weights!r} {told}"
    with pytest.raises(JtError, match=r"^weights: '.*bare' has no model\.safetensors$"):
        CLIP(str(bare)).identity()


def test_colours_are_shares_of_pixels_wherever_they_are():
    pixels = torch.zeros(2, 3, 2, 4)
    pixels[0, 0, 0] = 1  # the upper half is red, the lower black
    pixels[1, 0, :, ::2] = 1  # so are columns in turn
    found = Colours(2).embed(pixels)
    expected = np.zeros((2, 2, 2), dtype=np.float32)
    expected[0, 0, 0] = expected[1, 0, 0] = 0.5
    expected /= np.sqrt((expected**2).mean())
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], torch.from_numpy(expected.reshape(-1)))


def test_a_colour_between_two_is_shared_among_them():
    found = Colours(3).embed(torch.full((1, 3, 1, 1), 0.25))  # half way from black to grey
    assert found.shape == (1, 27)
    corners = found.view(3, 3, 3)[:2, :2, :2]
    torch.testing.assert_close(corners, torch.full((2, 2, 2), float(corners[0, 0, 0])))
    torch.testing.assert_close(found.square().mean(), torch.tensor(1.0))
    assert Colours(2).identity() != Colours(3).identity()
