"""DualReal trained, sampled and read from its authors' file, on the real path."""

import csv
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from checkpoints.bare import build
from checkpoints.cogvideox import build as build_checkpoint
from checkpoints.stock import own_pipeline
from diffusers import CogVideoXPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import jtcore
from jtcore import cli
from jtcore.adapter import switched_on
from jtcore.composition import Source, read_adapters
from jtcore.errors import JtError
from jtcore.model import attach_adapters
from jtcore.plugins import load_plugins
from jtcore.recipe import build_recipe
from jtcore.tables import read_table
from jtplugins.adapters.dualreal import DualReal as Adapter
from jtplugins.adapters.stage_blender import StageBlender
from jtplugins.formats.dualreal import DualReal
from jtplugins.pocket.draw import draw

RECIPE = Path(__file__).parents[2] / "recipes" / "dualreal_pocket.toml"
EVERYTHING = ["identity", "motion", "controller"]
SEED = 1  # whose last three phases are identity, motion, identity


@pytest.fixture
def dual(data: Path) -> dict:
    """The three on random weights of pocket, in four steps whose every state is kept."""

    def branch(source: str) -> dict:
        return {
            "data": [source],
            "adapters": EVERYTHING,
            "trains": [{"subject": "identity"}.get(source, source), "controller"],
            "losses": {"loss": {"kind": "diffusion"}},
        }

    branches = {"identity": branch("subject"), "motion": branch("motion")}
    optimizer = {"steps": 4, "lr": 0.01, "select": "one", "weight_decay": 0.1}
    video = {"source": str(data / "motion"), "frames": 3, "size": [24, 24]}
    return {
        "seed": SEED,
        "backbone": {"kind": "pocket", "weights": "random"},
        "image_encoder": {"kind": "colours", "levels": 2},
        "checkpoint": {"every": 1, "keep": 10},
        "data": {
            "subject": {"source": str(data / "subject"), "size": [24, 24]},
            "motion": video | {"reference": "frame"},
        },
        "adapter": {
            "identity": {"kind": "dualreal", "width": 4},
            "motion": {"kind": "dualreal", "width": 4, "reference_width": 8},
            "controller": {"kind": "stage_blender", "groups": 5, "width": 16},
        },
        "stage": {"joint": optimizer | {"branch": branches}},
        "sample": {
            "prompts": ["a sks creature stays at mid on navy"],
            "frames": 3,
            "size": [24, 24],
            "steps": 2,
            "guidance": 2,
            "reference": {"picture": str(data / "subject" / "00.png"), "negative": "same"},
        },
    }


def states(run: Path) -> list[dict[str, dict[str, Tensor]]]:
    """After each step: of each adapter its weights, and AdamW's state of them."""
    found = []
    for path in sorted((run / "checkpoints").glob("*.safetensors")):
        tensors, count = load_file(path), 0
        state: dict[str, dict[str, Tensor]] = {}
        for name in ("identity", "controller", "motion"):  # in the order of first mention
            prefix = f"adapter.{name}/"
            weights = {key: t for key, t in tensors.items() if key.startswith(prefix)}
            numbers = range(count, count := count + len(weights))
            moments = {
                key: tensors[key] for key in tensors if key.startswith(tuple(_places(numbers)))
            }
            state[name] = weights | moments
        found.append(state)
    return found


def _places(numbers: range) -> list[str]:
    return [f"optimizer/{number}." for number in numbers]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_phase_leaves_the_other_adapter_and_its_moments_as_they_were(dual, jt_run):
    found = states(jt_run(dual))
    assert len(found) == 4
    kept = []
    for before, after in pairwise(found):
        assert not same(before["controller"], after["controller"])
        kept.append([name for name in ("identity", "motion") if same(before[name], after[name])])
    assert kept == [["motion"], ["identity"], ["motion"]]


def test_the_picture_of_a_motion_is_unknown_to_the_identitys_phase(dual, jt_run, data):
    dual["stage"]["joint"]["steps"] = 1
    dual["stage"] = {
        "identity": {
            **dual["stage"]["joint"],
            "branch": {"identity": dual["stage"]["joint"]["branch"]["identity"]},
        },
        **dual["stage"],
    }
    learned = []
    for number, shown in enumerate(("frame", str(data / "subject" / "01.png"))):
        dual["data"]["motion"]["reference"] = shown
        run = jt_run(dual, name=f"run{number}")
        first, last = sorted((run / "checkpoints").glob("*.safetensors"))
        learned.append((load_file(first), load_file(last)))
    (one, one_end), (other, other_end) = learned
    assert same(one, other)
    assert not same(one_end, other_end)


