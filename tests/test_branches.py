"""Branches of a stage that go by each other: in steps, in noise, and in frames."""

import hashlib
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from checkpoints import cogvideox
from checkpoints.unet import build_zeroscope
from torch import Tensor
from torch.nn import functional

from jtcore import JtError
from jtcore.branch import Branch, noise, run_branch
from jtcore.check import check
from jtcore.defaults import jt_choose_branches
from jtcore.engine import Engine
from jtcore.model import load_model
from jtcore.recipe import Recipe, build_recipe
from jtcore.rng import shared_random
from jtcore.run import Run
from jtcore.stream import Item, Stream
from jtcore.tables import change
from jtcore.trainer import Trainer
from jtcore.types import Step

TEXTS = {"it turns": torch.tensor([[0.5, -0.5]]), "": torch.tensor([[2.0, 3.0]])}
LORA = {"kind": "lora", "targets": "visual", "rank": 2, "dropout": 0.0}
PLAIN = {"error": {"kind": "diffusion"}}
FRAMES, PIXELS = 4, 6
DUAL = {  # as MotionDirector's paths go
    "spatial": {
        "data": ["motion"],
        "adapters": ["spatial"],
        "losses": PLAIN,
        "chance": 0.8,
        "frame": "random",
    },
    "temporal": {
        "data": ["motion"],
        "adapters": ["spatial", "temporal"],
        "trains": ["temporal"],
        "losses": PLAIN,
        "when": "spatial",
        "noise_as": "spatial",
    },
    "temporal_alone": {
        "data": ["motion"],
        "adapters": ["temporal"],
        "losses": PLAIN,
        "unless": "spatial",
    },
}


def recipe(plugins, branches: dict, **options) -> Recipe:
    table = {
        "backbone": {"kind": "tiny"},
        "data": {
            "motion": {"source": "nowhere", "size": [8, 12], "batch": 2, "frames": FRAMES},
            "still": {"source": "nowhere", "size": [8, 12], "batch": 2},
        },
        "adapter": {"spatial": LORA, "temporal": LORA},
        "stage": {"one": {"steps": 5, "lr": 0.02, "branch": branches} | options},
    }
    named = {a for b in branches.values() for a in b["adapters"]}
    table["adapter"] = {name: LORA for name in table["adapter"] if name in named}
    return build_recipe(table, plugins)


def streams() -> dict[str, Stream]:
    rng = torch.Generator().manual_seed(5)

    def stream(name: str, frames: int) -> Stream:
        clips = [torch.randn(2, 3, frames, 2, 3, generator=rng) for _ in range(3)]
        items = [Item("it turns", clip, (clip > 0).float()[:, :1]) for clip in clips]
        return Stream(name, items, 2, torch.device("cpu"))

    return {"motion": stream("motion", FRAMES), "still": stream("still", 1)}


@pytest.fixture
def prepare(plugins, tmp_path) -> Callable[..., Trainer]:
    """A trainer of these branches, whose adapters have weights that are not zero."""

    def make(branches: dict, **options) -> Trainer:
        built = recipe(plugins, branches, **options)
        engine = Engine(built.engine)
        model = load_model(built.backbone, built.adapter, TEXTS, engine, built.seed)
        for adapter in model.adapters.values():
            for parameter in adapter.parameters():
                torch.nn.init.normal_(parameter, 0, 0.5, torch.Generator().manual_seed(7))
        run = Run(tmp_path, lambda line: None)
        return Trainer(built, plugins.hook, run, model, streams(), lambda: False)

    return make


def look(trainer: Trainer, name: str, index: int = 0) -> list[Tensor]:
    """What the denoiser is told in a branch's passes: each (B, F * H * W, 3 + text + time)."""
    stage, seen = trainer.recipe.stage["one"], []
    inner = trainer.model.backbone.denoiser.inner
    handle = inner.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    for micro in range(stage.accumulate):
        run_branch(trainer.make_branch(stage, Step("one", index, stage.steps, index), name, micro))
    handle.remove()
    return seen


def branch_of(trainer: Trainer, name: str, index: int = 0) -> Branch:
    return trainer.make_branch(trainer.recipe.stage["one"], Step("one", index, 5, index), name, 0)


