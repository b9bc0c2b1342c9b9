"""Pocket as a backbone: what was pretrained is what is loaded."""

import re
from pathlib import Path

import pytest
import torch

from jtcore import JtError
from jtplugins.backbones.pocket import Pocket
from jtplugins.pocket import models

CPU, META = torch.device("cpu"), torch.device("meta")
PROMPTS = ["a red ball moves left", "a blue ring stays"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Weights in a folder, as pretraining leaves them."""
    path = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        models.save(models.build(3), path)
    return path


@torch.no_grad()
def test_text_and_predictions_are_those_of_pretraining(folder):
    pretrained, spec = models.load(folder), Pocket(str(folder))
    backbone = spec.load(CPU, torch.float32)
    text = spec.load_text_encoder(CPU).embed(PROMPTS)
    assert torch.equal(text, pretrained.embed(PROMPTS))
    latents, times = torch.randn(2, *spec.latent_shape(8, 24, 24)), torch.tensor([10, 999])
    expected = pretrained.predict(latents, times, text)
    assert torch.equal(backbone.predict(latents, times, text), expected)
    assert backbone.scheduler.config == pretrained.scheduler.config


def test_loading_prints_nothing(folder, capfd):
    spec = Pocket(str(folder))
    spec.load(CPU, torch.float32)
    spec.load(CPU, torch.bfloat16)
    spec.load(META, torch.bfloat16)
    spec.load_text_encoder(CPU)
    assert capfd.readouterr() == ("", "")


def test_the_codec_is_that_of_pretraining(folder):
    pretrained, codec = models.load(folder).codec, Pocket(str(folder)).load_codec(CPU)
    latents = codec.encode(torch.rand(1, 3, 2, 24, 24) * 2 - 1, torch.Generator())
    assert torch.equal(codec.decode(latents), pretrained.decode(latents).clamp(-1, 1))


def test_on_meta_a_folder_has_the_same_names_and_shapes(folder):
    spec = Pocket(str(folder))
    real = spec.load(CPU, torch.float32).denoiser.state_dict()
    bare = spec.load(META, torch.float32).denoiser.state_dict()
    assert {name: w.shape for name, w in bare.items()} == {n: w.shape for n, w in real.items()}


def test_identities_follow_the_files_that_matter(tmp_path):
    with torch.random.fork_rng():
        models.save(models.build(3), tmp_path)
    spec = Pocket(str(tmp_path))
    text, codec = spec.text_identity(), spec.codec_identity()
    file = tmp_path / "codec" / "model.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    assert spec.text_identity() == text
    assert spec.codec_identity() != codec


def test_a_size_that_does_not_fit_is_refused_with_the_nearest():
    message = "pocket knows one size of frame, found 48x64 px; the nearest is 24x24"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Pocket().latent_shape(8, 48, 64)


def test_a_folder_without_weights_is_named_with_what_was_expected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = (
        "backbone.weights: no folder 'transformer' in 'elsewhere'; expected what"
        ' `jt-pocket pretrain` wrote, "shipped" or "random"'
    )
    with pytest.raises(JtError, match=f"^{re.escape(message)}$"):
        Pocket("elsewhere").load(META, torch.float32)


def test_a_prompt_that_is_too_long_is_told_and_not_cut():
    prompt = " ".join(["red"] * 20)
    assert Pocket("random").prompt_problems(["a red ball", prompt]) == [
        f"{prompt!r} has 20 words; pocket reads 19"
    ]


def test_words_that_pretraining_never_had_are_told():
    assert Pocket("random").prompt_problems(["A red dog plays guitar on teal.", ""]) == [
        "'A red dog plays guitar on teal.' has words that pocket does not know: 'dog', 'plays',"
        " 'guitar'; see `jt-pocket list`"
    ]


def test_the_longest_prompt_is_embedded_whole():
    encoder = Pocket("random").load_text_encoder(CPU)
    long = encoder.embed([" ".join(["red"] * 19)])
    assert not torch.equal(long, encoder.embed([" ".join(["red"] * 14)]))
