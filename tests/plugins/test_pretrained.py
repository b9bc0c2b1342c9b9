"""What published models share: which folder is for which kind, what is not whole, identities."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from checkpoints.cogvideox import build
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan

from jtcore import JtError
from jtcore.check import check
from jtcore.recipe import build_recipe
from jtplugins.pocket import models

BUILDERS: dict[str, Callable[[Path], object]] = {
    "cogvideox": lambda folder: build(folder, "5b"),
    "wan": build_wan,
    "zeroscope": lambda folder: build_zeroscope(folder, bins=True),
    "pocket": lambda folder: models.save(models.build(0), folder),
}
PARTS = "'scheduler', 'text_encoder', 'tokenizer', 'transformer', 'vae'"
OF_UNET = "'scheduler', 'text_encoder', 'tokenizer', 'unet', 'vae'"
OF_POCKET = "'codec', 'scheduler', 'text_encoder', 'tokenizer', 'transformer'"
COGVIDEOX, WAN = "CogVideoXTransformer3DModel", "WanTransformer3DModel"
WROTE = 'expected what `jt-pocket pretrain` wrote, "shipped" or "random"'
MISMATCHES = {  # what is told of a kind of backbone on a folder for another, {} being the folder
    ("cogvideox", "wan"): f"'transformer' of {{}}: expected {COGVIDEOX}, found {WAN}",
    ("cogvideox", "zeroscope"): (
        f"{{}} has no 'transformer', being a TextToVideoSDPipeline; it has {OF_UNET}"
    ),
    ("cogvideox", "pocket"): f"{{}} has no 'vae'; it has {OF_POCKET}",
    ("wan", "cogvideox"): f"'transformer' of {{}}: expected {WAN}, found {COGVIDEOX}",
    ("wan", "zeroscope"): (
        f"{{}} has no 'transformer', being a TextToVideoSDPipeline; it has {OF_UNET}"
    ),
    ("wan", "pocket"): f"'transformer' of {{}}: expected {WAN}, found {COGVIDEOX}",
    ("zeroscope", "cogvideox"): f"{{}} has no 'unet', being a CogVideoXPipeline; it has {PARTS}",
    ("zeroscope", "wan"): f"{{}} has no 'unet', being a WanPipeline; it has {PARTS}",
    ("zeroscope", "pocket"): f"{{}} has no 'unet'; it has {OF_POCKET}",
    ("pocket", "cogvideox"): f"no folder 'codec' in {{}}; {WROTE}",
    ("pocket", "wan"): f"no folder 'codec' in {{}}; {WROTE}",
    ("pocket", "zeroscope"): f"no folder 'transformer' in {{}}; {WROTE}",
}
MISMATCHES |= {
    ("modelscope", own): told for (kind, own), told in MISMATCHES.items() if kind == "zeroscope"
}
SIZE = [32, 48]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Callable[[str], Path]:
    """A checkpoint by the kind that it is for, built when it is first asked for."""

    @cache
    def built(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("weights") / kind
        BUILDERS[kind](folder)
        return folder

    return built


@pytest.fixture
def broken(pristine, tmp_path) -> Callable[[str], Path]:
    """A copy of a checkpoint, to be broken."""
    return lambda kind: Path(shutil.copytree(pristine(kind), tmp_path / kind))


@pytest.fixture
def problems(table, plugins) -> Callable[..., list[str]]:
    """What the check tells of a recipe with some weights."""

    def told(kind: str, weights: Path | str, **options: str) -> list[str]:
        for data in table["data"].values():
            data["size"] = [24, 24] if kind == "pocket" else SIZE
        frames = {"zeroscope": 3, "modelscope": 3, "pocket": 3}.get(kind, 9)
        table["data"]["motion"] |= {"frames": frames, "short": "repeat"}
        table["sample"] |= {"frames": frames, "size": table["data"]["motion"]["size"]}
        table["data"]["subject"]["prompt"] = table["data"]["motion"]["prompt"] = "a red ball"
        table["sample"]["prompts"] = ["a red ball"]
        table["backbone"] = {"kind": kind, "weights": str(weights), **options}
        try:
            check(build_recipe(table, plugins))
        except JtError as error:
            return list(error.problems)
        return []

    return told


@pytest.mark.parametrize(("kind", "own"), [(kind, kind) for kind in BUILDERS])
def test_each_kind_takes_its_own_folders(problems, pristine, kind, own):
    assert problems(kind, pristine(own)) == []


@pytest.mark.parametrize(("kind", "own"), MISMATCHES)
def test_a_folder_for_another_kind_is_told_once_with_that_kind(problems, pristine, kind, own):
    folder = str(pristine(own))
    told = MISMATCHES[kind, own].format(repr(folder))
    assert problems(kind, folder) == [f"backbone.weights: {told}; use backbone.kind = {own!r}"]


def test_the_matrix_of_kinds_and_folders_is_whole():
    kinds = {"modelscope", *BUILDERS}
    alike = {("modelscope", "zeroscope"), *((kind, kind) for kind in BUILDERS)}
    assert MISMATCHES.keys() | alike == set(product(kinds, BUILDERS))


@pytest.mark.parametrize("kind", ["cogvideox", "wan", "zeroscope"])
def test_a_tokenizer_of_another_class_is_told_before_it_is_read(problems, broken, pristine, kind):
    folder = broken(kind)
    other = "cogvideox" if kind == "zeroscope" else "zeroscope"
    shutil.rmtree(folder / "tokenizer")
    shutil.copytree(pristine(other) / "tokenizer", folder / "tokenizer")
    own, found = ("CLIPTokenizer", "T5Tokenizer")[:: 1 if kind == "zeroscope" else -1]
    message = (
        f"backbone.weights: 'tokenizer' of {str(folder)!r}: expected {own} or {own}Fast, found"
        f" {found}"
    )
    assert problems(kind, folder) == [message]


def test_a_tokenizer_that_does_not_say_its_class_is_of_that_of_the_index(problems, broken):
    folder = broken("wan")
    change(folder / "tokenizer" / "tokenizer_config.json", tokenizer_class=None)
    assert problems("wan", folder) == []
    (folder / "model_index.json").unlink()
    assert problems("wan", folder) == [
        f"backbone.weights: 'tokenizer' of {str(folder)!r}: expected T5Tokenizer or"
        " T5TokenizerFast, found no name"
    ]


def change(file: Path, **options: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | options))


@pytest.mark.parametrize(
    ("file", "options", "why"),
    [
        (
            "model_index.json",
            {"transformer_2": ["diffusers", "WanTransformer3DModel"], "boundary_ratio": 0.875},
            "has two denoisers, each for half of the noise levels, as Wan 2.2 A14B",
        ),
        (
            "model_index.json",
            {"expand_timesteps": True},
            "has the VAE of Wan 2.2 5B, and a time for each token",
        ),
        (
            "vae/config.json",
            {"is_residual": True, "z_dim": 48},
            "has the VAE of Wan 2.2 5B, and a time for each token",
        ),
        (
            "transformer/config.json",
            {"in_channels": 36},
            "is told more than text, such as a picture to begin with",
        ),
    ],
    ids=["2.2 A14B", "2.2 5B", "2.2 VAE", "2.2 I2V"],
)
def test_wan_2_2_is_refused_though_its_classes_are_those_of_2_1(
    problems, broken, file, options, why
):
    folder = broken("wan")
    change(folder / file, **options)
    assert problems("wan", folder) == [
        f"backbone.weights: {str(folder)!r} {why}; this backbone is for text-to-video, such as"
        " Wan-AI/Wan2.1-T2V-14B-Diffusers"
    ]


@pytest.mark.parametrize(
    ("kind", "part"),
    [("cogvideox", "transformer"), ("zeroscope", "unet"), ("wan", "vae"), ("wan", "tokenizer")],
)
@pytest.mark.parametrize("index", [True, False], ids=["index", "bare"])
def test_a_part_named_in_place_of_the_whole_is_told_once(problems, broken, kind, part, index):
    folder = broken(kind)
    if not index:
        (folder / "model_index.json").unlink()
    weights = str(folder / part)
    assert problems(kind, weights) == [
        f"backbone.weights: {weights!r} is one part of a pipeline; name the folder above"
    ]


WHOLE = {  # a file of each part with weights, which the check must miss
    ("cogvideox", "transformer"): "diffusion_pytorch_model-00002-of-*.safetensors",
    ("cogvideox", "vae"): "diffusion_pytorch_model-00001-of-*.safetensors",
    ("cogvideox", "text_encoder"): "model-00003-of-*.safetensors",
    ("wan", "transformer"): "diffusion_pytorch_model-00001-of-*.safetensors",
    ("wan", "vae"): "diffusion_pytorch_model-00001-of-*.safetensors",
    ("wan", "text_encoder"): "model-00001-of-*.safetensors",
    ("zeroscope", "unet"): "diffusion_pytorch_model.bin",
    ("zeroscope", "vae"): "diffusion_pytorch_model.bin",
    ("zeroscope", "text_encoder"): "pytorch_model.bin",
    ("pocket", "transformer"): "diffusion_pytorch_model.safetensors",
    ("pocket", "codec"): "model.safetensors",
    ("pocket", "text_encoder"): "model.safetensors",
}


@pytest.mark.parametrize(("kind", "part"), WHOLE)
def test_the_check_misses_each_file_of_weights(problems, broken, kind, part):
    folder = broken(kind)
    (file,) = (folder / part).glob(WHOLE[kind, part])
    file.unlink()
    (told,) = problems(kind, folder)
    assert told.startswith(f"backbone.weights: {part!r} of {str(folder)!r} ")
    assert file.name in told


@pytest.mark.parametrize(("kind", "part"), [each for each in WHOLE if each[0] != "zeroscope"])
def test_the_check_sees_files_that_are_cut_off(problems, broken, kind, part):
    folder = broken(kind)
    (file,) = (folder / part).glob(WHOLE[kind, part])
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert problems(kind, folder) == [
        f"backbone.weights: {part!r} of {str(folder)!r} has a {file.name} of {len(content) - 1}"
        f" bytes, where its header says {len(content)}"
    ]


def test_all_that_is_missing_is_told_at_once(problems, broken):
    folder = broken("cogvideox")
    place = repr(str(folder))
    (folder / "tokenizer" / "tokenizer.json").unlink()
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "scheduler")
    (folder / "vae" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    assert problems("cogvideox", folder) == [
        f"backbone.weights: 'tokenizer' of {place} has no vocabulary: none of tokenizer.json,"
        " spiece.model, vocab.json",
        f"backbone.weights: 'vae' of {place} has shards of weights, but not the *.index.json that"
        " lists them",
        f"backbone.weights: {place} lacks the folder 'text_encoder', which its model_index.json"
        " names",
        f"backbone.weights: {place} lacks the folder 'scheduler', which its model_index.json names",
    ]


def test_another_variant_than_the_one_asked_for_is_told_of_every_part(problems, pristine):
    folder = pristine("zeroscope")
    told = "has no variant 'fp16', but one without a name"
    assert problems("zeroscope", folder, variant="fp16") == [
        f"backbone.weights: {part!r} of {str(folder)!r} {told}"
        for part in ("unet", "vae", "text_encoder")
    ]


EDITOR = """
from pathlib import Path
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.pocket import Pocket
from jtplugins.backbones.wan import Wan
from jtplugins.backbones.zeroscope import ZeroScope