def chosen(built: Recipe, steps: int = 2000) -> list[tuple[str, ...]]:
    stage = built.stage["one"]
    return [
        tuple(jt_choose_branches(stage, Step("one", i, steps, i), shared_random(1, "one", i)))
        for i in range(steps)
    ]


# Which branches a step runs.


def test_a_branch_runs_in_the_steps_of_another_or_in_all_others(plugins):
    counts = Counter(chosen(recipe(plugins, DUAL)))
    assert counts.keys() == {("spatial", "temporal"), ("temporal_alone",)}
    assert counts["temporal_alone",] / 2000 == pytest.approx(0.2, abs=0.03)


def test_chains_are_followed_to_the_branch_that_has_a_chance(plugins):
    def branch(**options):
        return {"data": ["motion"], "adapters": ["spatial"], "losses": PLAIN} | options

    branches = {"c": branch(unless="b"), "b": branch(unless="a"), "a": branch(chance=0.3)}
    counts = Counter(chosen(recipe(plugins, branches)))
    assert counts.keys() == {("b",), ("c", "a")}
    assert counts["c", "a"] / 2000 == pytest.approx(0.3, abs=0.03)


def test_of_branches_that_take_turns_only_the_free_are_drawn(plugins):
    other = {**DUAL["temporal_alone"], "unless": None}
    other = {key: value for key, value in other.items() if value is not None}
    branches = {name: DUAL[name] for name in ("temporal", "spatial")} | {"other": other}
    counts = Counter(chosen(recipe(plugins, branches, select="one")))
    assert counts.keys() == {("temporal", "spatial"), ("other",)}
    assert counts["other",] / 2000 == pytest.approx(1 / 1.8, abs=0.04)


def test_choices_of_branches_that_go_by_no_other_are_the_draws_that_they_were(plugins):
    branches = {n: {**DUAL["spatial"], "chance": c} for n, c in (("a", 0.5), ("b", 0.4))}
    for steps, found in enumerate(chosen(recipe(plugins, branches), 50)):
        rng = shared_random(1, "one", steps)
        assert found == tuple(n for n, c in (("a", 0.5), ("b", 0.4)) if rng.random() < c)
    for steps, found in enumerate(chosen(recipe(plugins, branches, select="one"), 50)):
        assert [*found] == shared_random(1, "one", steps).choices(["a", "b"], [0.5, 0.4])


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            "spatial.when='temporl'",
            "spatial: expected chance, when or unless: another's steps leave no chance",
        ),
        (
            "temporal.when='temporl'",
            "temporal.when: unknown branch of the stage 'temporl'; did you mean 'temporal'?",
        ),
        ("temporal.unless='spatial'", "temporal: expected when or unless, got both"),
        ("temporal.when='temporal'", "temporal.when: goes in a circle: temporal -> temporal"),
        (
            "temporal.noise_as='spatal'",
            "temporal.noise_as: unknown branch of the stage 'spatal'; did you mean 'spatial'?",
        ),
        (
            "temporal.data=['still']",
            "temporal.data: expected ['motion'] as 'spatial' has, for its noise",
        ),
        (
            "temporal.times.skew=0.5",
            "temporal: expected times and noise with the branch that noise_as names alone",
        ),
        (
            "temporal_alone.noise_as='temporal'",
            "temporal_alone.noise_as: 'temporal' has the noise of another itself",
        ),
        ("temporal.drop_text=1.1", "temporal.drop_text: must be <= 1: 1.1"),
        (
            "spatial.losses.error.on='video'",
            "spatial.losses: none is on 'image', which data 'motion' is",
        ),
    ],
)
def test_a_problem_is_told_with_its_place(plugins, setting, problem):
    branches = change(DUAL, [setting])
    with pytest.raises(JtError) as caught:
        recipe(plugins, branches)
    assert caught.value.problems[0] == f"stage.one.branch.{problem}"


def test_a_circle_of_branches_is_told_of_each_in_it(plugins):
    settings = ["temporal.when='temporal_alone'", "temporal_alone.unless='temporal'"]
    with pytest.raises(JtError) as caught:
        recipe(plugins, change(DUAL, settings))
    place = "stage.one.branch"
    assert caught.value.problems == (
        f"{place}.temporal.when: goes in a circle: temporal -> temporal_alone -> temporal",
        f"{place}.temporal_alone.unless: goes in a circle: temporal_alone -> temporal ->"
        " temporal_alone",
    )


