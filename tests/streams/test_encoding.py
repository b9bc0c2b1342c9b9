"""What streams are made of: encoded once, kept by all that shapes it, and told of."""

import gc
import shutil
import subprocess
import sys
import weakref
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from checkpoints.averages import CPU, Blocks, same
from PIL import Image

from jtcore import stream as streams
from jtcore.cache import Cache
from jtcore.data import Data, captions
from jtcore.errors import JtError
from jtcore.stream import embed_texts, load_stream


def test_what_is_cached_is_not_encoded_again(folder, load):
    first, texts = load(folder, flip=True)
    assert load.spec.loaded == ["text", "codec"]
    load.spec = Blocks()
    again, _ = load(folder, flip=True)
    assert (load.spec.loaded, load.spec.worked) == ([], [])
    assert all(same(first.single(i, texts), again.single(i, texts)) for i in range(5))


def test_components_are_loaded_once_and_work_on_one_clip_at_a_time(folder, load):
    load(folder)
    assert load.spec.loaded == ["text", "codec"]
    assert load.spec.worked[:5] == [("x" * n,) for n in range(1, 6)]
    assert load.spec.worked[5:] == [(1, 3, 1, 40, 40)] * 5


def test_encoding_draws_the_same_noise_whatever_else_is_encoded(folder, load, tmp_path):
    together, texts = load(folder, prompt="x")
    path = folder / "3.png"
    data = Data(str(path), (40, 40), "x")
    alone = load_stream("other", data, load.spec, Cache(tmp_path / "fresh"), CPU, print)
    assert same(together.single(3, texts), alone.single(0, texts))


@pytest.mark.parametrize(
    "change",
    [
        {"size": (24, 40)},
        {"frames": 2},
        {"fps": 8.0},
        {"stride": 1},
        {"clips": 2},
        {"short": "error"},
        {"flip": True},
        {"masks": "."},
    ],
)
def test_each_option_that_shapes_latents_is_in_the_key(folder, load, change):
    masks = folder.parent / "masks"
    masks.mkdir()
    Image.new("L", (40, 40), "white").save(masks / "0.png")
    if "masks" in change:
        change = {"masks": str(masks)}
    load(folder / "0.png", short="repeat")
    load.spec.worked.clear()
    load(folder / "0.png", **{"short": "repeat"} | change)
    assert load.spec.worked


@pytest.mark.parametrize("change", [{"prompt": "another"}, {"batch": 3}])
def test_options_that_do_not_shape_latents_are_not_in_the_key(folder, load, change):
    load(folder / "0.png")
    load.spec.worked.clear()
    load(folder / "0.png", **change)
    assert (1, 3, 1, 40, 40) not in load.spec.worked


def change_the_file(folder, load, monkeypatch):
    Image.new("RGB", (40, 40), "red").save(folder / "0.png")


def change_the_mask(folder, load, monkeypatch):
    Image.new("L", (40, 40), 200).save(folder.parent / "0.png")


def change_the_suffix(folder, load, monkeypatch):
    (folder / "0.png").rename(folder / "0.webp")  # which other code might read


def change_the_codec(folder, load, monkeypatch):
    load.spec = Blocks("2")


def change_our_code(folder, load, monkeypatch):
    monkeypatch.setattr(streams, "CODE", "another digest")


def change_a_library(folder, load, monkeypatch):
    monkeypatch.setattr(streams, "LIBRARIES", "torch 99")


def change_the_device(folder, load, monkeypatch):
    class Anywhere(Blocks):
        def encode(self, pixels, rng):
            return super().encode(torch.zeros(pixels.shape), rng)

    load.spec, load.device = Anywhere(), torch.device("meta")


@pytest.mark.parametrize(
    "change",
    [
        change_the_file,
        change_the_mask,
        change_the_suffix,
        change_the_codec,
        change_our_code,
        change_a_library,
        change_the_device,
    ],
)
def test_what_else_shapes_latents_is_in_the_key(folder, load, monkeypatch, change):
    Image.new("L", (40, 40), "white").save(folder.parent / "0.png")
    options = {"masks": str(folder.parent), "prompt": "x"}
    load(folder / "0.*", **options)
    load.spec.worked.clear()
    change(folder, load, monkeypatch)
    load(folder / "0.*", **options)
    assert (1, 3, 1, 40, 40) in load.spec.worked


