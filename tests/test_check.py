"""The check finds what a run would, before anything is computed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from jtcore import JtError
from jtcore.check import check
from jtcore.plugins import Plugins
from jtcore.recipe import build_recipe

WHERE = "stage.joint.branch.joint.losses"


@pytest.fixture
def problems(plugins) -> Callable[..., list[str]]:
    """What the check of a table tells."""

    def told(table: dict, plugins: Plugins = plugins) -> list[str]:
        try:
            check(build_recipe(table, plugins))
        except JtError as error:
            return list(error.problems)
        return []

    return told


@pytest.fixture
def pictures(data, tmp_path) -> Path:
    """A copy of the subject, to be spoilt."""
    return Path(shutil.copytree(data / "subject", tmp_path / "pictures"))


def test_a_recipe_without_fault_passes(problems, table):
    assert problems(table) == []


# Prompts


def test_a_caption_in_a_file_that_cannot_be_embedded_is_told(problems, table, pictures):
    (*_, caption) = sorted(pictures.glob("*.txt"))
    caption.write_text("A WUG")
    table["data"]["subject"]["source"] = str(pictures)

    assert problems(table) == ["data.subject.prompt: 'A WUG' shouts"]


def test_a_caption_that_the_recipe_gives_is_told_once_for_all_files(problems, table):
    table["data"]["subject"]["prompt"] = "A WUG"

    assert problems(table) == ["data.subject.prompt: 'A WUG' shouts"]


def test_sampled_prompts_that_cannot_be_embedded_are_told(problems, table):
    table["sample"] |= {"prompts": ["a wug", "A WUG", "TURN"], "negative": "BAD"}

    assert problems(table) == [
        "sample.prompts: 'A WUG' shouts",
        "sample.prompts: 'TURN' shouts",
        "sample.negative: 'BAD' shouts",
    ]


def test_a_caption_that_is_missing_is_told_once(problems, table, pictures):
    (first, *_) = sorted(pictures.glob("*.txt"))
    first.unlink()
    table["data"]["subject"]["source"] = str(pictures)

    (picture,) = (p for p in pictures.iterdir() if p.stem == first.stem)
    assert problems(table) == [
        f"data.subject.prompt: {picture}: has no caption; give `prompt`, or write {first.name}"
        " beside it"
    ]


def test_a_caption_of_data_that_nothing_uses_is_not_read(problems, table):
    table["data"]["held_out"]["prompt"] = "A WUG"
    table["data"]["spare"] = {"source": "nowhere", "size": [23, 23]}

    assert problems(table) == []


def test_data_of_the_validation_is_checked(problems, table):
    table["data"]["held_out"]["prompt"] = "A WUG"
    table["validation"] = {"data": ["held_out"]}

    assert problems(table) == ["data.held_out.prompt: 'A WUG' shouts"]


# Masks


@pytest.mark.parametrize(
    ("on", "bare"), [("all", "subject"), ("image", "subject"), ("video", "motion")]
)
def test_a_loss_that_needs_masks_is_told_on_data_without(problems, table, on, bare):
    losses = {
        "masked": {"kind": "diffusion", "masked": "mean", "on": on},
        "rest": {"kind": "diffusion"},
    }
    table["stage"]["joint"]["branch"]["joint"]["losses"] = losses

    assert problems(table) == [f"{WHERE}.masked: needs masks, and data.{bare} has none"]


def test_a_loss_that_needs_masks_does_not_mind_other_media_without(problems, table, data, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for picture in (data / "subject").glob("*.png"):
        with Image.open(picture) as opened:
            Image.new("L", opened.size, 255).save(masks / picture.name)
    table["data"]["subject"]["masks"] = str(masks)
    losses = {
        "masked": {"kind": "diffusion", "masked": "mean", "on": "image"},
        "rest": {"kind": "diffusion"},
    }
    table["stage"]["joint"]["branch"]["joint"]["losses"] = losses

    assert problems(table) == []


# Backbone


@pytest.fixture
def pocket(table) -> dict:
    """The recipe on pocket's architecture."""
    table["backbone"] = {"kind": "pocket", "weights": "random"}
    table["sample"]["prompts"] = ["a red ball moves left"]
    return table


def test_sampling_in_more_steps_than_the_schedule_has_is_told(problems, pocket):
    pocket["sample"]["steps"] = 1000
    assert problems(pocket) == []

    pocket["sample"]["steps"] = 1001
    assert problems(pocket) == ["sample.steps: 1001 steps of denoising; the schedule has 1000"]


def test_words_that_pocket_does_not_know_are_told(problems, pocket):
    pocket["sample"]["prompts"] = ["a guitar moves left"]

    assert problems(pocket) == [
        "sample.prompts: 'a guitar moves left' has words that pocket does not know: 'guitar';"
        " see `jt-pocket list`"
    ]


def test_weights_that_are_not_there_are_told_at_their_place(problems, pocket, tmp_path):
    pocket["backbone"]["weights"] = str(tmp_path)

    expected = 'expected what `jt-pocket pretrain` wrote, "shipped" or "random"'
    assert problems(pocket) == [
        f"backbone.weights: no folder 'transformer' in {str(tmp_path)!r}; {expected}"
    ]


