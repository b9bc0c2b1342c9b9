"""R-CLIP and R-DINO: metrics of what is in boxes."""

import json
from pathlib import Path

import pytest
import torch
from attrs import evolve
from checkpoints.looking import build_clip, build_dino
from PIL import Image

from jtcore.errors import JtError
from jtcore.plugins import load_plugins
from jtcore.structure import structure
from jtcore.types import Sample
from jtplugins.controls._boxes import Keyframe, box_at
from jtplugins.metrics.clip_image import ClipImage
from jtplugins.metrics.dino_image import DinoImage
from jtplugins.metrics.region_clip import RegionClip
from jtplugins.metrics.region_dino import RegionDino

CPU = torch.device("cpu")
WHOLE = (0.0, 0.0, 1.0, 1.0)
PATH = (Keyframe(0.0, (0.1, 0.0, 0.6, 0.5)), Keyframe(1.0, (0.4, 0.4, 0.9, 0.9)))
KINDS = pytest.mark.parametrize("kind", [RegionClip, RegionDino])


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict[type, dict[str, str]]:
    folder = tmp_path_factory.mktemp("regions")
    (folder / "subject").mkdir()
    picture = (noise(1)[:, 0].permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(picture).save(folder / "subject" / "0.png")
    subject = str(folder / "subject")
    clip = {"model": str(build_clip(folder / "clip")), "subject": subject}
    dino = {"model": str(build_dino(folder / "dino")), "subject": subject}
    return {RegionClip: clip, RegionDino: dino, ClipImage: clip, DinoImage: dino}


def noise(frames: int, seed: int = 0) -> torch.Tensor:  # (3, F, H, W) of whole pixel values
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(frames, 3, 5, 6, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, (40, 60), mode="bilinear")
    return (fine * 255).round().movedim(1, 0) / 255


SAMPLE = Sample(noise(5), "a dog runs", 3, 8.0)


def value(spec, sample: Sample = SAMPLE) -> float | None:
    assert spec.problems() == []
    found = dict(spec.load(CPU)(sample))
    assert set(found) <= {next(iter(load_name(spec)))}
    return next(iter(found.values()), None)


def load_name(spec) -> list[str]:
    families = load_plugins().families["metrics"]
    return [name for name, kind in families.items() if kind is type(spec)]


def boxed(path: Path, *entries: dict) -> str:
    path.write_text(json.dumps(entries))
    return str(path)


def whole_kind(kind: type) -> type:
    return {RegionClip: ClipImage, RegionDino: DinoImage}[kind]


@KINDS
def test_a_box_around_everything_is_the_metric_of_whole_frames(kind, options):
    whole = value(whole_kind(kind)(**options[kind]))
    assert value(kind(**options[kind], path=(Keyframe(0.0, WHOLE),))) == pytest.approx(whole)


@KINDS
def test_a_box_that_stands_is_the_metric_of_a_video_that_is_cut_so(kind, options):
    still = (Keyframe(0.0, (0.25, 0.1, 0.75, 0.6)),)
    cut = evolve(SAMPLE, video=SAMPLE.video[:, :, 10:30, 6:36])
    expected = value(whole_kind(kind)(**options[kind]), cut)
    assert value(kind(**options[kind], path=still)) == pytest.approx(expected, abs=1e-9)


@KINDS
def test_keyframes_and_a_file_of_the_same_boxes_say_the_same(kind, options, tmp_path):
    boxes = [list(box_at(PATH, index / 4)) for index in range(5)]
    file = boxed(tmp_path / "boxes.json", {"boxes": boxes})
    assert value(kind(**options[kind], boxes=file)) == value(kind(**options[kind], path=PATH))


def test_frames_without_a_box_or_with_one_outside_are_left_out(options, tmp_path):
    seen, outside = [0.25, 0.1, 0.75, 0.6], [1.2, 0.1, 1.4, 0.6]
    file = boxed(tmp_path / "boxes.json", {"boxes": [None, seen, None, outside, None]})
    cut = evolve(SAMPLE, video=SAMPLE.video[:, 1:2, 10:30, 6:36])
    expected = value(ClipImage(**options[ClipImage]), cut)
    found = value(RegionClip(**options[RegionClip], boxes=file))
    assert found == pytest.approx(expected, abs=1e-9)
    unseen = boxed(tmp_path / "none.json", {"boxes": [None] * 5})
    assert value(RegionClip(**options[RegionClip], boxes=unseen)) is None


def test_boxes_are_those_of_the_videos_prompt_and_seed(options, tmp_path):
    first, second, rest = ([[0.0, 0.0, x, x]] * 5 for x in (0.3, 0.5, 0.7))
    file = boxed(
        tmp_path / "boxes.json",
        {"prompt": "a dog runs", "seed": 1, "boxes": first},
        {"prompt": "a dog runs", "boxes": second},
        {"prompt": "a cat runs", "seed": 3, "boxes": rest},
    )
    spec = RegionClip(**options[RegionClip], boxes=file)
    for sample, boxes in [
        (SAMPLE, second),
        (evolve(SAMPLE, seed=1), first),
        (evolve(SAMPLE, prompt="a cat runs"), rest),
    ]:
        path = (Keyframe(0.0, tuple(boxes[0])),)
        assert value(spec, sample) == value(RegionClip(**options[RegionClip], path=path))
    assert value(spec, evolve(SAMPLE, prompt="a cat runs", seed=4)) is None


def test_boxes_of_another_number_of_frames_are_told(options, tmp_path):
    file = boxed(tmp_path / "boxes.json", {"boxes": [[0, 0, 1, 1]] * 3})
    with pytest.raises(JtError) as caught:
        value(RegionClip(**options[RegionClip], boxes=file))
    assert str(caught.value) == (
        f"boxes: {file!r} has 3 boxes for a video of 5 frames ('a dog runs', seed 3); expected one"
        " for each"
    )


def test_a_box_thinner_than_a_pixel_is_the_pixel_that_it_is_in(options):
    thin = (Keyframe(0.0, (0.501, 0.501, 0.502, 0.502)),)
    cut = evolve(SAMPLE, video=SAMPLE.video[:, :, 20:21, 30:31])
    expected = value(ClipImage(**options[ClipImage]), cut)
    found = value(RegionClip(**options[RegionClip], path=thin))
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "expected a list of tables with `boxes`"),
        (
            '[{"boxes": [], "frames": 3}]',
            "entry 0: unknown key 'frames'; expected boxes, prompt and seed",
        ),
        (
            '[{"boxes": [[0, 0, 1]]}]',
            "entry 0: expected `boxes` to be a list with [top, left,"
            " bottom, right] in parts of the frame, or null, for each frame",
        ),
        (
            '[{"boxes": [[0.5, 0, 0.5, 1]]}]',
            "entry 0: expected `boxes` to be a list with [top, left,"
            " bottom, right] in parts of the frame, or null, for each frame",
        ),
        (
            '[{"boxes": [], "seed": "1"}]',
            "entry 0: expected `prompt` to be text and `seed` to be a whole number",
        ),
    ],
)
def test_a_file_that_has_no_boxes_is_told_before_anything_is_measured(
    options, tmp_path, text, told
):
    file = tmp_path / "boxes.json"
    file.write_text(text)
    found = RegionDino(**options[RegionDino], boxes=str(file)).problems()
    assert found == [f"boxes: {str(file)!r}: {told}"]


def test_neither_or_both_of_boxes_and_path_are_told(options):
    told = "recipe: expected boxes (a file) or path (keyframes), one of the two"
    keyframes = [{"at": 0.0, "box": list(WHOLE)}]
    for given in ({}, {"boxes": "boxes.json", "path": keyframes}):
        with pytest.raises(JtError) as caught:
            structure(RegionClip, options[RegionClip] | given, load_plugins())
        assert caught.value.problems == (told,)
