"""Checkpoints on disk: what is taken from them, and what is told of broken ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints.cogvideox import build
from checkpoints.tokenizers import CORPUS
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import T5EncoderModel

from jtcore import JtError
from jtplugins.backbones._checkpoint import Checkpoint, load_network
from jtplugins.backbones._t5 import load_t5_tokenizer
from jtplugins.backbones._weight_files import digest

CPU, META = torch.device("cpu"), torch.device("meta")

TRANSFORMER, T5 = "CogVideoXTransformer3DModel", "T5EncoderModel"

INDEX = "diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A checkpoint that nobody writes to."""
    return build(tmp_path_factory.mktemp("pristine"), "5b")


@pytest.fixture
def folder(pristine, tmp_path) -> Path:
    """A checkpoint to be broken."""
    return shutil.copytree(pristine, tmp_path / "weights")


def load(folder: Path | str, name: str = TRANSFORMER, part: str = "transformer", **options):
    return load_network(name, Checkpoint(str(folder), **options), part, CPU, torch.float32)


def refuses(act: Callable[[], object], message: str) -> None:
    with pytest.raises(JtError) as caught:
        act()
    assert caught.value.problems == (f"backbone.weights: {message}",)


def test_shards_are_loaded_as_diffusers_loads_them(pristine):
    found = load(pristine)
    expected = CogVideoXTransformer3DModel.from_pretrained(pristine / "transformer").state_dict()
    assert not found.training and not any(weight.requires_grad for weight in found.parameters())
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(found.state_dict()[name], expected[name]) for name in expected)


def test_text_encoders_are_loaded_as_transformers_loads_them(pristine):
    found = load(pristine, T5, "text_encoder").state_dict()
    expected = T5EncoderModel.from_pretrained(pristine / "text_encoder").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_loading_prints_nothing(pristine, capfd):
    load(pristine)
    load(pristine, T5, "text_encoder")
    assert capfd.readouterr() == ("", "")


def test_networks_stay_in_the_type_that_they_are_stored_in(folder):
    for part, name, dtype in (
        ("transformer", TRANSFORMER, torch.float16),
        ("text_encoder", T5, torch.bfloat16),
    ):
        network = load(folder, name, part)
        shutil.rmtree(folder / part)
        torch.nn.Module.to(network, dtype).save_pretrained(folder / part)
        stored = load_network(name, Checkpoint(str(folder)), part, CPU)
        assert {weight.dtype for weight in stored.parameters()} == {dtype}


def test_on_meta_no_weights_are_looked_for(folder):
    for file in (folder / "transformer").glob("*.safetensors"):
        file.unlink()
    network = load_network(TRANSFORMER, Checkpoint(str(folder)), "transformer", META, torch.float16)
    assert {(weight.device, weight.dtype) for weight in network.parameters()} == {
        (META, torch.float16)
    }


@pytest.mark.parametrize(("part", "name"), [("transformer", TRANSFORMER), ("text_encoder", T5)])
@pytest.mark.parametrize("size", ["20KB", "1GB"], ids=["sharded", "whole"])
def test_a_variant_is_told_by_its_name(folder, part, name, size):
    weights = load(folder, name, part)
    with torch.no_grad():
        for weight in weights.parameters():
            weight.zero_()
    weights.save_pretrained(folder / part, variant="fp16", max_shard_size=size)
    assert all(not weight.any() for weight in load(folder, name, part, variant="fp16").parameters())
    assert any(weight.any() for weight in load(folder, name, part).parameters())


def test_a_missing_variant_is_told_with_those_there(folder):
    load(folder).save_pretrained(folder / "transformer", variant="fp16")
    message = f"'transformer' of {str(folder)!r} has no variant 'bf16', but {{}}"
    checkpoint = Checkpoint(str(folder), variant="bf16")
    refuses(
        lambda: checkpoint.folder("transformer"), message.format("one without a name and 'fp16'")
    )
    for file in (folder / "transformer").glob("*.safetensors*"):
        if "fp16" not in file.name:
            file.unlink()
    refuses(lambda: checkpoint.folder("transformer"), message.format("'fp16'"))
    refuses(
        lambda: load(folder),
        f"'transformer' of {str(folder)!r} has none of the files"
        " diffusion_pytorch_model.safetensors, diffusion_pytorch_model.bin; set variant to 'fp16'",
    )