# What tied branches see.


def test_tied_branches_see_the_same_noised_clips_one_of_them_a_random_frame_of_each(prepare):
    trainer, drawn = prepare(DUAL), []
    for index in range(60):
        (still,), (clip,) = (look(trainer, name, index) for name in ("spatial", "temporal"))
        assert still.shape == (2, PIXELS, 6) and clip.shape == (2, FRAMES * PIXELS, 6)
        for sample in range(2):
            frames = clip[sample].unflatten(0, (FRAMES, PIXELS))
            (same,) = [k for k in range(FRAMES) if torch.equal(frames[k], still[sample])]
            drawn.append(same)
    assert all(15 < drawn.count(frame) < 45 for frame in range(FRAMES))
    assert drawn[::2] != drawn[1::2]  # each sample its own


def test_branches_that_are_not_tied_see_each_their_own(prepare):
    trainer = prepare(DUAL)
    (clip,), (alone,) = (look(trainer, name) for name in ("temporal", "temporal_alone"))
    assert not torch.isin(clip[..., 0], alone[..., 0]).any()


def test_a_tie_holds_for_every_part_and_batch_whatever_the_losses_draw(prepare):
    both = {"data": ["still", "motion"], "losses": {"error": {"kind": "ait"}}}
    branches = {
        "first": DUAL["temporal_alone"] | both | {"times": {"skew": 0.5}},
        "second": DUAL["temporal_alone"] | both | {"noise_as": "first", "losses": PLAIN},
    }
    for branch in branches.values():
        del branch["unless"]
    trainer = prepare(branches, accumulate=2)
    first, second = (look(trainer, name, 3) for name in ("first", "second"))
    assert len(first) == len(second) == 4
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_without_a_tie_a_branch_draws_what_it_drew_before(prepare):
    alone = {"only": {key: DUAL["temporal"][key] for key in ("data", "adapters", "losses")}}
    trainer = prepare(alone)
    (seen,) = look(trainer, "only", 2)
    rng = torch.Generator().manual_seed(_seed(0, "one", "only", 2))
    part = streams()["motion"].part((0, "one"), 2, rng, TEXTS)
    times = torch.rand(2, generator=rng)
    noise = torch.randn(part.latents.shape, generator=rng)
    mixed = torch.lerp(part.latents, noise, times.view(-1, 1, 1, 1, 1))
    assert torch.equal(seen[..., :3], mixed.flatten(2).transpose(1, 2))
    assert torch.equal(seen[:, 0, 5], times)


