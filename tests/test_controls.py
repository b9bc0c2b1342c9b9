"""Controls of sampling: boxes and moving pictures, against their equations and in whole samples."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import cogvideox
from checkpoints.unet import build_zeroscope
from checkpoints.wan import build_wan
from torch import Tensor

from jtcore import JtError, cli
from jtcore.controls import Control, Held, Walk
from jtcore.engine import Engine
from jtcore.model import Model
from jtcore.plugins import load_plugins
from jtcore.recipe import Sampling
from jtcore.sample import denoise, requests
from jtcore.scales import Moment
from jtcore.settings import EngineSettings
from jtcore.structure import structure
from jtcore.types import BackboneSpec
from jtcore.words import finder
from jtplugins.backbones.cogvideox import CogVideoX
from jtplugins.backbones.pocket import Pocket
from jtplugins.backbones.wan import Wan
from jtplugins.backbones.zeroscope import ZeroScope
from jtplugins.controls.box_attention import NEVER, BoxAttention
from jtplugins.controls.latent_shift import LatentShift

CPU = torch.device("cpu")
PROMPT, OTHER = "a wug moves left", "the wug turns"
LEFT = [{"at": 0.0, "box": [0.0, 0.0, 1.0, 0.5]}]
BUILDERS: dict[str, Callable[[Path], BackboneSpec]] = {
    "pocket": lambda folder: Pocket("random"),
    "cogvideox": lambda folder: CogVideoX(str(cogvideox.build(folder, "5b"))),
    "cogvideox_pairs": lambda folder: CogVideoX(str(cogvideox.build(folder, "1.5"))),
    "zeroscope": lambda folder: ZeroScope(str(build_zeroscope(folder))),
    "wan": lambda folder: Wan(str(build_wan(folder))),
}
SIZES = {"pocket": (4, 24, 24), "zeroscope": (3, 32, 48)}  # else 9 frames of 32x48 px


def walk(frames: int = 8, shape=(8, 4, 4), size=(24, 24), steps: int = 20, first: int = 0) -> Walk:
    moments = [Moment(i, i / steps, 1 - i / steps, float(i)) for i in range(steps)]
    words = {"wug": (1,), "ball": (3,), PROMPT: (0, 1, 2, 3)}
    return Walk(
        PROMPT, words.__getitem__, moments, frames, size, shape, first, torch.zeros(shape[0], 2)
    )


def box(**options) -> BoxAttention:
    table = {"phrase": "wug", "path": LEFT, **options}
    return structure(BoxAttention, table, load_plugins())


def bias(scores, shape, tokens: int = 5) -> Tensor:  # (F, H, W, tokens)
    total = torch.zeros(*shape, tokens)
    for amount, places in scores:
        total[..., list(places)] += amount[..., None]
    return total


# Boxes


def test_attention_in_the_box_is_raised_by_the_share_of_the_frame_outside_of_it():
    control = box(suppress="none").begin(walk())
    found = bias(control.scores(0, (8, 4, 4), 1), (8, 4, 4))
    expected = torch.zeros(8, 4, 4, 5)
    expected[:, :, :2, 1] = 7.5 * (1 - 8 / 16)
    assert torch.equal(found, expected)


def test_it_is_raised_until_a_moment_and_the_phrase_is_suppressed_outside_in_all_steps():
    control = box(until=2).begin(walk())
    early, late = (bias(control.scores(step, (8, 4, 4), 1), (8, 4, 4)) for step in (1, 2))
    for found in (early, late):
        assert (found[:, :, 2:, 1] == NEVER).all()
        assert not found[..., [0, 2, 3, 4]].any()
    assert (early[:, :, :2, 1] == 3.75).all() and not late[:, :, :2, 1].any()


def test_of_the_whole_prompt_only_phrases_in_their_boxes_are_left():
    shared = walk()
    first = box(suppress="prompt", until=0).begin(shared)
    second = box(phrase="ball", path=[{"at": 0, "box": [0, 0.5, 1, 1]}], until=0).begin(shared)
    scores = [*first.scores(3, (8, 4, 4), 1), *second.scores(3, (8, 4, 4), 1)]
    found = bias(scores, (8, 4, 4))
    expected = torch.full((8, 4, 4, 5), float(NEVER))
    expected[:, :, :2, 1] = expected[:, :, 2:, 3] = 0
    expected[..., 4] = 0  # the end of the sentence
    assert torch.equal(found, expected)


def test_boxes_move_from_keyframe_to_keyframe():
    path = [{"at": 0, "box": [0, 0, 0.25, 0.25]}, {"at": 1, "box": [0.75, 0.75, 1, 1]}]
    control = box(path=path, suppress="none").begin(walk(frames=4, shape=(4, 4, 4)))
    ((amount, _),) = control.scores(0, (4, 4, 4), 1)
    expected = torch.diag_embed(torch.eye(4)) * 7.5 * 15 / 16
    assert torch.equal(amount, torch.stack([expected[i] for i in range(4)]))


def test_a_latent_frame_has_the_boxes_of_all_its_frames():
    path = [{"at": 0, "box": [0, 0, 1, 0.1]}, {"at": 1, "box": [0, 0.9, 1, 1]}]
    control = box(path=path, suppress="none").begin(
        walk(frames=9, shape=(3, 10, 10), size=(80, 80))
    )
    ((amount, _),) = control.scores(0, (3, 10, 10), 1)
    columns = [(frame > 0).any(0).nonzero()[:, 0].tolist() for frame in amount]
    assert columns == [[0], [1, 2, 3, 4], [5, 6, 7, 8, 9]] or columns == [
        [0],
        [1, 2, 3, 4],
        [6, 7, 8, 9],
    ]


def test_tokens_of_several_latent_frames_have_the_boxes_of_all():
    path = [{"at": 0, "box": [0, 0, 1, 0.25]}, {"at": 1, "box": [0, 0.75, 1, 1]}]
    shared = walk(frames=4, shape=(4, 4, 4))
    control = box(path=path, suppress="none").begin(shared)
    ((amount, _),) = control.scores(0, (2, 4, 4), 2)
    columns = [(frame > 0).any(0).nonzero()[:, 0].tolist() for frame in amount]
    assert columns == [[0, 1], [2, 3]]


def test_a_small_box_is_one_token_and_one_outside_of_the_frame_is_none():
    small, gone = ([{"at": 0, "box": [t, t, t + 0.02, t + 0.02]}] for t in (0.5, 1.2))
    ((amount, _),) = box(path=small, suppress="none").begin(walk()).scores(0, (8, 4, 4), 1)
    assert (amount > 0).flatten(1).sum(1).tolist() == [1] * 8 and (amount[:, 2, 2] > 0).all()
    ((amount, _),) = box(path=gone, suppress="none").begin(walk()).scores(0, (8, 4, 4), 1)
    assert not amount.any()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"path": [{"at": 0, "box": [0, 0.5, 1, 0.5]}]},
            "path[0].box: expected [top, left, bottom",
        ),
        ({"path": [*LEFT, *LEFT]}, "path: expected rising `at`, got [0.0, 0.0]"),
        ({"path": [{"at": 1.5, "box": [0, 0, 1, 1]}]}, "path[0].at: "),
        ({"unit": "steps"}, "unit: expected 'step' or "),
        ({"suppress": "all"}, "suppress: expected 'prompt' or 'phrase' or 'none', got 'all' (str)"),
    ],
)
def test_an_impossible_box_is_refused(options, problem):
    with pytest.raises(JtError) as caught:
        box(**options)
    assert caught.value.problems[0].startswith(problem)


# Moving pictures


def shifted(control: Control, latents: Tensor, steps: int = 20, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    for index in range(steps):
        latents = control.move(index, latents, rng)
    return latents


def numbered(shape) -> Tensor:  # (2, F, H, W): row and column of each
    _, height, width = shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns])[:, None].expand(-1, shape[0], -1, -1).float().clone()


@pytest.mark.parametrize(("right", "down"), [(96, 0), (-96, 0), (0, 64), (45, -77), (-5, 3)])
def test_each_frame_has_come_as_far_as_the_speed_says(right, down):
    shape, size = (8, 12, 16), (96, 128)
    control = LatentShift(right=right, down=down).begin(shared := walk(8, shape, size))
    moved = shifted(control, numbered(shape))
    for frame in range(8):
        dx, dy = (round(speed / 8 * frame / 8) for speed in (right, down))
        assert shared.moved[frame].tolist() == [dy, dx]
        rows = range(max(dy, 0), 12 + min(dy, 0))
        columns = range(max(dx, 0), 16 + min(dx, 0))
        inside = moved[:, frame][:, rows][:, :, columns]
        expected = numbered(shape)[:, frame][:, [r - dy for r in rows]][
            :, :, [c - dx for c in columns]
        ]
        assert torch.equal(inside, expected)


def test_it_comes_there_little_by_little_within_its_steps():
    control = LatentShift(right=128, between=(5, 9)).begin(shared := walk(8, (8, 4, 16), (32, 128)))
    rng, latents, came = torch.Generator(), numbered((8, 4, 16)), []
    for index in range(12):
        latents = control.move(index, latents, rng)
        came.append(int(shared.moved[-1, 1]))
    whole = 128 / 8 * 7 / 8
    parts = [round(whole * k / 4) for k in (1, 2, 3, 4)]
    assert came == [0] * 5 + parts + [parts[-1]] * 3


def test_what_is_laid_bare_is_of_the_same_row_and_of_no_box():
    shape = (8, 12, 16)
    shared = walk(8, shape, (96, 128))
    held = torch.zeros(shape, dtype=torch.bool)
    held[:, :, 4:12] = True
    shared.held.append(Held(lambda: held, ()))
    control = LatentShift(right=40, between=(10, 11)).begin(shared)
    moved = shifted(control, numbered(shape))
    for frame in range(8):
        dx = round(5 * frame / 8)
        rows, columns = moved[:, frame, :, :dx]
        assert torch.equal(rows, torch.arange(12.0)[:, None].expand(-1, dx))
        assert all(not 4 <= column < 12 for column in columns.flatten().tolist())
        assert all(len(set(row.tolist())) == dx for row in columns)


def test_where_nothing_is_outside_of_the_box_the_row_is_drawn_from_as_a_whole():
    shape = (8, 4, 6)
    shared = walk(8, shape, (32, 48))
    shared.held.append(Held(lambda: torch.ones(shape, dtype=torch.bool), ()))
    moved = shifted(LatentShift(right=480).begin(shared), numbered(shape))
    assert moved.isfinite().all()
    assert torch.equal(moved[0], numbered(shape)[0])


def test_a_shift_of_nothing_is_the_same_latents_and_draws_nothing():
    latents, rng = torch.randn(4, 8, 4, 4), torch.Generator().manual_seed(3)
    before = rng.get_state()
    control = LatentShift().begin(walk(steps=5))  # none of which is between 10 and 20
    assert all(control.move(index, latents, rng) is latents for index in range(20))
    assert torch.equal(rng.get_state(), before)


def test_boxes_move_along():
    shared = walk(8, (8, 4, 16), (32, 128))
    control = box(suppress="none", path=[{"at": 0, "box": [0, 0, 1, 0.25]}]).begin(shared)
    shifted(LatentShift(right=64, between=(0, 4)).begin(shared), numbered((8, 4, 16)))
    ((amount, _),) = control.scores(4, (8, 4, 16), 1)
    found = [(frame > 0).any(0).nonzero()[:, 0].tolist() for frame in amount]
    assert found == [[*range(round(8 * f / 8), round(8 * f / 8) + 4)] for f in range(8)]


def test_latents_of_a_causal_codec_move_as_their_last_frame():
    shared = walk(9, (3, 4, 16), (32, 128))
    LatentShift(right=72).begin(shared)
    shifted(LatentShift(right=72).begin(shared), numbered((3, 4, 16)))
    assert shared.moved[:, 1].tolist() == [0, round(9 * 4 / 9), round(9 * 8 / 9)]


def test_a_time_without_a_step_is_refused():
    with pytest.raises(JtError, match=r"^none of 5 steps is between 10 and 20 in step; change"):
        LatentShift(right=8).begin(walk(steps=5))


# Whole samples


@pytest.fixture(scope="module", params=BUILDERS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def spec(name, tmp_path_factory) -> BackboneSpec:
    return BUILDERS[name](tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def sampled(name, spec) -> Callable[..., Tensor]:
    """Latents of a prompt, or of several at once, under controls."""
    frames, *size = SIZES.get(name, (9, 32, 48))
    backbone = spec.load(CPU, torch.float32)
    prompts = (PROMPT, OTHER)
    encoder = spec.load_text_encoder(CPU)
    texts = {prompt: encoder.embed([prompt])[0] for prompt in (*prompts, "")}
    words = finder(spec, {})
    model = Model(backbone, {}, texts, Engine(EngineSettings(device="cpu")), words=words)

    def sample(*asked: str, guidance: float = 3.0, **controls) -> Tensor:
        table = {"prompts": list(asked or [PROMPT]), "frames": frames, "size": size}
        table |= {"steps": 3, "guidance": guidance, "control": controls}
        settings = structure(Sampling, table, load_plugins())
        shape = spec.latent_shape(frames, *size)
        return denoise(list(requests(settings, {})), settings, model, shape)

    return sample


BOX = {"kind": "box_attention", "phrase": "wug", "path": LEFT}
SHIFT = {"kind": "latent_shift", "right": 32, "between": [0, 3]}


def test_without_boxes_and_without_speed_samples_are_bit_identical(sampled):
    empty = sampled(box={**BOX, "path": []}, shift={**SHIFT, "right": 0})
    assert torch.equal(empty, sampled())


def test_a_box_and_a_shift_change_a_sample(sampled):
    plain = sampled()
    assert (sampled(box=BOX) - plain).abs().max() > 1e-4
    assert (sampled(shift=SHIFT) - plain).abs().max() > 1e-2


def test_only_the_prompted_half_is_led(sampled):
    assert torch.equal(
        sampled(guidance=0.0, box=BOX), sampled(guidance=0.0)
    )  # the other half alone
    assert (sampled(guidance=1.0, box=BOX) - sampled(guidance=1.0)).abs().max() > 1e-4


def test_in_company_each_video_is_led_as_it_is_alone(sampled):
    both = {"box": BOX, "shift": SHIFT}
    together = sampled(PROMPT, OTHER, **both)
    alone = torch.cat([sampled(prompt, **both) for prompt in (PROMPT, OTHER)])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-3)


# Runs and commands


@pytest.fixture
def led(table) -> dict:
    table["backbone"] = {"kind": "pocket"}
    table["sample"] |= {"prompts": ["a wug moves left"], "steps": 3}
    table["sample"]["control"] = {
        "box": BOX,
        "camera": {**SHIFT, "unit": "fraction", "between": [0, 1]},
    }
    return table


def test_a_run_is_led_and_says_so_and_jt_sample_leads_alike(led, jt_run, tmp_path, capsys):
    run = jt_run(led)
    entries = json.loads((run / "metrics.json").read_text())["samples"]
    control = entries[0]["control"]
    assert list(control) == ["box", "camera"] and control["box"]["path"] == LEFT
    again = [str(run), "--prompt", "a wug moves left", "--quiet", "--out"]
    assert cli.sample([*again, str(tmp_path / "same")]) == 0, capsys.readouterr().err
    video = "adapted/00-seed0.mp4"
    assert (tmp_path / "same" / video).read_bytes() == (run / "samples" / video).read_bytes()
    off = ["--control", "box=false", "--control", "camera=false"]
    assert cli.sample([*again, str(tmp_path / "off"), *off]) == 0, capsys.readouterr().err
    assert "control" not in json.loads((tmp_path / "off/samples.json").read_text())[0]
    assert (tmp_path / "off" / video).read_bytes() != (tmp_path / "same" / video).read_bytes()
    other = "camera={kind='latent_shift', down=40, unit='fraction', between=[0, 0.5]}"
    command = [*again, str(tmp_path / "other"), "--control", other]
    assert cli.sample(command) == 0, capsys.readouterr().err
    told = json.loads((tmp_path / "other/samples.json").read_text())[0]["control"]["camera"]
    assert (told["down"], told["right"]) == (40, 0)


def test_what_cannot_be_led_is_told_before_training(led, write_recipe, capsys):
    led["sample"]["prompts"].append("a ball moves left")
    led["sample"]["control"]["camera"] |= {"unit": "step", "between": [10, 20]}
    assert cli.run([str(write_recipe(led)), "--check"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert (
        "sample.control.box: the prompt 'a ball moves left' does not have the phrase 'wug'" in told
    )
    late = "none of 3 steps is between 10 and 20 in step; change `between`"
    assert f"sample.control.camera: {late}" in told


def test_a_backbone_that_shows_no_attention_can_only_be_moved(led, write_recipe, capsys):
    led["backbone"] = {"kind": "tiny"}
    assert cli.run([str(write_recipe(led)), "--check"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "sample.control.box: this backbone does not say which tokens of a prompt spell a phrase"
    ]


def test_a_phrase_that_the_prompt_of_a_sample_has_not_is_told_by_jt_sample(
    led, jt_run, tmp_path, capsys
):
    run = jt_run(led)
    command = [str(run), "--prompt", "a ball moves left", "--out", str(tmp_path / "other")]
    assert cli.sample(command) == 2
    told = "--control.box: the prompt 'a ball moves left' does not have the phrase 'wug'"
    assert told in capsys.readouterr().err
