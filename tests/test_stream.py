import gc
import shutil
import subprocess
import sys
import weakref
from collections import Counter
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jtcore import stream as streams
from jtcore.cache import Cache
from jtcore.data import Data, captions
from jtcore.errors import JtError
from jtcore.media import write_video
from jtcore.stream import embed_texts, load_stream
from jtcore.types import Part

CPU = torch.device("cpu")


class Blocks:
    """A codec and text encoder to check against: latents are the means of 8x8 px, plus noise that
    is drawn but too small to see."""

    def __init__(self, version="1"):
        self.version = version
        self.loaded = []  # in order: each codec and text encoder that was asked for
        self.worked = []  # each clip's shape or caption

    def latent_shape(self, frames, height, width):
        return 3, frames, height // 8, width // 8

    def codec_identity(self):
        return f"codec {self.version}"

    def text_identity(self):
        return f"text {self.version}"

    def load_codec(self, device):
        self.loaded.append("codec")
        return self

    def load_text_encoder(self, device):
        self.loaded.append("text")
        return self

    def encode(self, pixels, rng):  # (B, 3, F, H, W) in [-1, 1] -> (B, 3, F, H/8, W/8)
        self.worked.append(tuple(pixels.shape))
        means = torch.nn.functional.avg_pool3d(pixels, (1, 8, 8))
        return means + 1e-6 * torch.randn(means.shape, generator=rng)

    def embed(self, prompts):  # (B, 2, 4)
        self.worked.append(tuple(prompts))
        return torch.stack([torch.full((2, 4), float(len(prompt))) for prompt in prompts])


@pytest.fixture
def spec():
    return Blocks()