def _seed(*path) -> int:
    digest = hashlib.sha256("\0".join(map(str, path)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def test_masks_go_with_their_random_frames(prepare):
    masked = {"error": {"kind": "diffusion", "masked": "area"}}
    branches = {"spatial": {**DUAL["spatial"], "losses": masked}}
    branch = branch_of(prepare(branches), "spatial")
    part, noised = noise(branch, branch.parts[0])
    assert part.medium == "image" and noised.target.shape == part.latents.shape
    assert torch.equal(part.mask, (part.latents > 0).float()[:, :1])


# One step of two passes, written out.


def forward(denoiser, weights: dict[str, list[tuple[Tensor, Tensor]]], x: Tensor) -> Tensor:
    def linear(name: str, x: Tensor) -> Tensor:
        layer = getattr(denoiser, name)
        y = functional.linear(x, layer.weight, layer.bias)
        return y + sum(x @ down.T @ up.T for down, up in weights[name])

    return linear("outer", linear("inner", x).tanh())


def test_the_two_passes_train_each_its_own_adapter_on_the_same_noise(prepare):
    trainer = prepare(DUAL)
    denoiser, adapters = trainer.model.backbone.denoiser, trainer.model.adapters
    (still,), (clip,) = (look(trainer, name, 1) for name in ("spatial", "temporal"))
    branches = [branch_of(trainer, name, 1) for name in ("spatial", "temporal")]
    targets = [
        noise(branch, branch.parts[0])[1].target.flatten(2).transpose(1, 2) for branch in branches
    ]
    leaves = {
        name: {n: p.detach().clone().requires_grad_() for n, p in adapter.named_parameters()}
        for name, adapter in adapters.items()
    }

    def on(*names: str) -> dict[str, list[list[Tensor]]]:
        return {
            layer: [[leaves[a][f"{layer}.{half}.weight"] for half in ("down", "up")] for a in names]
            for layer in ("inner", "outer")
        }

    error = (forward(denoiser, on("spatial"), still) - targets[0]).square().mean()
    expected = torch.autograd.grad(error, list(leaves["spatial"].values()))
    error = (forward(denoiser, on("spatial", "temporal"), clip) - targets[1]).square().mean()
    expected += torch.autograd.grad(error, list(leaves["temporal"].values()))

    for adapter in adapters.values():
        adapter.zero_grad()
    for name in ("spatial", "temporal"):
        run_branch(branch_of(trainer, name, 1))
    found = [p.grad for name in adapters for p in adapters[name].parameters()]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_the_pass_over_whole_clips_leaves_no_gradient_on_the_frozen_adapter(prepare):
    trainer = prepare(DUAL)
    look(trainer, "temporal")
    adapters = trainer.model.adapters
    assert all(parameter.grad is None for parameter in adapters["spatial"].parameters())
    assert all(parameter.grad is not None for parameter in adapters["temporal"].parameters())


def test_a_regularisation_that_weighs_nothing_is_none(prepare):
    """Videos of other motions, of which NewMove adds the loss."""
    alone = {"motion": {key: DUAL["temporal"][key] for key in ("data", "adapters", "losses")}}
    alone["motion"] |= {"times": {"skew": 0.5}}
    other = {"error": {"kind": "diffusion", "weight": 0}}
    both = alone | {"regularisation": alone["motion"] | {"losses": other}}
    trained = []
    for branches in (alone, both, both | {"regularisation": alone["motion"]}):
        trainer = prepare(branches, steps=4)
        (trainer.run.folder / "adapters").mkdir(exist_ok=True)
        trainer.train_stage("one", 0, None)
        adapters = trainer.model.adapters.values()
        trained.append(torch.cat([p.detach().flatten() for a in adapters for p in a.parameters()]))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


# Captions that are dropped.


def test_captions_are_dropped_with_their_chance_and_the_adapters_hear_it(prepare):
    branch = {**DUAL["temporal_alone"], "drop_text": 0.3}
    del branch["unless"]
    trainer, heard = prepare({"only": branch}), []
    adapter = trainer.model.adapters["temporal"]
    adapter.told = lambda text, prompts: (heard.extend(prompts), text)[1]
    texts = torch.cat([each[:, 0, 3:5] for i in range(400) for each in look(trainer, "only", i)])
    dropped = (texts == TEXTS[""]).all(1)
    assert dropped.double().mean().item() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(texts[~dropped], TEXTS["it turns"].expand(int((~dropped).sum()), -1))
    assert heard == ["" if gone else "it turns" for gone in dropped.tolist()]
    assert 0.3 < (dropped[::2] == dropped[1::2]).double().mean() < 0.75  # each of its own accord


def test_a_run_embeds_the_empty_caption_where_one_is_dropped(table, jt_run):
    settings = ["stage.joint.branch.joint.drop_text=0.5", "sample=false", "metric=false"]
    out = jt_run(change(table, settings))
    assert (out / "adapters/joint.safetensors").is_file()


# Frames of codecs that have none.


def test_a_random_frame_of_latents_that_hold_several_is_refused_with_the_cure(
    table, plugins, tmp_path
):
    table["data"]["motion"] |= {"frames": 9, "size": [32, 32], "short": "repeat"}
    table["data"]["subject"] |= {"size": [32, 32]}
    table["stage"]["joint"]["branch"]["joint"] |= {"frame": "random", "losses": PLAIN}
    table["sample"] |= {"frames": 9, "size": [32, 32]}
    unet, dit = build_zeroscope(tmp_path / "unet"), cogvideox.build(tmp_path / "dit", "5b")
    table["backbone"] = {"kind": "zeroscope", "weights": str(unet)}
    check(build_recipe(table, plugins))
    table["backbone"] = {"kind": "cogvideox", "weights": str(dit)}
    with pytest.raises(JtError) as caught:
        check(build_recipe(table, plugins))
    assert caught.value.problems == (
        "stage.joint.branch.joint.frame: this backbone makes 3 latent frames of 9, so none is a"
        " frame; give the branch a table of data.motion's source with frames = 1 and clips = 9,"
        " which draws single ones",
    )