kinds = {kind.__name__: kind("random") for kind in (CogVideoX, Wan, ZeroScope, Pocket)}

def identities():
    return {
        (name, part): getattr(kind, f"{part}_identity")()
        for name, kind in kinds.items()
        for part in ("denoiser", "text", "codec")
    }

for file in Path("edited").read_text().split():
    before = identities()
    with Path("jtplugins", file).open("a") as opened:
        opened.write("# edited")
    after = identities()
    print(file, *(".".join(key) for key in before if before[key] != after[key]))
"""
EDITED = {  # and what is no longer as it was
    "backbones/_roles.py": "",
    "backbones/cogvideox.py": "",
    "backbones/wan.py": "",
    "backbones/zeroscope.py": "",
    "backbones/pocket.py": "",
    "backbones/_checkpoint.py": "",
    "backbones/_cogvideox.py": "CogVideoX.denoiser Pocket.denoiser",
    "backbones/_wan.py": "Wan.denoiser",
    "backbones/_unet.py": "ZeroScope.denoiser",
    "backbones/_t5.py": "CogVideoX.text Pocket.text",
    "backbones/_umt5.py": "Wan.text",
    "backbones/_clip_text.py": "ZeroScope.text",
    "backbones/_vae.py": "CogVideoX.codec",
    "backbones/_wan_vae.py": "Wan.codec",
    "backbones/_frame_vae.py": "ZeroScope.codec",
    "pocket/text.py": "Pocket.text",
    "pocket/codec.py": "Pocket.codec",
}


def test_an_edit_of_code_changes_the_identities_of_what_it_makes_and_no_other(tmp_path):
    plugins = Path(models.__file__).parents[1]
    shutil.copytree(plugins, tmp_path / "jtplugins", ignore=shutil.ignore_patterns("weights"))
    (tmp_path / "edited").write_text("\n".join(EDITED))
    told = subprocess.run(
        [sys.executable, "-c", EDITOR], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    found = dict(line.split(" ", 1) if " " in line else (line, "") for line in told)
    assert found == EDITED
