"""Checkpoints on the hub: fetched part by part, and what is told where they cannot be."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from checkpoints.cogvideox import build
from checkpoints.hub import COMMIT, serve
from huggingface_hub import constants

from jtcore import JtError
from jtplugins.backbones import _hub
from jtplugins.backbones._checkpoint import Checkpoint
from jtplugins.backbones.cogvideox import CogVideoX

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("weights"), "5b")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty cache of the hub's, and nothing remembered."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    forget()
    yield tmp_path / "hub"
    forget()


def forget() -> None:
    """What a process remembers of the hub."""
    _hub._fetch.cache_clear()
    _hub._list.cache_clear()


@pytest.fixture
def online(monkeypatch) -> Callable[[str], None]:
    def at(endpoint: str) -> None:
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    return at


@pytest.fixture
def offline(monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def refuses(checkpoint: Checkpoint, message: str) -> None:
    with pytest.raises(JtError) as caught:
        checkpoint.folder("transformer")
    assert caught.value.problems == (f"backbone.weights: {message}",)


def store(folder: Path, cache: Path, name: str = "models--owner--name") -> Path:
    """Lay a checkpoint into the cache as the hub's own client does."""
    snapshot, blobs = cache / name / "snapshots" / COMMIT, cache / name / "blobs"
    blobs.mkdir(parents=True)
    (cache / name / "refs").mkdir()
    (cache / name / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(path for path in folder.rglob("*") if path.is_file()):
        link = snapshot / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


def test_what_is_in_the_cache_is_loaded_without_the_hub(folder, cache, offline):
    store(folder, cache)
    spec, same = CogVideoX("owner/name"), CogVideoX(str(folder))
    assert spec.latent_shape(9, 32, 48) == same.latent_shape(9, 32, 48)
    assert spec.denoiser_identity() == same.denoiser_identity()
    assert torch.equal(
        spec.load_text_encoder(CPU).embed(["a wug"]), same.load_text_encoder(CPU).embed(["a wug"])
    )
    spec.load_codec(CPU)
    for one, other in zip(
        spec.load(CPU, torch.float32).denoiser.parameters(),
        same.load(CPU, torch.float32).denoiser.parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_only_what_is_needed_is_fetched_and_only_once(folder, cache, online):
    with serve(folder) as hub:
        online(hub.endpoint)
        spec = CogVideoX("owner/name")
        spec.latent_shape(9, 32, 48)
        assert sorted(hub.fetched) == [
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors.index.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors.index.json",
        ]
        spec.load(CPU, torch.float32)
        spec.denoiser_identity()
        assert len(hub.fetched) == len(set(hub.fetched))
    weights = [file for file in hub.fetched if file.endswith(".safetensors")]
    assert weights and all(file.startswith("transformer/") for file in weights)
    forget()
    spec.load(CPU, torch.float32)  # the hub is gone


def test_the_check_looks_for_weights_and_fetches_none(folder, cache, online, tmp_path):
    lacking = shutil.copytree(folder, tmp_path / "lacking")
    shards = sorted((lacking / "text_encoder").glob("*.safetensors"))
    shards[0].unlink()
    for own, expected in {
        folder: [],
        lacking: [
            f"backbone.weights: 'text_encoder' of 'owner/name' lacks {shards[0].name} of"
            f" {len(shards)} files in its model.safetensors.index.json"
        ],
    }.items():
        forget()
        with serve(own) as hub:
            online(hub.endpoint)
            assert CogVideoX("owner/name").weights_problems() == expected
        assert hub.fetched or own is lacking
        assert not [file for file in hub.fetched if file.endswith(".safetensors")]


def test_the_check_of_what_is_in_the_cache_asks_nobody(folder, cache, offline):
    snapshot = store(folder, cache)
    assert CogVideoX("owner/name").weights_problems() == []
    shards = sorted((snapshot / "vae").glob("*.safetensors"))
    shards[0].unlink()
    assert CogVideoX("owner/name").weights_problems() == [
        f"backbone.weights: 'vae' of 'owner/name' lacks {shards[0].name} of {len(shards)} files in"
        " its diffusion_pytorch_model.safetensors.index.json"
    ]


def test_weights_in_a_variant_are_fetched_without_the_others(folder, cache, online, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    spec = CogVideoX(str(own))
    spec.load(CPU, torch.float16).denoiser.save_pretrained(own / "transformer", variant="fp16")
    with serve(own) as hub:
        online(hub.endpoint)
        CogVideoX("owner/name", variant="fp16").load(CPU, torch.float16)
    weights = {Path(file).name for file in hub.fetched if file.endswith(".safetensors")}
    assert weights == {"diffusion_pytorch_model.fp16.safetensors"}


@pytest.mark.parametrize("old", [True, False])
def test_old_files_are_fetched_where_there_are_no_others(folder, cache, online, tmp_path, old):
    own = shutil.copytree(folder, tmp_path / "own")
    denoiser = CogVideoX(str(own)).load(CPU, torch.float32).denoiser
    shutil.rmtree(own / "transformer")
    denoiser.save_pretrained(own / "transformer", safe_serialization=False)
    if not old:
        denoiser.save_pretrained(own / "transformer")
    with serve(own) as hub:
        online(hub.endpoint)
        CogVideoX("owner/name").load(CPU, torch.float32)
    weights = {Path(file).suffix for file in hub.fetched} - {".json"}
    assert weights == {".bin" if old else ".safetensors"}


def test_fetching_small_files_draws_nothing(folder, cache, online, capfd):
    with serve(folder) as hub:
        online(hub.endpoint)
        Checkpoint("owner/name").config("vae")
    assert capfd.readouterr() == ("", "")


def test_a_fetch_that_was_interrupted_is_told_where_the_hub_is_gone(folder, cache, offline):
    snapshot = store(folder, cache)
    shard = min((snapshot / "transformer").glob("*.safetensors"))
    shard.unlink()
    refuses(
        Checkpoint("owner/name"),
        f"'transformer' of 'owner/name' lacks {shard.name} of 4 files in its"
        " diffusion_pytorch_model.safetensors.index.json",
    )


def test_what_was_never_fetched_is_told(cache, offline):
    refuses(
        Checkpoint("owner/name"),
        f"'owner/name' is not, or not wholly, in {cache}, and HF_HUB_OFFLINE forbids to fetch it",
    )


def test_a_hub_that_cannot_be_reached_is_told(folder, cache, online):
    with serve(folder) as hub:
        endpoint = hub.endpoint
    online(endpoint)
    refuses(
        Checkpoint("owner/name"),
        f"'owner/name' is not, or not wholly, in {cache}, and the hub does not give it ([Errno 111]"
        " Connection refused); fetch it where there is network, or give a folder",
    )


NO_REPOSITORY = (
    "'owner/name' is no folder, and no repository on the hub; if it is private, `hf auth login`"
)


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((404, "RepoNotFound"), NO_REPOSITORY),
        ((401, ""), NO_REPOSITORY),
        (
            (403, "GatedRepo"),
            "'owner/name' is gated on the hub: ask for access on its page there, then `hf auth"
            " login`",
        ),
    ],
)
def test_what_the_hub_refuses_is_told(folder, cache, online, refusal, message):
    with serve(folder, refusal) as hub:
        online(hub.endpoint)
        refuses(Checkpoint("owner/name"), message)


def test_a_hub_that_is_out_of_order_is_told(folder, cache, online):
    with serve(folder, (500, "")) as hub:
        online(hub.endpoint)
        refuses(
            Checkpoint("owner/name"),
            f"'owner/name' is not, or not wholly, in {cache}, and the hub does not give it (Server"
            " error '500 Internal Server Error' for url"
            f" '{hub.endpoint}/api/models/owner/name/revision/main'); fetch it where there is"
            " network, or give a folder",
        )


def test_a_revision_that_is_not_there_is_told(folder, cache, online):
    with serve(folder) as hub:
        online(hub.endpoint)
        refuses(
            Checkpoint("owner/name", revision="v9"), "'owner/name' has no revision 'v9' on the hub"
        )


@pytest.mark.parametrize("there", [True, False], ids=["online", "offline"])
def test_a_missing_variant_is_told_with_those_on_the_hub(folder, cache, online, there):
    with serve(folder) as hub:
        online(hub.endpoint)
        if not there:
            Checkpoint("owner/name").folder("transformer")
        message = "'transformer' of 'owner/name' has no variant 'fp16', but one without a name"
        checkpoint = Checkpoint("owner/name", variant="fp16")
        if there:
            refuses(checkpoint, message)
    if not there:
        refuses(checkpoint, message)


def test_a_missing_part_is_told_with_those_on_the_hub(folder, cache, online):
    with serve(folder) as hub:
        online(hub.endpoint)
        with pytest.raises(JtError) as caught:
            Checkpoint("owner/name").folder("unet")
    assert caught.value.problems == (
        "backbone.weights: 'owner/name' has no 'unet', being a CogVideoXPipeline; it has"
        " 'scheduler', 'text_encoder', 'tokenizer', 'transformer', 'vae';"
        " use backbone.kind = 'cogvideox'",
    )


def test_a_full_disk_is_told(cache, monkeypatch):
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fill)
    refuses(
        Checkpoint("owner/name"),
        f"'owner/name' cannot be fetched: no space is left in {cache}; free some, or set HF_HOME to"
        " another disk",
    )


def test_a_cache_that_cannot_be_written_is_told(folder, cache, online):
    cache.touch()
    with serve(folder) as hub:
        online(hub.endpoint)
        refuses(
            Checkpoint("owner/name"),
            f"'owner/name' cannot be kept in {cache}: Not a directory; set HF_HOME to another"
            " folder",
        )
