"""Training against a plain loop that is written out here, and what it promises besides."""

import shutil
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from jtcore import JtError, hookimpl
from jtcore.checkpoint import newest_checkpoint
from jtcore.engine import Engine
from jtcore.model import Model, load_model
from jtcore.plugins import Plugins
from jtcore.recipe import Recipe, Stage, build_recipe
from jtcore.rng import generator, shared_random
from jtcore.run import Run
from jtcore.stream import Item, Stream
from jtcore.trainer import Trainer

TEXTS = {"a wug": torch.tensor([[0.25, 0.75]]), "it turns": torch.tensor([[0.5, -0.5]])}
SUBJECT = {
    "data": ["subject"],
    "adapters": ["first"],
    "losses": {"error": {"kind": "diffusion"}},
}
MOTION = {
    "data": ["subject", "motion"],
    "adapters": ["first", "second"],
    "losses": {
        "image": {"kind": "diffusion", "on": "image", "weight": 0.5},
        "video": {"kind": "ait", "on": "video", "weight": 2.0},
        "any": {"kind": "diffusion"},
    },
}


def stage(subject: Mapping = {}, motion: Mapping = {}, **options) -> dict:
    """Two branches over two adapters"""
    branches = {"subject": SUBJECT | subject, "motion": MOTION | motion}
    return {"steps": 5, "lr": 0.02, "branch": branches} | options


def recipe(plugins: Plugins, *stages: dict, **changes) -> Recipe:
    adapter = {"kind": "lora", "targets": "visual", "rank": 2, "dropout": 0.0}
    clip = {"source": "nowhere", "size": [8, 12], "batch": 2}
    table = {
        "seed": 3,
        "backbone": {"kind": "tiny"},
        "data": {"subject": clip, "motion": {**clip, "frames": 3}},
        "adapter": dict.fromkeys(adapters(stages), adapter),
        "stage": {f"stage{number}": each for number, each in enumerate(stages)},
    }
    return build_recipe(table | changes, plugins)


def adapters(stages: Sequence[dict]) -> list[str]:
    return sorted({a for s in stages for b in s["branch"].values() for a in b["adapters"]})


def streams() -> dict[str, Stream]:
    rng = torch.Generator().manual_seed(5)

    def stream(name: str, prompt: str, files: int, frames: int) -> Stream:
        items = [
            Item(prompt, torch.randn(2, 3, frames, 2, 3, generator=rng), None) for _ in range(files)
        ]
        return Stream(name, items, 2, torch.device("cpu"))

    return {
        "subject": stream("subject", "a wug", 3, 1),
        "motion": stream("motion", "it turns", 2, 3),
    }


@frozen(eq=False)
class Recorder:
    """An observer that keeps what it is told."""

    scalars: list[dict[str, float]] = field(factory=list)

    @hookimpl
    def jt_step_finished(self, scalars):
        self.scalars.append(dict(scalars))


@frozen(eq=False)
class Training:
    """A model with weights that are not zero, and what became of it."""

    model: Model
    trainer: Trainer
    before: dict[str, Tensor]
    recorder: Recorder

    def train(self) -> "Training":
        self.trainer.train()
        return self

    @property
    def weights(self) -> dict[str, Tensor]:
        return weights(self.model)

    def column(self, name: str) -> list[float]:
        return [scalars[name] for scalars in self.recorder.scalars if name in scalars]


def weights(model: Model) -> dict[str, Tensor]:
    """Copies of all trained weights, by adapter and name."""
    return {
        f"{owner}/{name}": parameter.detach().clone()
        for owner, adapter in model.adapters.items()
        for name, parameter in adapter.named_parameters()
    }