@pytest.fixture
def folder(tmp_path):
    """Five pictures: black on the left, white on the right, and file n has n grey rows."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(5):
        pixels = np.zeros((40, 40, 3), np.uint8)
        pixels[:, 20:] = 255
        pixels[:number] = 100
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("x" * (number + 1))
    return folder


@pytest.fixture
def load(tmp_path, spec):
    """Load a stream of the folder, and its captions; `load.said` is what was told."""

    def load(source, **options):
        data = Data(str(source), **{"size": (40, 40)} | options)
        cache = Cache(tmp_path / "cache")
        texts = embed_texts(captions(data), load.spec, cache, load.device)
        say = load.said.append
        return load_stream("subject", data, load.spec, cache, load.device, say), texts

    load.said, load.spec, load.device = [], spec, CPU
    return load


def drawn(stream, texts, draws, seed=(0, "joint")):
    rng = torch.Generator().manual_seed(7)
    return [stream.part(seed, draw, rng, texts) for draw in draws]


def same(one: Part, other: Part):
    return one.prompts == other.prompts and torch.equal(one.latents, other.latents)


def test_a_part_is_what_its_types_say(folder, load):
    (part,) = drawn(*load(folder, batch=2), [0])
    assert part.latents.shape == (2, 3, 1, 5, 5)
    assert part.text[:, 0, 0].tolist() == [len(prompt) for prompt in part.prompts]
    assert (part.stream, part.medium, part.mask) == ("subject", "image", None)


def test_pixels_reach_the_codec_between_minus_1_and_1(folder, load):
    stream, texts = load(folder)
    latents = stream.single(0, texts).latents
    assert latents[0, 0, 0, 0].tolist() == pytest.approx([-1, -1, 0, 1, 1], abs=1e-4)


def test_each_epoch_draws_every_file_once_in_another_order(folder, load):
    stream, texts = load(folder, batch=2)
    order = [prompt for part in drawn(stream, texts, range(25)) for prompt in part.prompts]
    epochs = [tuple(order[start : start + 5]) for start in range(0, 50, 5)]
    assert all(set(epoch) == {"x", "xx", "xxx", "xxxx", "xxxxx"} for epoch in epochs)
    assert any(one != other for one, other in pairwise(epochs))


def test_samples_say_which_file_they_are_of(folder, load):
    stream, texts = load(folder, batch=2, flip=True)
    for part in drawn(stream, texts, range(10)):
        assert part.files == tuple(len(prompt) - 1 for prompt in part.prompts)
    assert [stream.single(file, texts).files for file in range(5)] == [(f,) for f in range(5)]


def test_a_draw_does_not_depend_on_earlier_ones(folder, load):
    stream, texts = load(folder, flip=True)
    (late,) = drawn(stream, texts, [17])
    drawn(stream, texts, range(5))
    assert same(late, drawn(stream, texts, [17])[0])


def test_the_seed_shapes_the_order(folder, load):
    stream, texts = load(folder)
    orders = {
        tuple(part.prompts for part in drawn(stream, texts, range(5), seed))
        for seed in [(0, "joint"), (1, "joint"), (0, "dual")]
    }
    assert len(orders) == 3


def test_half_of_the_draws_are_mirrored(folder, load):
    stream, texts = load(folder / "0.png", flip=True)
    rng = torch.Generator().manual_seed(0)
    parts = [stream.part((0,), draw, rng, texts) for draw in range(200)]
    left = Counter(round(float(part.latents[0, 0, 0, 0, 0])) for part in parts)
    assert set(left) == {-1, 1}
    assert 70 < left[1] < 130


def test_without_flip_nothing_is_mirrored(folder, load):
    stream, texts = load(folder / "0.png")
    parts = drawn(stream, texts, range(20))
    assert all(same(part, stream.single(0, texts)) for part in parts)


def test_clips_of_a_video_are_drawn_alike(tmp_path, load):
    video = torch.linspace(0, 1, 12).view(1, 12, 1, 1).expand(3, 12, 200, 200)
    write_video(tmp_path / "a.mp4", video, fps=10)
    stream, texts = load(tmp_path, prompt="x", frames=4, stride=1, clips=3)
    starts = Counter()
    rng = torch.Generator().manual_seed(0)
    for draw in range(90):
        part = stream.part((0,), draw, rng, texts)
        assert (part.latents.shape, part.medium) == ((1, 3, 4, 5, 5), "video")
        starts[round((float(part.latents[0, 0, 0].mean()) + 1) / 2 * 11)] += 1
    assert set(starts) == {0, 4, 8}
    assert min(starts.values()) > 15


def test_one_frame_of_a_video_is_an_image(tmp_path, load):
    write_video(tmp_path / "a.mp4", torch.rand(3, 12, 24, 24), fps=10)
    (part,) = drawn(*load(tmp_path, prompt="x", clips=4), [0])
    assert (part.latents.shape, part.medium) == ((1, 3, 1, 5, 5), "image")


def test_all_frames_of_a_video_can_be_drawn_one_at_a_time(tmp_path, load):
    shades = torch.linspace(0, 1, 6).view(1, 6, 1, 1).expand(3, 6, 40, 40)
    write_video(tmp_path / "fade.mp4", shades, fps=8)
    stream, texts = load(tmp_path / "fade.mp4", prompt="it fades", frames=1, clips=6)
    parts = drawn(stream, texts, range(300))
    assert all(part.medium == "image" for part in parts)
    found = Counter(round(float((part.latents.mean() + 1) / 2 * 5)) for part in parts)
    assert found.keys() == set(range(6)) and min(found.values()) > 25


def test_masks_go_through_the_geometry_of_their_pictures(folder, load, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    wide = np.zeros((80, 120), np.uint8)
    wide[:, 70:] = 255  # in the middle 80 columns: the last 30
    for number in range(5):
        Image.fromarray(wide).convert("RGB").save(folder / f"{number}.png")
        Image.fromarray(wide).save(masks / f"{number}.png")
    stream, texts = load(folder, masks=str(masks), flip=True)
    for part in drawn(stream, texts, range(20)):
        assert part.mask.shape == (1, 1, 1, 5, 5)
        assert torch.allclose(part.mask[:, 0], (part.latents[:, 0] + 1) / 2, atol=1e-3)


def test_a_mask_is_the_mean_of_its_pixels_or_one_of_them(folder, load, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    half = np.zeros((40, 40), np.uint8)
    half[:, 20:] = 255  # in the middle of the third of five columns of 8 pixels
    Image.fromarray(half).save(masks / "0.png")
    found = []
    for resize in ("area", "nearest"):
        options = {"masks": str(masks), "mask_resize": resize}
        stream, texts = load(folder / "0.png", **options)
        found.append(stream.single(0, texts).mask[0, 0, 0, 0])
    soft, hard = found
    assert torch.allclose(soft, torch.tensor([0.0, 0, 0.5, 1, 1]), atol=1e-3)
    assert hard.tolist()[:2] == [0, 0] and hard.tolist()[3:] == [1, 1] and hard[2] in (0, 1)


def test_masks_that_are_not_there_are_not_resized():
    with pytest.raises(ValueError, match=r"^expected masks with mask_resize$"):
        Data("x", (8, 8), mask_resize="nearest")


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