def to_bin(folder: Path, part: str, stem: str) -> Path:
    """Weights as old checkpoints have them."""
    weights = {}
    for file in (folder / part).glob("*.safetensors*"):
        weights |= load_file(file) if file.suffix == ".safetensors" else {}
        file.unlink()
    torch.save(weights, folder / part / f"{stem}.bin")
    return folder / part / f"{stem}.bin"


@pytest.mark.parametrize(
    ("part", "name", "stem"),
    [
        ("transformer", TRANSFORMER, "diffusion_pytorch_model"),
        ("text_encoder", T5, "pytorch_model"),
    ],
)
def test_old_files_of_tensors_are_read(pristine, folder, part, name, stem):
    to_bin(folder, part, stem)
    found, expected = load(folder, name, part), load(pristine, name, part)
    pairs = zip(found.parameters(), expected.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    stored = load_network(name, Checkpoint(str(folder)), part, CPU)
    assert {weight.dtype for weight in stored.parameters()} == {torch.float32}


class Malice:
    def __reduce__(self):
        return Path.touch, (Path("was_here"),)


@pytest.mark.parametrize("dtype", [torch.float32, "auto"])
@pytest.mark.parametrize(
    ("part", "name", "stem"),
    [
        ("transformer", TRANSFORMER, "diffusion_pytorch_model"),
        ("text_encoder", T5, "pytorch_model"),
    ],
)
def test_nothing_but_tensors_is_unpickled(folder, monkeypatch, part, name, stem, dtype):
    monkeypatch.chdir(folder)
    torch.save({"weight": Malice()}, to_bin(folder, part, stem))
    refuses(
        lambda: load_network(name, Checkpoint(str(folder)), part, CPU, dtype),
        f"'{part}' of {str(folder)!r} has a .bin with more in it than tensors, which is not"
        " unpickled; find one with safetensors",
    )
    assert not Path("was_here").exists()


def test_a_folder_is_found_before_a_hub_id(pristine, tmp_path, monkeypatch):
    shutil.copytree(pristine, tmp_path / "owner" / "name")
    monkeypatch.chdir(tmp_path)
    assert load("owner/name").config.num_layers == 2


def test_what_is_no_folder_is_told(tmp_path):
    path = str(tmp_path / "nowhere")
    refuses(
        lambda: load(path),
        f'{path!r} is no folder; expected one, or a hub id such as "owner/name"',
    )
    Path(path).touch()
    refuses(
        lambda: load(path), f"{path!r} is a file; expected a folder as diffusers saves a pipeline"
    )


@pytest.mark.parametrize("weights", ["~nobody-of-that-name/x", "a\0b", "owner/", "../x/y"])
def test_names_that_nothing_can_have_are_told(weights):
    refuses(
        lambda: load(weights),
        f'{weights!r} is no folder; expected one, or a hub id such as "owner/name"',
    )


def test_a_name_that_the_system_refuses_is_told():
    refuses(lambda: load("x" * 5000), f"{'x' * 5000!r} cannot be read: File name too long")


def test_a_folder_has_no_revisions(pristine):
    refuses(
        lambda: load(pristine, revision="main"),
        f"{str(pristine)!r} is a folder, which has no revisions; leave `revision` out",
    )


def test_a_missing_part_is_told_with_what_is_there(folder):
    checkpoint = Checkpoint(str(folder))
    refuses(
        lambda: checkpoint.folder("unet"),
        f"{str(folder)!r} has no 'unet', being a CogVideoXPipeline; it has 'scheduler',"
        " 'text_encoder', 'tokenizer', 'transformer', 'vae'; use backbone.kind = 'cogvideox'",
    )
    shutil.rmtree(folder / "vae")
    refuses(
        lambda: checkpoint.folder("vae"),
        f"{str(folder)!r} lacks the folder 'vae', which its model_index.json names",
    )
    (folder / "model_index.json").unlink()
    refuses(
        lambda: checkpoint.folder("vae"),
        f"{str(folder)!r} has no 'vae'; it has 'scheduler', 'text_encoder', 'tokenizer',"
        " 'transformer'",
    )


def test_another_class_of_model_is_told_with_the_backbone_for_it(folder):
    place = f"'transformer' of {str(folder)!r}"
    refuses(
        lambda: load(folder, "WanTransformer3DModel"),
        f"{place}: expected WanTransformer3DModel, found CogVideoXTransformer3DModel;"
        " use backbone.kind = 'cogvideox'",
    )
    refuses(
        lambda: load(folder, "CLIPTextModel", "text_encoder"),
        f"'text_encoder' of {str(folder)!r}: expected CLIPTextModel, found T5EncoderModel",
    )
    (folder / "transformer" / "config.json").write_text("{}")
    refuses(lambda: load(folder), f"{place}: expected {TRANSFORMER}, found no name")


def test_a_missing_shard_is_told(folder):
    shards = sorted((folder / "transformer").glob("*.safetensors"))
    shards[1].unlink()
    message = f"'transformer' of {str(folder)!r} lacks {{}} {len(shards)} files in its {INDEX}"
    refuses(lambda: load(folder), message.format(f"{shards[1].name} of"))
    shards[2].unlink()
    refuses(lambda: load(folder), message.format(f"{shards[1].name} and 1 more of"))


@pytest.mark.parametrize("index", ["{}", "[1]", "{", '{"weight_map": {"a": "../../secret"}}'])
def test_an_index_that_is_none_is_told(folder, index):
    (folder / "transformer" / INDEX).write_text(index)
    told = "names other than files beside it" if ".." in index else "is not an index of weights"
    refuses(lambda: load(folder), f"'transformer' of {str(folder)!r} has an {INDEX} that {told}")


def test_a_file_that_is_not_whole_is_told(folder):
    file = min((folder / "transformer").glob("*.safetensors"))
    place, whole = f"'transformer' of {str(folder)!r}", file.read_bytes()
    cut_off = f"{place} has a {file.name} that is cut off, or not safetensors"
    of_size = f"{place} has a {file.name} of {{}} bytes, where its header says {len(whole)}"
    for content, message in {
        whole[:-1]: of_size.format(len(whole) - 1),
        whole + b"x": of_size.format(len(whole) + 1),
        whole[:20]: cut_off,
        b"": cut_off,
        b"<html>502</html>": cut_off,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n": (
            f"{place} has only a pointer to {file.name}; `git lfs pull` fetches the file"
        ),
    }.items():
        file.write_bytes(content)
        refuses(lambda: load(folder), message)