@pytest.fixture
def prepare(tmp_path, plugins) -> Callable[..., Training]:
    def make(*stages: dict, plugins: Plugins = plugins, name: str = "run", **changes) -> Training:
        built = recipe(plugins, *stages, **changes)
        model = load_model(
            built.backbone, built.adapter, TEXTS, Engine(built.engine), seed=built.seed
        )
        rng = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for adapter in model.adapters.values():
                for parameter in adapter.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=rng) / 2)
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, lambda line: None)
        recorder = Recorder()
        for old in [p for p in plugins.manager.get_plugins() if isinstance(p, Recorder)]:
            plugins.manager.unregister(old)
        plugins.manager.register(recorder)
        trainer = Trainer(built, plugins.hook, run, model, streams(), lambda: False)
        return Training(model, trainer, weights(model), recorder)

    return make


# The same training, written out.


def plain_loop(before: Mapping[str, Tensor], model: Model, stage: Stage, rates: list[float]):
    """What `stage0` should make of the weights, and the gradient norms on the way."""
    trained = {name: value.clone().requires_grad_() for name, value in before.items()}
    optimizer = torch.optim.AdamW(
        trained.values(), betas=stage.betas, eps=stage.eps, weight_decay=stage.weight_decay
    )
    average = {name: value.detach().clone() for name, value in trained.items()}
    norms = []
    for index, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        gradients = plain_gradients(trained, model, stage, index)
        for name, weight in trained.items():
            weight.grad = gradients.get(name)
        norm = torch.cat([g.flatten() for g in gradients.values()]).norm() if gradients else 0
        norms.append(float(norm))
        if stage.clip and norm > stage.clip:
            for gradient in gradients.values():
                gradient.mul_(stage.clip / norm)
        optimizer.step()
        for name, weight in trained.items():
            average[name] = average[name] * (stage.ema or 0) + weight.detach() * (
                1 - (stage.ema or 0)
            )
    return (average if stage.ema else trained), norms


def plain_gradients(trained: Mapping[str, Tensor], model: Model, stage: Stage, index: int):
    """By name, of the weights that take part in this step."""
    chance = shared_random(3, "stage0", index)
    if stage.select == "one":
        chances = [branch.chance for branch in stage.branch.values()]
        chosen = chance.choices(list(stage.branch), chances)
    else:
        chosen = [name for name in stage.branch if chance.random() < stage.branch[name].chance]
    sums: dict[str, Tensor] = {}
    for name in chosen:
        branch = stage.branch[name]
        mine = {n: w for n, w in trained.items() if n.split("/")[0] in branch.trained}
        for micro in range(stage.accumulate):
            draw = index * stage.accumulate + micro
            rng = generator(3, "stage0", name, draw)
            parts = [streams()[s].part((3, "stage0"), draw, rng, TEXTS) for s in branch.data]
            for part in parts:
                loss = plain_loss(trained, model, branch, part, rng) / stage.accumulate
                found = torch.autograd.grad(loss, list(mine.values()))
                for key, gradient in zip(mine, found, strict=True):
                    sums[key] = sums[key] + gradient if key in sums else gradient
    return sums


def plain_loss(trained, model: Model, branch, part, rng) -> Tensor:
    noised = model.backbone.noise(part.latents, rng)
    output = plain_forward(trained, model.backbone.denoiser, branch.adapters, noised, part.text)
    error = ((output - noised.target) ** 2).mean()
    if branch.losses.keys() == {"error"}:
        return error
    if part.latents.shape[2] == 1:
        return 0.5 * error + error
    batch, _, _, height, width = output.shape
    shift = torch.randn(batch, 1, 1, height, width, generator=rng)
    return 2 * ((output + shift - noised.target) ** 2).mean() + error


