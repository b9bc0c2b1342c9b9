"""Pictures that adapters are conditioned on: what they are shown, and what is told of them."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from jtcore import cli
from jtcore.cache import Cache
from jtcore.data import Data
from jtcore.decode import read_frames
from jtcore.media import write_video
from jtcore.recipe import SampledReference
from jtcore.references import embed_frames, sampled, shown
from jtcore.stream import Item, Stream
from jtcore.types import Part
from jtplugins.image_encoders.colours import Colours

CPU = torch.device("cpu")
RED, GREEN, BLUE = (1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)


def embedded(colour: tuple[float, float, float]) -> Tensor:  # (8,)
    """What Colours(2) makes of a picture of one pure colour."""
    found = torch.zeros(2, 2, 2)
    found[tuple(int(each) for each in colour)] = 8**0.5
    return found.flatten()


@pytest.fixture
def clip(tmp_path) -> Path:
    """Eight frames, each of a grey of its own."""
    folder = tmp_path / "clips"
    folder.mkdir()
    greys = torch.linspace(0.1, 0.9, 8).view(1, 8, 1, 1).expand(3, 8, 24, 24)
    write_video(folder / "greys.mp4", greys.contiguous(), 8)
    return folder


@pytest.fixture
def conditioned(table, data) -> dict:
    """The tiny recipe on pocket, with an adapter that reads what it is shown."""
    table["backbone"] = {"kind": "pocket", "weights": "random"}
    table["image_encoder"] = {"kind": "colours", "levels": 2}
    table["data"]["motion"]["reference"] = "frame"
    table["adapter"]["joint"] = {
        "kind": "bottleneck",
        "targets": "visual",
        "width": 4,
        "reference_width": 8,
    }
    table["sample"]["prompts"] = ["a sks creature stays"]
    table["sample"]["reference"] = {"picture": str(data / "subject" / "00.png")}
    return table


def part(embeddings: Tensor | None, batch: int = 2) -> Part:
    return Part(
        torch.zeros(batch, 1, 1, 1, 1),
        torch.zeros(batch, 1, 1),
        ("",) * batch,
        "s",
        reference=embeddings,
    )


# what is shown


def test_a_frame_of_each_clip_is_drawn_once_and_for_all(clip, tmp_path):
    data = Data(str(clip), (24, 24), "", frames=2, stride=1, clips=4, reference="frame")
    (first,) = embed_frames(data, Colours(4), Cache(tmp_path / "one"), CPU)
    (again,) = embed_frames(data, Colours(4), Cache(tmp_path / "two"), CPU)
    assert torch.equal(first, again)
    assert first.shape == (4, 1, 64)
    shown = [(first[:, 0] - each).norm(dim=1) for each in _embedded_frames(clip)]
    nearest = torch.stack(shown).argmin(0).tolist()
    assert all(at in (2 * number, 2 * number + 1) for number, at in enumerate(nearest))


def _embedded_frames(clip: Path) -> list[Tensor]:
    frames = read_frames(clip / "greys.mp4", set(range(8)))
    return [Colours(4).embed(pixels[None, :, 0].float() / 255)[0] for _, pixels in frames]


def test_a_picture_is_shown_for_every_variant_and_mirror_image(clip, tmp_path):
    Image.new("RGB", (30, 10), (255, 0, 0)).save(tmp_path / "red.png")
    data = Data(
        str(clip), (24, 24), "", frames=2, clips=3, flip=True, reference=str(tmp_path / "red.png")
    )
    (found,) = embed_frames(data, Colours(2), Cache(tmp_path / "cache"), CPU)
    torch.testing.assert_close(found, embedded(RED).expand(6, 1, 8))


def test_a_frame_is_drawn_anew_each_time_where_that_is_asked(clip, tmp_path):
    data = Data(str(clip), (24, 24), "", frames=4, stride=1, reference="random_frame")
    (found,) = embed_frames(data, Colours(4), Cache(tmp_path / "cache"), CPU)
    torch.testing.assert_close(found[0], torch.stack(_embedded_frames(clip)[:4]))

    item = Item("", torch.zeros(1, 1, 1, 1, 1), None, found)
    stream, texts = Stream("s", [item], 2, CPU), {"": torch.zeros(1, 1)}
    rng = torch.Generator().manual_seed(0)
    drawn = torch.cat([stream.part((), n, rng, texts).reference for n in range(50)])
    counts = [int((drawn == one).all(1).sum()) for one in found[0]]
    assert sum(counts) == 100 and min(counts) > 15
    assert torch.equal(stream.single(0, texts).reference, found[:, 0])


def test_a_part_without_references_shows_nothing_and_draws_nothing():
    rng = torch.Generator().manual_seed(0)
    before = rng.get_state()
    assert shown(part(None), 0.5, rng) is None
    found = shown(part(torch.ones(2, 3)), 0.0, rng)
    assert torch.equal(found.embedding, torch.ones(2, 3))
    assert torch.equal(found.strength, torch.ones(2))
    assert torch.equal(rng.get_state(), before)


def test_a_dropped_reference_is_zero_at_full_strength():
    rng = torch.Generator().manual_seed(0)
    found = shown(part(torch.ones(1000, 3), 1000), 0.25, rng)
    dropped = (found.embedding == 0).all(1)
    assert (dropped | (found.embedding == 1).all(1)).all()
    assert 0.2 < dropped.float().mean() < 0.3
    assert torch.equal(found.strength, torch.ones(1000))


@pytest.mark.parametrize(
    ("negative", "embedding", "strength"),
    [("none", GREEN, 0.0), ("zero", None, 0.5), ("same", GREEN, 0.5)],
)
def test_the_negative_half_is_shown_what_the_recipe_says(negative, embedding, strength):
    settings = SampledReference("green.png", 0.5, negative)
    pictures = {"green.png": embedded(GREEN)}
    both = sampled(settings, pictures, 3, 2, CPU)
    alone = sampled(settings, pictures, 3, 1, CPU)
    assert both.strength.tolist() == [strength] * 3 + [0.5] * 3
    assert torch.equal(both.embedding[3:], embedded(GREEN).expand(3, 8))
    if strength:
        expected = torch.zeros(8) if embedding is None else embedded(embedding)
        assert torch.equal(both.embedding[:3], expected.expand(3, 8))
    assert torch.equal(alone.embedding, both.embedding[3:])
    assert alone.strength.tolist() == [0.5] * 3
    assert sampled(None, {}, 3, 2, CPU) is None


# on the real path


def test_a_run_trains_and_samples_with_what_it_is_shown(conditioned, jt_run, data):
    adapters, videos = [], []
    pictures = [str(data / "subject" / f"0{number}.png") for number in range(2)]
    for number, (learned, seen) in enumerate([(0, 0), (1, 0), (0, 1)]):
        conditioned["data"]["motion"]["reference"] = pictures[learned]
        conditioned["sample"]["reference"] = {"picture": pictures[seen]}
        run = jt_run(conditioned, name=f"run{number}")
        adapters.append(load_file(run / "adapters" / "joint.safetensors"))
        videos.append((run / "samples" / "adapted" / "00-seed0.mp4").read_bytes())
    first, other, same = adapters
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert videos[0] != videos[2]


def test_a_run_is_shown_another_frame_in_each_step_and_can_be_repeated(conditioned, jt_run):
    found = []
    for number, reference in enumerate(("frame", "random_frame", "random_frame")):
        conditioned["data"]["motion"]["reference"] = reference
        run = jt_run(conditioned, name=f"run{number}")
        found.append(load_file(run / "adapters" / "joint.safetensors"))
    once, anew, again = found
    assert any(not torch.equal(once[name], anew[name]) for name in once)
    assert all(torch.equal(anew[name], again[name]) for name in anew)


def test_dropping_all_references_learns_nothing_of_the_picture(conditioned, jt_run, data):
    found = []
    for number in range(2):
        picture = str(data / "subject" / f"0{number}.png")
        conditioned["data"]["motion"]["reference"] = picture
        conditioned["stage"]["joint"]["branch"]["joint"]["drop_reference"] = 1.0
        run = jt_run(conditioned, name=f"run{number}")
        found.append(load_file(run / "adapters" / "joint.safetensors"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_samples_say_what_they_were_shown(conditioned, jt_run):
    run = jt_run(conditioned)
    entries = json.loads((run / "metrics.json").read_text())["samples"]
    told = {entry["model"]: entry.get("reference") for entry in entries}
    picture = conditioned["sample"]["reference"]["picture"]
    assert told == {
        "base": None,
        "adapted": {"picture": picture, "strength": 1.0, "negative": "none"},
    }


def test_what_is_missing_is_told_before_anything_is_computed(conditioned, write_recipe, capsys):
    del conditioned["image_encoder"]
    conditioned["sample"]["reference"]["picture"] = "nowhere.png"
    assert cli.run([str(write_recipe(conditioned)), "--check"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "sample.reference.picture: nowhere.png: cannot be read: No such file or directory",
        "data.motion.reference: there is no [image_encoder]",
        "sample.reference: there is no [image_encoder]",
        "adapter.joint.reference_width: there is no [image_encoder]",
    ]


def test_an_encoder_of_another_width_or_without_use_or_weights_is_told(
    conditioned, write_recipe, capsys
):
    def told() -> list[str]:
        assert cli.run([str(write_recipe(conditioned)), "--check"]) == 2
        return capsys.readouterr().err.splitlines()

    conditioned["image_encoder"]["levels"] = 3
    assert told() == ["adapter.joint.reference_width: expected 27, the encoder's; got 8"]
    conditioned["image_encoder"] = {"kind": "clip", "weights": "nowhere"}
    assert told() == [
        "image_encoder.weights: 'nowhere' is no folder; expected one, or a hub id such as"
        ' "owner/name"'
    ]
    conditioned["image_encoder"] = {"kind": "colours", "levels": 2}
    del conditioned["data"]["motion"]["reference"], conditioned["sample"]["reference"]
    assert told() == ["image_encoder: neither data nor [sample] has a reference"]


def test_a_condition_that_is_trained_without_ever_being_shown_a_picture_is_told(
    conditioned, write_recipe, capsys
):
    conditioned["data"]["other"] = dict(conditioned["data"]["motion"])  # which has a reference
    del conditioned["data"]["motion"]["reference"]
    branches = conditioned["stage"]["joint"]["branch"]
    branches["shown"] = branches["joint"] | {"data": ["other"], "adapters": ["bare"]}
    branches["shown"]["losses"] = {"loss": {"kind": "diffusion"}}
    conditioned["adapter"]["bare"] = {"kind": "bottleneck", "targets": "visual", "width": 4}
    assert cli.run([str(write_recipe(conditioned)), "--check"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "adapter.joint.reference_width: no branch that trains it has data with a reference, so that"
        " its condition would learn nothing; give some a reference, or leave reference_width out"
    ]
    branches["shown"]["adapters"] = ["bare", "joint"]
    assert cli.run([str(write_recipe(conditioned)), "--check"]) == 0


def test_a_picture_for_adapters_that_read_none_is_refused(table, jt_run, tmp_path, capsys, data):
    run = jt_run(table)
    capsys.readouterr()
    picture = str(data / "subject" / "00.png")
    command = [str(run), "--prompt", "a wug", "--out", str(tmp_path / "s"), "--reference", picture]
    assert cli.sample(command) == 2
    assert capsys.readouterr().err == "--reference: no adapter has an image condition\n"


def test_a_run_is_not_resumed_with_another_picture(conditioned, jt_run, tmp_path, capsys, data):
    picture = tmp_path / "shown.png"
    picture.write_bytes((data / "subject" / "00.png").read_bytes())
    conditioned["sample"]["reference"]["picture"] = str(picture)
    run = jt_run(conditioned)
    (run / "result.json").unlink()
    picture.write_bytes((data / "subject" / "01.png").read_bytes())
    capsys.readouterr()
    assert cli.run(["--resume", str(run)]) == 2
    assert capsys.readouterr().err == (
        f"sample.reference: {picture} has changed since this run began; put it back, or begin a"
        " new run\n"
    )