def test_weights_that_do_not_fit_the_configuration_are_told(folder):
    config = folder / "transformer" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"num_layers": 3}))
    with pytest.raises(JtError, match=r"has no weights for transformer_blocks\.2\..* and \d+ more"):
        load(folder)
    config.write_text(json.dumps(told | {"time_embed_dim": 4}))
    with pytest.raises(JtError, match=r"^backbone.weights: 'transformer' of .* cannot be loaded: "):
        load(folder)


def test_a_configuration_that_cannot_be_read_is_told(folder):
    (folder / "vae" / "config.json").write_text('{"cut": ')
    with pytest.raises(
        JtError, match=r"^backbone.weights: 'vae' of .* has a config.json that is not"
    ):
        load(folder, "AutoencoderKLCogVideoX", "vae")
    (folder / "vae" / "config.json").unlink()
    refuses(
        lambda: load(folder, "AutoencoderKLCogVideoX", "vae"),
        f"'vae' of {str(folder)!r} has none of config.json, scheduler_config.json,"
        " tokenizer_config.json",
    )


def test_a_tokenizer_without_its_vocabulary_is_told(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()
    refuses(
        lambda: load_t5_tokenizer(Checkpoint(str(folder))),
        f"'tokenizer' of {str(folder)!r} has no vocabulary: none of tokenizer.json, spiece.model,"
        " vocab.json",
    )


def test_a_tokenizer_is_read_from_the_files_that_the_hub_has(folder):
    tokens = folder / "tokenizer"
    shutil.rmtree(tokens)
    tokens.mkdir()
    own = train_pieces(tokens / "spiece.model")
    extra = [f"<extra_id_{number}>" for number in range(100)]
    config = {"tokenizer_class": "T5Tokenizer", "legacy": True, "extra_ids": 100}
    config |= {"additional_special_tokens": extra, "model_max_length": 226, "sp_model_kwargs": {}}
    (tokens / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_t5_tokenizer(Checkpoint(str(folder)))
    for prompt in ("a wug rides a bicycle, slowly", "A Red  BALL!", ""):
        assert tokenizer(prompt).input_ids == [*own.encode(prompt), 1]


def train_pieces(path: Path) -> SentencePieceProcessor:
    with path.open("wb") as file:
        SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=file,
            vocab_size=150,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    return SentencePieceProcessor(model_file=str(path))


def test_an_identity_follows_what_is_loaded(pristine, folder):
    checkpoint, parts = Checkpoint(str(folder)), ("transformer", "tokenizer", "scheduler")
    before = {part: checkpoint.identity(part) for part in parts}
    assert before == {part: Checkpoint(str(pristine)).identity(part) for part in parts}
    for file in ("transformer/config.json", "tokenizer/tokenizer.json"):
        (folder / file).write_text((folder / file).read_text() + " ")
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"eta": 1}))
    changed = {part: checkpoint.identity(part) for part in parts}
    assert all(changed[part] != before[part] for part in parts)
    shard = max((folder / "transformer").glob("*.safetensors"))
    save_file({name: weight + 1e-6 for name, weight in load_file(shard).items()}, shard)
    assert checkpoint.identity("transformer") != changed["transformer"]
    assert checkpoint.identity("tokenizer", "scheduler") not in changed.values()