def plain_forward(trained, denoiser, adapters, noised, text) -> Tensor:  # (B, 3, F, H, W)
    def linear(name: str, x: Tensor) -> Tensor:
        layer = getattr(denoiser, name)
        y = functional.linear(x, layer.weight, layer.bias)
        for adapter in adapters:
            down, up = (trained[f"{adapter}/{name}.{half}.weight"] for half in ("down", "up"))
            y = y + x @ down.T @ up.T
        return y

    pixels = noised.latents.permute(0, 2, 3, 4, 1)  # (B, F, H, W, 3)
    told = torch.cat([text[:, 0], noised.times[:, None]], 1)[:, None, None, None]
    x = torch.cat([pixels, told.expand(*pixels.shape[:4], -1)], 4)
    return linear("outer", linear("inner", x).tanh()).permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        pytest.param(stage(), [1, 1, 1, 1, 1], id="two branches"),
        pytest.param(stage(accumulate=3), [1, 1, 1, 1, 1], id="accumulation"),
        pytest.param(stage(clip=0.05), [1, 1, 1, 1, 1], id="clipping"),
        pytest.param(stage(clip=0, betas=[0, 0], eps=10.0), [1, 1, 1, 1, 1], id="no clipping"),
        pytest.param(
            stage(warmup=2, schedule="linear"), [0.5, 1, 1, 2 / 3, 1 / 3], id="warm-up, linear"
        ),
        pytest.param(
            stage(warmup=1, schedule="cosine"), [1, 1, 0.8535534, 0.5, 0.1464466], id="cosine"
        ),
        pytest.param(stage(ema=0.75), [1, 1, 1, 1, 1], id="moving average"),
        pytest.param(stage(select="one"), [1, 1, 1, 1, 1], id="one branch a step"),
        pytest.param(
            stage(select="one", subject={"chance": 0.1}), [1, 1, 1, 1, 1], id="one, by chance"
        ),
        pytest.param(
            stage(subject={"chance": 0.5}, motion={"chance": 0.4}), [1, 1, 1, 1, 1], id="chances"
        ),
        pytest.param(
            stage(motion={"trains": ["second"]}), [1, 1, 1, 1, 1], id="an adapter on, but frozen"
        ),
        pytest.param(
            stage(betas=[0.5, 0.9], eps=1e-3, weight_decay=0.3), [1, 1, 1, 1, 1], id="AdamW"
        ),
    ],
)
def test_a_stage_is_the_plain_loop(prepare, options, rates):
    training = prepare(options, name="run").train()
    built = training.trainer.recipe.stage["stage0"]
    rates = [0.02 * rate for rate in rates]

    expected, norms = plain_loop(training.before, training.model, built, rates)

    assert training.column("stage.stage0.lr") == pytest.approx(rates)
    assert training.column("stage.stage0.grad_norm") == pytest.approx(norms, rel=1e-4)
    for name, weight in training.weights.items():
        torch.testing.assert_close(weight, expected[name].detach(), rtol=1e-4, atol=1e-6)


def test_a_frozen_adapter_that_is_on_keeps_its_weights_and_shapes_the_others(prepare):
    alone = stage(motion={"adapters": ["second"]})
    both = stage(motion={"trains": ["second"]})
    for options in (alone, both):
        del options["branch"]["subject"]
    first_stage = {"steps": 1, "lr": 1e-9, "branch": {"subject": SUBJECT}}

    alone = prepare(first_stage, alone, name="alone").train()
    both = prepare(first_stage, both, name="both").train()

    of = {n for n in both.before if n.startswith("first/")}
    for name in of:
        torch.testing.assert_close(both.weights[name], both.before[name], rtol=0, atol=1e-8)
    assert all(not torch.equal(alone.weights[n], both.weights[n]) for n in both.before.keys() - of)


def test_gradients_are_wanted_again_after_a_branch_that_freezes(prepare):
    training = prepare(stage(motion={"trains": ["second"]})).train()

    parameters = [p for a in training.model.adapters.values() for p in a.parameters()]
    assert all(parameter.requires_grad for parameter in parameters)


