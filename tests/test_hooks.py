"""Every hook: documented, called in a run, and provided by one plugin that has them all."""

import inspect
import re
import sys

import pytest

from jtcore import hooks

HOOKS = sorted(name for name in vars(hooks) if name.startswith("jt_"))

EVERY_HOOK = """
    from attrs import frozen
    from jtcore import hookimpl
    from jtcore.adapter import Adapter
    from jtcore.controls import Control
    from jtcore.grids.work import do
    from torch import nn
    from torch.optim import SGD

    from ._shared import heard, note

    class Bias(Adapter):
        def __init__(self, linear):
            super().__init__()
            self.bias = nn.Parameter(0 * linear.bias)
            linear.register_forward_hook(self.add)

        def add(self, linear, inputs, output):
            return None if self.current is None else output + self.current.scale * self.bias

    @frozen
    class BiasSpec:
        def attach(self, backbone, others):
            return Bias(backbone.denoiser.outer)

    @frozen
    class Absolute:
        def __call__(self, prediction, noised, part, rng):
            return (prediction - noised.target).abs().flatten(1).mean(1)

    @frozen
    class Mean:
        def load(self, device):
            return lambda sample: {"brightness": float(sample.video.mean())}

    @frozen
    class Text:
        def read(self, path, backbone):
            return None

    class Observer:
        def __init__(self, run, recipe):
            heard.append("jt_observers")

        @hookimpl
        def jt_run_started(self):
            heard.append("jt_run_started")

        @hookimpl
        def jt_step_finished(self, step):
            heard.append("jt_step_finished")

        @hookimpl
        def jt_preview_decoded(self, number):
            heard.append("jt_preview_decoded")

        @hookimpl
        def jt_stage_finished(self, adapters):
            heard.append("jt_stage_finished")

        @hookimpl
        def jt_run_finished(self, error):
            heard.append("jt_run_finished")

    @hookimpl
    def jt_backbones():
        return {}

    @hookimpl
    def jt_adapters():
        return {"bias": BiasSpec}

    @hookimpl
    def jt_losses():
        return {"absolute": Absolute}

    @hookimpl
    def jt_metrics():
        return {"mean": Mean}

    @hookimpl
    def jt_formats():
        return {"text": Text}

    @hookimpl
    def jt_observers():
        return [Observer]

    @hookimpl
    def jt_choose_branches(stage):
        return note("jt_choose_branches", list(stage.branch))

    @frozen
    class Average:
        def width(self):
            return 3

        def identity(self):
            return "mean"

        def load(self, device):
            return self

        def embed(self, pictures):
            return pictures.mean((2, 3))

    @hookimpl
    def jt_image_encoders():
        return {"average": Average}

    @frozen
    class Still:
        def begin(self, walk):
            return Control()  # which leads nothing

    @hookimpl
    def jt_controls():
        return {"still": Still}

    @frozen
    class Backwards:
        def launch(self, jobs, stop):
            for run in reversed(jobs.runs):
                jobs.ended(run, do(run, jobs.say, stop))

    @hookimpl
    def jt_launchers():
        return {"backwards": Backwards}

    @hookimpl
    def jt_run_branch(branch):
        return note("jt_run_branch", None)

    @hookimpl
    def jt_make_optimizer(stage, parameters):
        parameters = [p for group in parameters.values() for p in group]
        return note("jt_make_optimizer", SGD(parameters, stage.lr))
"""

SHARED = """
    heard = []

    def note(name, answer):
        heard.append(name)
        return answer
"""


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_is_documented(name):
    assert re.fullmatch(r"[A-Z][^\n]+\.", inspect.getdoc(getattr(hooks, name)).split("\n")[0])


@pytest.fixture
def heard(table, jt_run, plugin_folder) -> list[str]:
    """The hooks that a run calls on a plugin that has them all, in order."""
    folder = plugin_folder(every=EVERY_HOOK, _shared=SHARED)
    table["adapter"]["joint"] = {"kind": "bias"}
    table["stage"]["joint"]["branch"]["joint"]["losses"] = {"error": {"kind": "absolute"}}
    table["stage"]["joint"]["steps"] = 2
    table["metric"] = {"light": {"kind": "mean"}}
    table["sample"]["preview"] = {"every": 2}
    jt_run(table, "--plugin-folder", str(folder))
    (shared,) = (
        module
        for module in sys.modules.values()
        if getattr(module, "__file__", None) == str(folder / "_shared.py")
    )
    return shared.heard


def test_every_hook_that_a_run_calls_is_called_in_order(heard):
    step = ["jt_choose_branches", "jt_run_branch", "jt_step_finished"]
    assert heard == [
        "jt_observers",
        "jt_run_started",
        "jt_make_optimizer",
        *step,
        *step,
        "jt_stage_finished",
        "jt_preview_decoded",
        "jt_run_finished",
    ]


def test_every_hook_is_in_the_plugin_that_has_them_all():
    assert set(re.findall(r"def (jt_\w+)", EVERY_HOOK)) == set(HOOKS)


def test_a_folder_provides_a_kind_of_each_family(load_with):
    loaded = load_with(every=EVERY_HOOK, _shared=SHARED)

    assert loaded.broken == ()
    kinds = {"backbones": "tiny", "adapters": "bias", "losses": "absolute", "metrics": "mean"}
    kinds |= {"formats": "text", "image_encoders": "average", "controls": "still"}
    kinds |= {"launchers": "backwards"}
    for family, kind in kinds.items():
        assert loaded.find(family, kind) is loaded.families[family][kind]