@pytest.mark.parametrize(
    "change", [change_the_codec, change_our_code, change_a_library, change_the_device]
)
def test_what_shapes_embeddings_is_in_the_key(folder, load, monkeypatch, change):
    load(folder)
    change(folder, load, monkeypatch)
    load.spec.worked.clear()
    load(folder)
    assert load.spec.worked[:5] == [("x" * n,) for n in range(1, 6)]


@pytest.mark.parametrize("library", ["torch", "av", "Pillow", "transformers", "diffusers"])
def test_each_library_that_shapes_tensors_is_in_the_key(library):
    assert f"{library} {version(library)}" in streams.LIBRARIES


EDITOR = """
import importlib
from pathlib import Path
from jtcore import stream

print(stream.CODE)
for name in ["decode", "framing", "clips", "stream"]:
    with Path("jtcore", f"{name}.py").open("a") as file:
        file.write("# edited")
    print(importlib.reload(stream).CODE)
Path("jtcore", "report.py").write_text("")
print(importlib.reload(stream).CODE)
"""


def test_an_edit_of_what_shapes_tensors_is_in_the_key(tmp_path):
    shutil.copytree(Path(streams.__file__).parent, tmp_path / "jtcore")
    command = [sys.executable, "-c", EDITOR]
    told = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    *edited, other = told.stdout.split()
    assert (len(edited), len(set(edited)), other) == (5, 5, edited[-1])


def test_the_codec_is_freed(folder, load, tmp_path):
    class Owner(Blocks):
        alive = 0

        def load_codec(self, device):
            return Codec()

    class Codec(Blocks):
        def __init__(self):
            super().__init__()
            Owner.alive += 1

        def __del__(self):
            Owner.alive -= 1

    load.spec = Owner()
    load(folder)
    assert Owner.alive == 0


@pytest.fixture
def no_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_encoders_that_refer_to_themselves_are_gone_when_they_were_used(
    folder, tmp_path, no_collection
):
    class Tied(Blocks):
        def __init__(self):
            super().__init__()
            self.made = []

        def load_codec(self, device):
            made = Blocks()
            made.owner = made
            self.made.append(weakref.ref(made))
            return made

        load_text_encoder = load_codec

    tied, cache, data = Tied(), Cache(tmp_path / "cache"), Data(str(folder), (40, 40))
    embed_texts(captions(data), tied, cache, CPU)
    assert [made() for made in tied.made] == [None]
    load_stream("subject", data, tied, cache, CPU, print)
    assert [made() for made in tied.made] == [None, None]


def test_what_is_cropped_is_told_in_one_line(folder, load):
    Image.new("RGB", (64, 40)).save(folder / "3.png")
    Image.new("RGB", (52, 40)).save(folder / "4.png")
    load(folder)
    load(folder / "4.png")
    assert load.said == [
        "data.subject: 3.png: 38% of it is cropped away, and more than 20% of 1 others",
        "data.subject: 4.png: 23% of it is cropped away",
    ]


def test_transparent_pictures_are_told_also_from_the_cache(folder, load):
    Image.new("RGBA", (40, 40), (0, 0, 0, 9)).save(folder / "3.png")
    load(folder)
    load(folder)
    line = "data.subject: 3.png: its transparent pixels are laid on white"
    assert load.said == [line, line]


def test_latents_that_are_not_finite_are_refused_and_not_cached(folder, load):
    class Overflowing(Blocks):
        def encode(self, pixels, rng):
            return super().encode(pixels, rng) / 0

    load.spec = Overflowing()
    for _ in range(2):
        with pytest.raises(JtError) as caught:
            load(folder)
        assert str(caught.value) == (
            f"{folder / '0.png'}: the codec encodes it to numbers that are not finite"
        )


def test_a_missing_mask_is_told(folder, load, tmp_path):
    with pytest.raises(JtError) as caught:
        load(folder, masks=str(tmp_path))
    assert str(caught.value) == f"{tmp_path / '0.png'}: is missing, the mask of 0.png"