def test_a_run_is_sampled_again_with_its_picture_and_with_another(dual, jt_run, tmp_path, data):
    run = jt_run(dual)
    prompt = ["--prompt", dual["sample"]["prompts"][0], "--quiet"]
    other = ["--reference", str(data / "subject" / "01.png")]
    assert cli.sample([str(run), *prompt, "--out", str(tmp_path / "again")]) == 0
    assert cli.sample([str(run), *prompt, *other, "--out", str(tmp_path / "other")]) == 0
    first, again, shown = (
        (folder / "adapted" / "00-seed0.mp4").read_bytes()
        for folder in (run / "samples", tmp_path / "again", tmp_path / "other")
    )
    assert again == first != shown


def test_a_controller_weighs_those_of_its_own_run_under_any_name(dual, jt_run, tmp_path):
    run = jt_run(dual)
    asked = ["--prompt", dual["sample"]["prompts"][0], "--quiet"]
    assert cli.sample([f"mine={run}", *asked, "--out", str(tmp_path / "again")]) == 0
    again = (tmp_path / "again" / "adapted" / "00-seed0.mp4").read_bytes()
    assert again == (run / "samples" / "adapted" / "00-seed0.mp4").read_bytes()

    both = read_adapters([Source(run), Source(run, "mine")], load_plugins())
    between = [each.adapter.spec.between for each in both if each.own_name == "controller"]
    assert between == [("identity", "motion"), ("mine-identity", "mine-motion")]


def test_a_trace_is_of_the_prompted_half(dual, jt_run, tmp_path):
    run = jt_run(dual)
    file = run / "adapters" / "controller.safetensors"
    with safe_open(file, "pt") as held:
        facts, tensors = held.metadata(), load_file(file)
    save_file(tensors | {"head.weight": torch.randn(5, 4)}, file, facts)  # as if it had learned
    asked = [str(run), "--prompt", dual["sample"]["prompts"][0], "--steps", "1", "--quiet"]
    first = []
    for guidance in ("1", "4"):
        folders = ["--out", str(tmp_path / guidance), "--trace", str(tmp_path / f"t{guidance}")]
        assert cli.sample([*asked, "--guidance", guidance, *folders]) == 0
        with (tmp_path / f"t{guidance}" / "trace.csv").open() as file:
            (row,) = csv.DictReader(file)
        first.append([float(row[f"controller.identity_{group}"]) for group in range(5)])
    assert first[0] == pytest.approx(first[1], rel=1e-5)


# the authors' file