def test_stages_count_steps_on_and_save_what_they_train(prepare, tmp_path):
    only = {"branch": {"subject": SUBJECT}}
    second = {**SUBJECT, "adapters": ["second"]}
    training = prepare(
        stage(steps=2) | only, {"steps": 3, "lr": 0.1, "branch": {"subject": second}}
    ).train()

    assert training.column("stage.stage0.lr") == [0.02, 0.02]
    assert training.column("stage.stage1.lr") == [0.1, 0.1, 0.1]
    assert newest_checkpoint(tmp_path / "run/checkpoints", print).position.number == 5
    saved = sorted(path.name for path in (tmp_path / "run/adapters").iterdir())
    assert saved == ["first.safetensors", "second.safetensors"]


def test_a_loss_is_plotted_unweighted_under_its_path(prepare):
    training = prepare(
        stage(
            steps=1,
            motion={
                "data": ["motion"],
                "losses": {
                    "heavy": {"kind": "diffusion", "weight": 1000.0},
                    "light": {"kind": "diffusion", "weight": 0.0},
                },
            },
        )
    ).train()

    (heavy,) = training.column("stage.stage0.branch.motion.losses.heavy")
    (light,) = training.column("stage.stage0.branch.motion.losses.light")
    assert heavy == light > 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_to_nearly_the_same(prepare, precision):
    exact = prepare(stage(), name="exact").train()
    half = prepare(stage(), name="half", engine={"precision": precision, "device": "cpu"})
    scaler = half.model.engine.scaler
    scaler.load_state_dict(scaler.state_dict() and scaler.state_dict() | {"scale": 256.0})
    half.train()

    assert half.model.backbone.denoiser.inner.weight.dtype == half.model.engine.dtype
    assert {weight.dtype for weight in half.weights.values()} == {torch.float32}
    for name, weight in half.weights.items():
        moved, expected = weight - half.before[name], exact.weights[name] - exact.before[name]
        assert torch.cosine_similarity(moved.flatten(), expected.flatten(), 0) > 0.95
        assert not torch.equal(moved, expected)


def test_gradient_checkpointing_changes_no_weight(prepare):
    plain = prepare(stage(), name="plain").train()
    saving = prepare(stage(), name="saving", engine={"gradient_checkpointing": True})
    runs = []
    saving.model.backbone.denoiser.inner.register_forward_pre_hook(
        lambda *_: runs.append(torch._C._current_graph_task_id() >= 0)
    )
    saving.train()

    assert runs.count(True) == runs.count(False) > 0  # once in forward and once in backward
    for name, weight in saving.weights.items():
        assert torch.equal(weight, plain.weights[name])


LATE = """
    from attrs import frozen
    from jtcore import hookimpl

    calls = 0

    @frozen
    class Late:
        "Not finite from some call on"

        good: int
        value: str

        def __call__(self, prediction, noised, part, rng):
            global calls
            calls += 1
            factor = 1.0 if calls <= self.good else float(self.value)
            return factor * (prediction - noised.target).square().flatten(1).mean(1)

    @hookimpl
    def jt_losses():
        return {"late": Late}
"""


def late(good: int, value: str) -> dict:
    """A stage of one branch whose loss is not finite from some call on."""
    losses = {"late": {"kind": "late", "good": good, "value": value}}
    return {"steps": 5, "lr": 0.02, "branch": {"subject": SUBJECT | {"losses": losses}}}


def test_a_gradient_that_is_not_finite_is_named_and_leaves_the_weights(prepare, load_with):
    broken = prepare(late(2, "nan"), plugins=load_with(late=LATE), name="broken")
    good = prepare({"steps": 2, "lr": 0.02, "branch": {"subject": SUBJECT}}, name="good")

    good.train()
    with pytest.raises(JtError) as caught:
        broken.train()

    place = "step 2, stage.stage0.branch.subject"
    assert str(caught.value) == f"{place}: gradient norm is nan; weights left as they were"
    for name, weight in broken.weights.items():
        assert torch.equal(weight, good.weights[name])


