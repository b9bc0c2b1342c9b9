"""Views of files that are smaller or larger than they are, and captions that are phrased anew."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jtcore import cli
from jtcore.cache import Cache
from jtcore.data import Data, captions
from jtcore.errors import JtError
from jtcore.recipe import build_recipe
from jtcore.stream import load_stream
from jtcore.structure import structure
from jtcore.zoom import Band, Zoom

CPU = torch.device("cpu")
CUSTOMCRAFTER = {
    "views": 60,
    "bands": [
        {"scale": [0.3, 0.6], "weight": 0.2857, "prefixes": ["a far away", "very small"]},
        {"scale": [0.6, 1.0], "weight": 0.381},
        {"scale": [1.2, 1.4], "weight": 0.3333, "prefixes": ["zoomed in", "close up"]},
    ],
}
TEMPLATES = ["video of a {}", "{}", "a static video of a {}", "a {}"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A white picture and one that is red on the left and green on the right."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (96, 96), "white").save(folder / "white.png")
    halves = np.zeros((96, 96, 3), np.uint8)
    halves[:, :48, 0] = halves[:, 48:, 1] = 255
    Image.fromarray(halves).save(folder / "halves.png")
    return folder


@pytest.fixture
def load(tmp_path: Path, plugins):
    spec = build_recipe({"backbone": {"kind": "tiny"}}, plugins).backbone.spec

    def load(source: Path, **options):
        table = {"source": str(source), "size": [24, 24], "prompt": "wug", **options}
        data = structure(Data, table, plugins)
        cache = Cache(tmp_path / "cache")
        return data, load_stream("subject", data, spec, cache, CPU, lambda line: None)

    return load


def drawn(stream, data, count: int):
    texts = {caption: torch.zeros(1, 2) for caption in captions(data)}
    rng = torch.Generator().manual_seed(3)
    return [stream.part((0, "joint"), draw, rng, texts) for draw in range(count)]


def test_views_are_drawn_by_weight_and_evenly_within_a_band():
    zoom = Zoom((Band((0.5, 1.0), 3.0, ("far", "tiny")), Band((2.0, 4.0))), views=1000)
    views = [view for seed in "abcd" for view in zoom.draw((1000, 2000), flip=True, seed=seed)]
    small = [view for view in views if view.scaled[0] <= 1000]
    assert len(small) / len(views) == pytest.approx(0.75, abs=0.03)
    assert {view.prefix for view in small} == {"far", "tiny"}
    assert sum(view.flipped for view in views) / len(views) == pytest.approx(0.5, abs=0.03)
    scales = np.array([view.scaled for view in views if view not in small]) / (1000, 2000)
    np.testing.assert_allclose(scales[:, 0], scales[:, 1], atol=1e-3)
    assert scales.mean() == pytest.approx(3, abs=0.06) and scales.min() < 2.05 < 3.95 < scales.max()
    tops = np.array([view.top / (1000 - view.scaled[0]) for view in small if view.scaled[0] < 990])
    assert tops.mean() == pytest.approx(0.5, abs=0.03) and tops.min() < 0.01 < 0.99 < tops.max()


def test_views_are_a_function_of_the_seed_and_not_mirrored_unasked():
    zoom = Zoom((Band((0.3, 1.4)),))
    first, again, other = (zoom.draw((24, 24), False, seed) for seed in ("a", "a", "b"))
    assert first == again != other
    assert not any(view.flipped for view in first)


def test_a_smaller_view_lies_on_black_and_its_mask_is_where_it_is(pictures, load):
    _, stream = load(pictures / "white.png", zoom={"bands": [{"scale": [0.3, 0.9]}]})
    item = stream.items[0]
    assert item.latents.shape[0] == 16
    shown = (item.latents[:, :1] + 1) / 2  # the codec of `tiny` is the mean of 4x4 px
    torch.testing.assert_close(shown, item.mask, atol=1e-6, rtol=0)
    areas = item.mask.mean((1, 2, 3, 4))
    assert 0.3**2 - 0.04 < areas.min() < 0.3 < 0.5 < areas.max() < 0.9**2 + 0.04


def test_a_larger_view_is_a_part_and_wholly_shown(pictures, load):
    _, stream = load(pictures / "halves.png", zoom={"bands": [{"scale": [3, 3]}], "views": 40})
    item = stream.items[0]
    assert (item.mask == 1).all()
    red = (item.latents[:, 0] > 0).float().mean((1, 2, 3))
    assert {0.0, 1.0} < set(red.tolist())  # some views show one half alone, some both
    assert red.mean() == pytest.approx(0.5, abs=0.15)


def test_a_view_is_as_sharp_as_the_file(pictures, load):
    """It is scaled from the file's own pixels, not from the frame's."""
    fine = np.indices((96, 96)).sum(0) % 2 * 255  # a checkerboard that a frame of 24 px averages
    Image.fromarray(np.repeat(fine[..., None], 3, 2).astype(np.uint8)).save(pictures / "fine.png")
    from jtcore.clips import read_views
    from jtcore.zoom import View

    data, _ = load(pictures / "fine.png")
    (clip,), _ = read_views(pictures / "fine.png", data, [View((96, 96), 10, 20, False, "")])
    assert np.array_equal(clip[0, 0].numpy(), fine[10:34, 20:44])
    (flipped,), _ = read_views(pictures / "fine.png", data, [View((96, 96), 10, 20, True, "")])
    assert torch.equal(flipped, clip.flip(-1))


def test_captions_say_how_large_the_view_is(pictures, load):
    data, stream = load(pictures, zoom=CUSTOMCRAFTER, flip=True)
    for part in drawn(stream, data, 200):
        side = part.mask.mean().sqrt().item()
        far = part.prompts[0].startswith(("a far away ", "very small "))
        near = part.prompts[0].startswith(("zoomed in ", "close up "))
        assert far == (side < 0.59) or 0.55 < side < 0.65
        assert side == 1 if near else part.prompts[0].endswith("wug")
        assert far + near <= 1


def test_all_captions_that_can_be_drawn_are_known_before(pictures, load):
    data, stream = load(pictures, zoom=CUSTOMCRAFTER, templates=TEMPLATES)
    parts = drawn(stream, data, 400)
    assert {part.prompts[0] for part in parts} == set(captions(data))
    assert len(set(captions(data))) == 5 * 4


def test_a_template_is_drawn_for_each_sample_evenly(pictures, load):
    data, stream = load(pictures, templates=TEMPLATES, batch=2)
    parts = drawn(stream, data, 400)
    told = Counter(prompt for part in parts for prompt in part.prompts)
    assert told.keys() == {"video of a wug", "wug", "a static video of a wug", "a wug"}
    assert min(told.values()) > 160
    assert any(part.prompts[0] != part.prompts[1] for part in parts)
    texts = {caption: torch.zeros(1, 2) for caption in captions(data)}
    assert stream.single(0, texts).prompts == ("video of a wug",)


def test_one_template_draws_nothing(pictures, load):
    texts, after = {"a wug": torch.zeros(1, 2), "wug": torch.zeros(1, 2)}, []
    for templates in (["{}"], ["a {}"]):
        _, stream = load(pictures, templates=templates)
        rng = torch.Generator().manual_seed(0)
        stream.part((0, "joint"), 0, rng, texts)
        torch.randint(1, (), generator=(expected := torch.Generator().manual_seed(0)))
        after.append(torch.equal(rng.get_state(), expected.get_state()))
    assert after == [True, True]


def test_views_are_encoded_once_and_anew_when_the_zoom_changes(pictures, load, tmp_path):
    def made() -> int:
        return len(list((tmp_path / "cache").iterdir()))

    first = load(pictures, zoom=CUSTOMCRAFTER)[1]
    assert made() == 2
    again = load(pictures, zoom=CUSTOMCRAFTER)[1]
    assert made() == 2 and torch.equal(first.items[0].latents, again.items[0].latents)
    assert first.items[0].prefixes == again.items[0].prefixes
    load(pictures, zoom={**CUSTOMCRAFTER, "views": 59})
    assert made() == 4


def test_a_mask_is_zoomed_with_its_picture(pictures, load, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    left = np.zeros((96, 96), np.uint8)
    left[:, :48] = 255
    Image.fromarray(left).save(masks / "halves.png")
    _, stream = load(
        pictures / "halves.png",
        masks=str(masks),
        flip=True,
        zoom={"bands": [{"scale": [0.5, 0.5]}], "views": 20},
    )
    item = stream.items[0]
    red = (item.latents[:, :1] + 1) / 2
    torch.testing.assert_close(item.mask, red, atol=1e-2, rtol=0)  # what is red is masked
    assert item.mask.mean((1, 2, 3, 4)).tolist() == pytest.approx([1 / 8] * 20, abs=1e-3)


def test_a_picture_is_a_still_video_where_its_frame_is_held(pictures, load):
    still = {"frames": 4, "short": "repeat"}
    data, stream = load(pictures, zoom=CUSTOMCRAFTER, **still)
    item = stream.items[0]
    assert data.medium == "video" and item.latents.shape == (60, 3, 4, 6, 6)
    assert item.mask.shape == (60, 1, 4, 6, 6)
    assert (item.latents == item.latents[:, :, :1]).all() and (
        item.mask == item.mask[:, :, :1]
    ).all()


def test_clips_of_a_file_are_shown_in_turn(data, load):
    zoom = {"bands": [{"scale": [1, 1]}], "views": 4}
    _, stream = load(data / "motion", frames=3, clips=2, stride=1, zoom=zoom)
    latents = stream.items[0].latents
    assert torch.equal(latents[0], latents[2]) and torch.equal(latents[1], latents[3])
    _, plain = load(data / "motion", frames=3, clips=2, stride=1)
    assert torch.equal(latents[:2], plain.items[0].latents)
    assert not torch.equal(latents[0], latents[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": ["a wug"]}, "templates: expected one {} in each, for the caption, got"),
        ({"templates": []}, "templates"),
        ({"zoom": {"bands": []}}, "zoom.bands"),
        ({"zoom": {"bands": [{"scale": [1.4, 1.2]}]}}, "zoom.bands[0].scale: expected two rising"),
        ({"zoom": {"bands": [{"scale": [0, 1]}]}}, "zoom.bands[0].scale: expected two rising"),
        ({"zoom": {"bands": [{"scale": [1, 2]}]}, "reference": "frame"}, "expected zoom or ref"),
    ],
)
def test_what_cannot_be_meant_is_told(pictures, load, options, message):
    with pytest.raises(JtError) as caught:
        load(pictures, **options)
    assert message in str(caught.value)


def test_files_are_validated_as_they_are(table, plugins):
    table["data"]["held_out"]["zoom"] = {"bands": [{"scale": [0.5, 1]}]}
    table["validation"] = {"data": ["held_out"]}
    with pytest.raises(JtError, match=r"^validation\.data: 'held_out' is zoomed; files are valid"):
        build_recipe(table, plugins)


def test_a_run_masks_its_loss_to_where_the_zoomed_picture_is(table, jt_run, write_recipe, capsys):
    table["data"]["subject"] |= {
        "zoom": {"bands": [{"scale": [0.3, 1]}]},
        "templates": ["{}", "a {}"],
    }
    losses = table["stage"]["joint"]["branch"]["joint"]["losses"]
    losses["appearance"] = {"kind": "diffusion", "on": "image", "masked": "area"}
    run = jt_run(table)
    assert len(list((run / "samples/adapted").iterdir())) == 1
    del table["data"]["subject"]["zoom"]
    assert cli.run([str(write_recipe(table)), "--check"]) == 2
    assert "needs masks, and data.subject has none" in capsys.readouterr().err
