"""Weights and embeddings that are drawn where there are none."""

import pytest
import torch
from checkpoints.cogvideox import TRANSFORMER as TRANSFORMER_CONFIG
from diffusers import CogVideoXTransformer3DModel

from jtplugins.backbones._random import RandomText, random_network

CPU, META = torch.device("cpu"), torch.device("meta")

TRANSFORMER, T5 = "CogVideoXTransformer3DModel", "T5EncoderModel"


@pytest.fixture
def small() -> dict:
    """A transformer's configuration; it has buffers as well as weights."""
    return {**TRANSFORMER_CONFIG, "use_rotary_positional_embeddings": False}


def test_drawn_weights_are_the_same_in_every_type_and_draw_from_no_other_generator(small):
    state = torch.get_rng_state()
    single = random_network(TRANSFORMER, small, 3, CPU, torch.float32)
    half = random_network(TRANSFORMER, small, 3, CPU, torch.float16)
    other = random_network(TRANSFORMER, small, 4, CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(single.parameters(), half.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(weight.half(), rounded) for weight, rounded, _ in pairs)
    assert not all(torch.equal(weight, another) for weight, _, another in pairs)
    assert not single.training and not any(weight.requires_grad for weight in single.parameters())


def test_drawn_networks_have_the_buffers_of_stock_ones(small):
    drawn = random_network(TRANSFORMER, small, 0, CPU, torch.float32)
    stock = CogVideoXTransformer3DModel(**small)
    expected = stock.patch_embed.pos_embedding.float()
    assert torch.equal(drawn.patch_embed.pos_embedding, expected)
    bare = random_network(TRANSFORMER, small, 0, META, torch.float32)
    assert all(tensor.is_meta for tensor in (*bare.parameters(), *bare.buffers()))


def test_drawn_embeddings_are_a_function_of_prompt_and_seed():
    text = RandomText(length=5, width=8, seed=0, device=CPU)
    together = text.embed(["a", "b"])
    assert together.shape == (2, 5, 8) and not torch.equal(*together)
    assert torch.equal(text.embed(["b"])[0], together[1])
    assert not torch.equal(RandomText(5, 8, 1, CPU).embed(["a"])[0], together[0])