def test_an_identity_minds_no_other_files(folder):
    checkpoint = Checkpoint(str(folder))
    before = checkpoint.identity("transformer", "tokenizer")
    (folder / "transformer" / "README.md").write_text("words")
    (folder / "tokenizer" / ".cache").write_text("words")
    config = (folder / "transformer" / "config.json").read_bytes()
    load(folder).save_pretrained(folder / "transformer", variant="fp16")
    (folder / "transformer" / "config.json").write_bytes(config)
    moved = shutil.move(folder, folder.with_name("moved"))
    assert Checkpoint(moved).identity("transformer", "tokenizer") == before
    assert Checkpoint(moved, variant="fp16").identity("transformer", "tokenizer") != before


def test_of_huge_files_size_header_and_spaced_blocks_are_looked_at(tmp_path):
    file = tmp_path / "huge.safetensors"
    shape = 80 * 2**20 // 4
    save_file({"weight": torch.zeros(shape)}, file)
    before = digest({"huge": file})

    def changed(at: int, content: bytes) -> bool:
        with file.open("r+b") as opened:
            opened.seek(at)
            old = opened.read(len(content))
            opened.seek(at)
            opened.write(content)
            opened.flush()
            found = digest({"huge": file}) != before
            opened.seek(at)
            opened.write(old)
        return found

    size = file.stat().st_size
    assert changed(8, b"x") and changed(size - 1, b"x") and changed(500, b"x")
    spread = b"x" * (size // 63 + 1)  # from one block to the next
    assert changed(size // 2, spread)
    with file.open("ab") as opened:
        opened.write(b"\0")
    assert digest({"huge": file}) != before
