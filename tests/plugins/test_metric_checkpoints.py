"""What is told of models and references of metrics that are missing, broken or of another kind."""

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest
import torch
from checkpoints.hub import serve
from checkpoints.looking import build_clip, build_dino, build_head
from huggingface_hub import constants
from PIL import Image

from jtcore.errors import JtError
from jtcore.evaluation.identity import identify
from jtcore.structure import Component
from jtcore.types import Sample
from jtplugins.backbones import _hub
from jtplugins.metrics.aesthetic_quality import SOURCE, AestheticQuality
from jtplugins.metrics.clip_image import ClipImage
from jtplugins.metrics.clip_text import ClipText
from jtplugins.metrics.copying_score import CopyingScore
from jtplugins.metrics.dino_image import DinoImage
from jtplugins.metrics.pickscore import PickScore
from jtplugins.metrics.subject_consistency import SubjectConsistency

CPU = torch.device("cpu")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SAMPLE = Sample(torch.rand(3, 2, 40, 50, generator=torch.Generator().manual_seed(0)), "a dog", 0, 8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> Path:
    return build_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture
def subject(tmp_path) -> Path:
    (tmp_path / "subject").mkdir()
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "subject" / "0.png")
    return tmp_path / "subject"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty cache of the hub's, and nothing remembered."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for remembered in (_hub._fetch, _hub._list):
        remembered.cache_clear()
    yield tmp_path / "hub"
    for remembered in (_hub._fetch, _hub._list):
        remembered.cache_clear()


@pytest.fixture
def offline(cache, monkeypatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return cache


def test_a_model_that_is_not_there_is_one_problem_that_says_how_to_get_it(offline):
    forbidden = f"is not, or not wholly, in {offline}, and HF_HUB_OFFLINE forbids to fetch it"
    assert ClipText().problems() == [
        f"model: 'openai/clip-vit-base-patch32' {forbidden};"
        " `hf download openai/clip-vit-base-patch32` fetches all of it"
    ]
    network, processor = PickScore().problems()
    assert network.endswith("`hf download yuvalkirstain/PickScore_v1` fetches all of it")
    assert processor.startswith("processor: 'laion/CLIP-ViT-H-14-laion2B-s32B-b79K' is not, or not")


def test_a_model_in_the_hubs_cache_is_found_without_the_hub(offline, clip):
    repository = offline / "models--owner--name"
    copytree(clip, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    cached, local = ClipText(model="owner/name"), ClipText(model=str(clip))
    assert cached.problems() == []
    assert dict(cached.load(CPU)(SAMPLE)) == dict(local.load(CPU)(SAMPLE))
    assert cached.identity() == local.identity()
    (repository / "snapshots" / COMMIT / "model.safetensors").unlink()
    assert cached.problems() == [
        "model: 'owner/name' has no config.json with model.safetensors, or config.json with"
        " pytorch_model.bin; `hf download owner/name` fetches all of it"
    ]


def test_weights_are_fetched_from_the_hub_where_they_are_loaded_and_not_before(
    cache, clip, monkeypatch
):
    spec, local = ClipText(model="owner/name"), ClipText(model=str(clip))
    with serve(clip) as hub:
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        assert spec.problems() == []
        assert set(hub.fetched) == {path.name for path in clip.iterdir()} - {"model.safetensors"}
        assert dict(spec.load(CPU)(SAMPLE)) == dict(local.load(CPU)(SAMPLE))
        assert len(hub.fetched) == len(set(hub.fetched)) == len(list(clip.iterdir()))


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        (
            "model.safetensors",
            "has no config.json with model.safetensors, or config.json with pytorch_model.bin",
        ),
        ("preprocessor_config.json", "has no preprocessor_config.json"),
        (
            "tokenizer.json",
            "has no tokenizer.json with tokenizer_config.json, or vocab.json with merges.txt",
        ),
    ],
)
def test_a_file_that_a_folder_lacks_is_told(clip, tmp_path, lacking, told):
    copytree(clip, tmp_path / "less")
    (tmp_path / "less" / lacking).unlink()
    spec = ClipText(model=str(tmp_path / "less"))
    assert spec.problems() == [f"model: {str(tmp_path / 'less')!r} {told}"]