def test_of_two_branches_the_one_that_is_not_finite_is_named(prepare, load_with):
    options = stage(motion={"losses": {"late": {"kind": "late", "good": 0, "value": "inf"}}})
    training = prepare(options, plugins=load_with(late=LATE))

    with pytest.raises(JtError) as caught:
        training.train()

    place = "step 0, stage.stage0.branch.motion"
    assert str(caught.value) == f"{place}: gradient norm is nan; weights left as they were"


@pytest.mark.parametrize(
    ("answer", "shape"), [("mean()", "[]"), ("flatten(1)", "[2, 18]"), ("mean()[None]", "[1]")]
)
def test_a_loss_that_is_not_one_value_a_sample_is_named(prepare, load_with, answer, shape):
    source = LATE.replace("square().flatten(1).mean(1)", answer)
    training = prepare(late(1, "1") | {"steps": 1}, plugins=load_with(late=source))

    with pytest.raises(AssertionError) as caught:
        training.train()

    place = "stage.stage0.branch.subject.losses.late"
    assert str(caught.value) == f"{place}: torch.Size({shape}), expected (B,)"


def test_fp16_skips_a_step_that_overflows_and_halves_the_scale(prepare, load_with):
    fp16 = {"precision": "fp16", "device": "cpu"}
    training = prepare(late(0, "inf") | {"steps": 1}, plugins=load_with(late=LATE), engine=fp16)
    scaler = training.model.engine.scaler
    before = scaler.get_scale()

    training.train()

    assert scaler.get_scale() == before / 2
    assert not torch.tensor(training.column("stage.stage0.grad_norm")).isfinite().any()
    for name, weight in training.weights.items():
        assert torch.equal(weight, training.before[name])


def test_fp16_goes_on_after_an_overflow(prepare, load_with):
    fp16 = {"precision": "fp16", "device": "cpu"}
    source = LATE.replace("calls <= self.good", "calls > self.good")
    training = prepare(late(1, "inf") | {"steps": 3}, plugins=load_with(late=source), engine=fp16)

    norms = torch.tensor(training.train().column("stage.stage0.grad_norm"))

    assert norms.isfinite().tolist() == [False, True, True]
    assert any(not torch.equal(w, training.before[n]) for n, w in training.weights.items())


def test_fp16_that_never_recovers_is_an_error_and_leaves_the_weights(prepare, load_with):
    fp16 = {"precision": "fp16", "device": "cpu"}
    training = prepare(late(0, "nan") | {"steps": 50}, plugins=load_with(late=LATE), engine=fp16)

    with pytest.raises(JtError) as caught:
        training.train()

    place = "step 16, stage.stage0.branch.subject"  # 2 ** 16 was the scale at first
    assert str(caught.value) == f"{place}: gradient norm is nan; weights left as they were"
    for name, weight in training.weights.items():
        assert torch.equal(weight, training.before[name])


def test_a_plugin_chooses_the_branches(prepare, load_with):
    loaded = load_with(
        turns="""
        from jtcore import hookimpl

        @hookimpl
        def jt_choose_branches(stage, step, rng):
            return ["motion"] if step.index == 1 else ["subject"]
        """
    )
    training = prepare(stage(steps=3), plugins=loaded).train()

    motion = [
        "stage.stage0.branch.motion.losses.image" in scalars
        for scalars in training.recorder.scalars
    ]
    assert motion == [False, True, False]


def test_an_adapter_is_told_which_files_the_samples_of_a_pass_are_of(prepare):
    only = {"motion": {**MOTION, "adapters": ["first"], "data": ["subject", "motion"]}}
    training = prepare({"steps": 3, "lr": 0.01, "branch": only})
    told = []
    inner = training.model.backbone.denoiser.inner
    inner.register_forward_hook(
        lambda *_: told.append(training.model.adapters["first"].current.files)
    )
    training.train()

    drawn = streams()
    expected = [
        drawn[name].part((3, "stage0"), draw, generator(0), TEXTS).files
        for draw in range(3)
        for name in ("subject", "motion")
    ]
    assert told == expected
    assert len(set(told)) > 1