@pytest.fixture
def released() -> dict[str, Tensor]:
    """What an adapter.pth of a small CogVideoX holds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return dict(_released())


def _released(layers: int = 4, channels: int = 32, width: int = 5, time: int = 8):
    sizes = {"down_linear": (width, channels), "up_linear": (channels, width)}
    for block in range(layers):
        for name in ("id_attn", "id_ff", "motion_attn", "motion_ff"):
            condition = {"condition_linear": (channels, 6)} if "motion" in name else {}
            for layer, shape in {**sizes, **condition}.items():
                place = f"transformer_blocks.{block}.{name}_adapter.{layer}"
                yield f"{place}.weight", torch.randn(shape)
                yield f"{place}.bias", torch.randn(shape[0])
    layers_of_controller = {
        "timestep_encoder.1": (3 * time, time),
        "channel_encoder.0": (time, channels),
        "norm": (time,),
        "fuse_proj": (4 * time, time),
        "fuse_proj_down": (time, 4 * time),
        "fusion_net.1": (time // 4, time),
        "fusion_net.3": (2, time // 4),
    }
    for layer, shape in layers_of_controller.items():
        yield f"controller.{layer}.weight", torch.randn(shape)
        yield f"controller.{layer}.bias", torch.randn(shape[0])


def test_each_part_of_the_file_goes_where_its_name_says(released, tmp_path):
    torch.save(released, tmp_path / "adapter.pth")
    backbone = build("cogvideox")
    parts = {part: DualReal(part).read(tmp_path / "adapter.pth", backbone) for part in EVERYTHING}
    assert parts["identity"].adapter == {"kind": "dualreal", "targets": "visual", "width": 5}
    assert parts["motion"].adapter == {**parts["identity"].adapter, "reference_width": 6}
    assert parts["controller"].adapter == {"kind": "stage_blender", "groups": 2}
    adapters = {
        "identity": Adapter("visual", 5).attach(backbone, {}),
        "motion": Adapter("visual", 5, 6).attach(backbone, {}),
    }
    adapters["controller"] = StageBlender(groups=2).attach(backbone, adapters)
    for name, adapter in adapters.items():
        adapter.load_state_dict(dict(parts[name].tensors))

    x = torch.randn(2, 7, 32)
    w = {k.split("adapter.")[1]: v for k, v in released.items() if "blocks.3.id_ff" in k}
    hidden = torch.nn.functional.gelu(x @ w["down_linear.weight"].T + w["down_linear.bias"])
    expected = hidden @ w["up_linear.weight"].T + w["up_linear.bias"] + x
    feed_forward = backbone.denoiser.transformer_blocks[3].ff
    with switched_on({adapters["identity"]: 1.0}, 2):
        found = feed_forward(x)
    torch.testing.assert_close(found, feed_forward(x) + 0.1 * expected)
    assert torch.equal(
        adapters["controller"].head.weight, released["controller.fusion_net.3.weight"]
    )


def test_the_commands_of_the_documentation_read_the_file(tmp_path):
    folder = build_checkpoint(tmp_path / "cogvideox", "5b")
    with torch.random.fork_rng(devices=[]):
        torch.save(dict(_released(layers=2)), tmp_path / "adapter.pth")
    for part in EVERYTHING:
        command = [str(tmp_path / "adapter.pth"), "--from", "dualreal", "--backbone", "cogvideox"]
        command += ["--set", f"format.part={part}", "--set", f"backbone.weights={folder}"]
        assert cli.convert([*command, "--out", str(tmp_path / f"{part}.safetensors")]) == 0
    files = [str(tmp_path / f"{part}.safetensors") for part in reversed(EVERYTHING)]
    size = ["--frames", "9", "--size", "32", "48", "--steps", "1", "--quiet"]
    assert cli.sample([*files, "--prompt", "a cat", "--out", str(tmp_path / "s"), *size]) == 0
    pipe = own_pipeline(CogVideoXPipeline, folder)
    with pytest.warns(UserWarning, match=r"^motion: conditioned on a picture, of which a stock pi"):
        loaded = jtcore.load_adapters(pipe, files)
    assert list(loaded.scales) == [Path(file).stem for file in files]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda held: held.clear(), "expected tensors by name, found dict"),
        (lambda held: held.update(step=7), "'step' is of type int, not a tensor"),
        (
            lambda held: held.pop("transformer_blocks.2.id_ff_adapter.up_linear.bias"),
            "1 tensors do not fit CogVideoXTransformer3DModel, the first"
            " 'transformer_blocks.2.ff.up.bias': expected (32,), found none; is it of another"
            " backbone or size?",
        ),
    ],
)
def test_a_file_that_is_another_is_refused(released, tmp_path, change, told):
    change(released)
    torch.save(released, tmp_path / "adapter.pth")
    with pytest.raises(JtError) as caught:
        DualReal("identity").read(tmp_path / "adapter.pth", build("cogvideox"))
    assert str(caught.value) == told


def test_a_file_without_a_part_and_a_backbone_without_such_blocks_are_told(released, tmp_path):
    without = {k: v for k, v in released.items() if "id_" not in k and "controller" not in k}
    torch.save(without, tmp_path / "adapter.pth")
    for part, told in (
        ("identity", "has no adapters named id_attn_ad"),
        ("controller", "has no c"),
    ):
        with pytest.raises(JtError, match=f"^{told}"):
            DualReal(part).read(tmp_path / "adapter.pth", build("cogvideox"))
    with pytest.raises(JtError, match=r"^DualReal was released for CogVideoX, and WanTransf"):
        DualReal("motion").read(tmp_path / "adapter.pth", build("wan"))


@pytest.mark.slow  # a minute: 200 steps of pocket
def test_after_200_steps_the_weights_are_others_at_the_beginning_than_at_the_end(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    draw(Path("data/pocket"), "wug", "eightwise")
    steps = ["--set", "stage.joint.steps=200", "--set", "sample.steps=1"]
    assert cli.run([str(RECIPE), "--quiet", "--out", str(tmp_path / "run"), *steps]) == 0
    recipe = build_recipe(read_table(RECIPE), load_plugins())
    backbone = recipe.backbone.spec.load(torch.device("cpu"), torch.float32)
    adapters = attach_adapters(recipe.adapter, backbone, 0)
    for name, adapter in adapters.items():
        adapter.load_state_dict(load_file(tmp_path / "run" / "adapters" / f"{name}.safetensors"))
    latents = torch.randn(2, 48, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    config, rng = backbone.denoiser.config, torch.Generator().manual_seed(1)
    text = torch.randn(2, config.max_text_seq_length, config.text_embed_dim, generator=rng)
    weights = []
    for time in (950, 50):
        with torch.no_grad(), switched_on(dict.fromkeys(adapters.values(), 1.0), 2):
            backbone.predict(latents, torch.tensor([time, time]), text)
        weights.append(adapters["controller"].weights)
    assert (weights[0] - weights[1]).abs().max() > 1e-3