def test_a_network_of_another_kind_is_told(clip, dino, subject):
    assert ClipText(model="nowhere").problems() == [
        "model: 'nowhere' is no folder; expected one, or a hub id such as \"owner/name\""
    ]
    assert SubjectConsistency(model=str(clip)).problems() == [
        f"model: {str(clip)!r} is a clip, expected vit"
    ]
    assert ClipImage(model=str(dino), subject=str(subject)).problems() == [
        f"model: {str(dino)!r} is a vit, expected clip"
    ]
    assert DinoImage(model=str(clip), subject=str(subject)).problems() == [
        f"model: {str(clip)!r} is a clip, expected vit or dinov2 or dinov2_with_registers"
    ]


def test_weights_that_are_cut_off_or_lacking_are_told(clip, tmp_path):
    folder = copytree(clip, tmp_path / "cut")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(JtError, match=rf"^model: '{folder}' cannot be loaded: "):
        ClipText(model=str(folder)).load(CPU)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(whole)
    with pytest.raises(JtError, match=rf"^model: '{folder}' has no weights for vision_model\."):
        ClipText(model=str(folder)).load(CPU)


def test_weights_that_are_a_pickle_are_read_and_what_they_would_run_is_not(tmp_path):
    clip = build_clip(tmp_path / "clip", pickled=True)
    spec = ClipText(model=str(clip))
    assert spec.problems() == []
    assert spec.load(CPU)(SAMPLE).keys() == {"clip_text"}

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"trap": Trap()}, clip / "pytorch_model.bin")
    with pytest.raises(JtError, match="cannot be loaded"):
        spec.load(CPU)
    assert not (tmp_path / "sprung").exists()


def test_references_that_are_not_given_or_not_there_are_told(clip, dino, tmp_path):
    assert ClipImage(model=str(clip)).problems() == [
        "subject: is not given, and nothing fills it; name the folder of pictures of the subject"
        " here, or with `jt-eval --subject`"
    ]
    assert CopyingScore(model=str(dino)).problems() == [
        "motion: is not given, and nothing fills it; name the folder of clips of the motion here,"
        " or with `jt-eval --motion`"
    ]
    (tmp_path / "notes.md").write_text("none")
    assert ClipImage(model=str(clip), subject=str(tmp_path)).problems() == [
        f"subject: {str(tmp_path)!r} has no picture or video"
    ]
    assert CopyingScore(model=str(dino), motion="nowhere").problems() == [
        "motion: 'nowhere' matches no picture or video"
    ]


def test_a_head_that_is_missing_or_of_another_clip_is_told(clip, tmp_path):
    spec = AestheticQuality(model=str(clip), head=str(tmp_path / "head.pth"))
    assert spec.problems() == [
        f"head: '{tmp_path / 'head.pth'}' is no file; get it by `curl -LO {SOURCE}`"
    ]
    build_head(tmp_path / "head.pth", width=7)
    with pytest.raises(JtError) as caught:
        spec.load(CPU)
    assert str(caught.value) == (
        f"head: '{tmp_path / 'head.pth'}' has weights of (1, 7) and (1,), expected (1, 12) and"
        " (1,), of this CLIP"
    )
    (tmp_path / "head.pth").write_bytes(b"no pickle")
    with pytest.raises(JtError, match="cannot be read"):
        spec.load(CPU)


def test_numbers_of_other_weights_preparation_or_frames_have_another_identity(
    clip, dino, subject, tmp_path
):
    other = build_clip(tmp_path / "other", seed=2)
    moved = copytree(clip, tmp_path / "moved")
    text = {"model": str(clip)}
    image = {"model": str(dino), "subject": str(subject)}

    def hashed(kind: str, spec: object) -> str:
        return identify(Component(kind, spec)).hash

    known = hashed("clip_text", ClipText(**text))
    assert hashed("clip_text", ClipText(**text, batch=3)) == known
    assert hashed("clip_text", ClipText(model=str(moved))) == known
    different = [
        known,
        hashed("clip_text", ClipText(model=str(other))),
        hashed("clip_text", ClipText(**text, frames=4)),
        hashed("clip_text", ClipText(**text, compat="jointtuner")),
        hashed("dino_image", DinoImage(**image)),
        hashed("dino_image", DinoImage(**image, preparation="dreamvideo")),
    ]
    assert len(set(different)) == len(different)
    Image.new("RGB", (40, 30), "navy").save(subject / "1.png")
    assert hashed("dino_image", DinoImage(**image)) not in different