def test_a_plugin_that_answers_none_leaves_the_choice_to_core(prepare, load_with):
    loaded = load_with(
        shy="""
        from jtcore import hookimpl

        @hookimpl
        def jt_choose_branches(stage, step, rng):
            return None
        """
    )
    shy = prepare(stage(), plugins=loaded, name="shy").train()
    plain = prepare(stage(), name="plain").train()

    for name, weight in shy.weights.items():
        assert torch.equal(weight, plain.weights[name])


def test_a_plugin_makes_the_optimizer_and_runs_a_branch(prepare, load_with):
    loaded = load_with(
        hand="""
        from torch.optim import SGD
        from jtcore import hookimpl

        @hookimpl
        def jt_make_optimizer(stage, parameters):
            return SGD([{"params": group} for group in parameters.values()], stage.lr)

        @hookimpl
        def jt_run_branch(branch, step):
            if not branch.path.endswith(".subject"):
                return {}
            total = sum(p.sum() for p in branch.adapters["first"].parameters())
            branch.backward(3 * total)
            return {f"{branch.path}.total": total.item()}
        """
    )
    training = prepare(stage(steps=2, lr=0.5, clip=1e9), plugins=loaded)
    sums = [value.double().sum() for n, value in training.before.items() if n.startswith("first/")]

    training.train()

    for name, weight in training.weights.items():
        moved = 2 * 0.5 * 3 if name.startswith("first/") else 0
        torch.testing.assert_close(weight, training.before[name] - moved)
    (total, _) = training.column("stage.stage0.branch.subject.total")
    assert total == pytest.approx(float(sum(sums)), abs=1e-4)


def test_an_optimizer_that_cannot_be_checkpointed_is_told(prepare, load_with):
    loaded = load_with(
        odd="""
        from torch.optim import SGD
        from jtcore import hookimpl

        @hookimpl
        def jt_make_optimizer(stage, parameters):
            optimizer = SGD([p for group in parameters.values() for p in group], stage.lr)
            optimizer.param_groups[0]["when"] = object()
            return optimizer
        """
    )
    with pytest.raises(JtError) as caught:
        prepare(stage(steps=1), plugins=loaded).train()

    assert str(caught.value) == (
        "SGD cannot be checkpointed: Object of type object is not JSON serializable"
    )


def test_training_from_a_checkpoint_is_training_straight_on(prepare, tmp_path):
    options = (stage(ema=0.5, select="one"), stage(steps=3, accumulate=2))
    every = {"checkpoint": {"every": 1, "keep": 99}}
    straight = prepare(*options, name="straight", **every).train()

    for path in (tmp_path / "straight/checkpoints").iterdir():
        name = f"from-{path.stem}"
        resumed = prepare(*options, name=name, **every)
        (tmp_path / name / "checkpoints").mkdir()
        shutil.copy(path, tmp_path / name / "checkpoints")
        resumed.trainer.train(newest_checkpoint(tmp_path / name / "checkpoints", print))
        for weight, value in resumed.weights.items():
            assert torch.equal(value, straight.weights[weight]), path


class Reads(TorchDispatchMode):
    """Counts numbers that are read off tensors which are on the device, where there is one: the
    draws of generators, which are whole, are always on the host."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        read = func is torch.ops.aten._local_scalar_dense.default
        self.count += read and args[0].is_floating_point()
        return func(*args, **(kwargs or {}))


def test_a_step_waits_for_the_device_twice_however_much_it_tells(prepare, monkeypatch):
    lists, plain = [], Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: lists.append(tensor) or plain(tensor))
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda optimizer: None)  # it counts on the host
    training = prepare(stage(steps=1, accumulate=2))
    with Reads() as reads:
        training.train()
    told = [name for name in training.recorder.scalars[0] if ".losses." in name]
    assert len(told) == 4
    assert (reads.count, len(lists)) == (1, 1)  # the norm before the update, and then all scalars