WITHOUT_CHECKPOINTS = """
    from attrs import frozen
    from jtcore import JtError, hookimpl
    from jtcore.plugins import load_plugins

    TINY = load_plugins([{folder!r}]).find("backbones", "tiny")

    class Held:
        def __init__(self, backbone):
            self.backbone = backbone

        def __getattr__(self, name):
            return getattr(self.backbone, name)

        def checkpointed(self):
            raise JtError("this denoiser has no blocks to checkpoint")

    @frozen
    class Plain(TINY):
        def load(self, device, dtype):
            {body}

    @hookimpl
    def jt_backbones():
        return {{"plain": Plain}}
"""


def plain(table: dict, body: str) -> str:
    """A plugin of a backbone like `tiny`, whose `load` has another body."""
    return WITHOUT_CHECKPOINTS.format(folder=table["plugins"]["folders"][0], body=body)


def test_checkpointing_of_gradients_that_a_backbone_cannot_do_is_told(problems, table, load_with):
    loaded = load_with(plain=plain(table, "return Held(super().load(device, dtype))"))
    table["backbone"]["kind"] = "plain"
    assert problems(table, loaded) == []

    table["engine"] = {"gradient_checkpointing": True}
    assert problems(table, loaded) == [
        "engine.gradient_checkpointing: this denoiser has no blocks to checkpoint"
    ]


def test_a_backbone_that_cannot_be_loaded_is_told_with_its_place(problems, table, load_with):
    loaded = load_with(plain=plain(table, 'raise JtError("it is out")'))
    table["backbone"]["kind"] = "plain"

    assert problems(table, loaded) == ["backbone: it is out"]


def test_all_problems_are_told_at_once(problems, pocket):
    losses = {"masked": {"kind": "diffusion", "masked": "mean"}}
    pocket["stage"]["joint"]["branch"]["joint"]["losses"] = losses
    pocket["data"]["subject"]["source"] = "nowhere"
    pocket["data"]["motion"]["prompt"] = "a guitar"
    pocket["sample"] |= {"steps": 1001, "size": [23, 24], "negative": "a drum"}
    pocket["adapter"]["joint"]["targets"] = "visula"

    unknown = "has words that pocket does not know"
    assert problems(pocket) == [
        "data.subject.source: 'nowhere' matches no picture or video",
        f"{WHERE}.masked: needs masks, and data.subject has none",
        "sample: pocket knows one size of frame, found 23x24 px; the nearest is 24x24",
        f"data.motion.prompt: 'a guitar' {unknown}: 'guitar'; see `jt-pocket list`",
        f"sample.negative: 'a drum' {unknown}: 'drum'; see `jt-pocket list`",
        "sample.steps: 1001 steps of denoising; the schedule has 1000",
        "adapter.joint: unknown target role 'visula'; did you mean 'visual'?",
    ]


# Precision


@pytest.fixture
def older_gpu(monkeypatch):
    """A GPU that only emulates bf16."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_bf16_on_a_gpu_that_emulates_it_is_told(problems, table, older_gpu, device):
    table["engine"] = {"device": device, "precision": "bf16"}

    assert problems(table) == [
        'engine.precision: Tesla T4 does not compute in bf16; use "fp16" or "fp32"'
    ]


def test_what_is_offered_in_place_of_bf16_is_what_the_backbone_can_do(problems, table, older_gpu):
    table["backbone"] = {"kind": "wan", "weights": "random", "layers": 1}
    for data in table["data"].values():
        data["size"] = [32, 32]
    table["data"]["motion"] |= {"frames": 5, "short": "repeat"}
    table["sample"] |= {"frames": 5, "size": [32, 32]}
    table["engine"] = {"device": "cuda", "precision": "bf16"}

    assert problems(table) == ['engine.precision: Tesla T4 does not compute in bf16; use "fp32"']


@pytest.mark.parametrize("engine", [("cpu", "bf16"), ("cuda", "fp16"), ("cuda", "fp32")])
def test_other_precisions_do_not_ask_the_gpu(problems, table, older_gpu, engine):
    device, precision = engine
    table["engine"] = {"device": device, "precision": precision}

    assert problems(table) == []


# Kernels


def test_a_kernel_of_attention_that_the_device_lacks_is_told(problems, table):
    table["engine"] = {"device": "cpu", "attention": "efficient"}

    assert problems(table) == [
        "engine.attention: 'efficient' does not run here in torch.float32; 'flash', 'math' do"
    ]


def test_what_cannot_be_compiled_is_told(problems, pocket):
    pocket["engine"] = {"device": "cpu", "compile": True}
    assert problems(pocket) == []

    pocket["engine"]["memory"] = {"base": "int8"}
    pocket["adapter"]["joint"] = {"kind": "lora", "targets": "visual", "rank": 2, "bank": 1}
    told = "engine.compile: the hooks of adapter.joint are not made to be compiled; leave it out"
    low = "weights in few bits are read by kernels of their own; leave one of the two out"
    found = [problem for problem in problems(pocket) if problem.startswith("engine.compile")]
    assert found == [f"engine.compile: {low}", told]


def test_blocks_that_are_not_alike_and_compilers_that_are_not_there_are_told(
    problems, table, monkeypatch
):
    table["engine"] = {"device": "cpu", "compile": True}
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)

    assert problems(table) == [
        "engine.compile: on a CPU it needs a C++ compiler, and there is none; install g++, or"
        " leave it out",
        "engine.compile: the 2 blocks of this backbone are of 2 shapes, each of which would be"
        " compiled by itself; leave it out",
    ]
