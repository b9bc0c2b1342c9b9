"""What a recipe will need, against what is there."""

import json
import subprocess
import sys

import pytest
import torch
from attrs import evolve
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from jtcore import cli
from jtcore.errors import JtError
from jtcore.model import attach_adapters
from jtcore.planner.command import parse_size
from jtcore.planner.estimate import GIB, estimate
from jtcore.planner.ledger import Ledger
from jtcore.planner.measure import measure
from jtcore.planner.networks import build
from jtcore.planner.passes import Machine
from jtcore.planner.runs import Runs
from jtcore.planner.search import SPARE, Search
from jtcore.plugins import load_plugins
from jtcore.recipe import build_recipe
from jtcore.settings import Memory
from jtcore.structure import structure_component

DIT = {"kind": "cogvideox", "weights": "random", "config": "5b", "layers": 6}
POCKET = {"kind": "pocket", "weights": "random"}
LARGE = ("--set", "data.clips.batch=64", "--gpu", "1GB")


def recipe(backbone, frames=9, size=(64, 64), checkpointed=True, **engine):
    table = {
        "backbone": backbone,
        "engine": {"precision": "bf16", "gradient_checkpointing": checkpointed} | engine,
        "data": {"clips": {"source": "nowhere", "prompt": "p", "frames": frames, "size": [*size]}},
        "adapter": {"one": {"kind": "glora", "targets": "visual", "rank": 4}},
    }
    branch = {"data": ["clips"], "adapters": ["one"], "losses": {"all": {"kind": "ait"}}}
    table["stage"] = {"one": {"steps": 1, "lr": 1e-4, "branch": {"one": branch}}}
    return build_recipe(table, load_plugins())


@pytest.fixture(scope="module")
def measured():
    return measure(recipe(DIT), gpu=True)


def test_operations_are_those_of_a_hand_count():
    layer, x = nn.Linear(8, 6), torch.randn(5, 8, requires_grad=True)
    query = torch.randn(1, 2, 7, 4, requires_grad=True)
    with Ledger() as ledger:
        loss = layer(x).sum() + scaled_dot_product_attention(query, query, query).sum()
        ledger.backward = True
        loss.backward()
    attention = 2 * 2 * (2 * 7 * 7 * 4)  # two products of two heads
    assert ledger.work.forward == 2 * 5 * 8 * 6 + attention
    # of a linear the gradients of input and weight; of an attention five products, not two
    assert ledger.work.backward == 2 * 2 * 5 * 8 * 6 + attention * 5 / 2


def test_a_storage_counts_from_its_first_tensor_to_its_last():
    with Ledger() as ledger:
        one = torch.empty(100, dtype=torch.uint8)
        view = one.view(10, 10)
        del one
        assert sum(ledger.live.values()) == 100
        del view
        assert sum(ledger.live.values()) == 0
    assert ledger.highest == 100


def test_what_few_blocks_say_is_what_all_do():
    few, all_of = (
        Runs(given, Machine.of(given.engine, True), build(given), (226, 4096))
        for given in [recipe(DIT)] * 2
    )
    all_of.short = False
    assert few.short
    (short,), (whole,) = few.training("one"), all_of.training("one")
    for phase in ("forward", "recompute", "backward"):
        assert getattr(short.work, phase) == pytest.approx(getattr(whole.work, phase), rel=1e-9)
    for segment, moment in short.moments.items():
        assert moment.total == whole.moments[segment].total, segment


def test_parameters_are_those_that_there_are(measured):
    given = recipe(POCKET, frames=8, size=(24, 24))
    found = measure(given, gpu=False)
    spec = given.backbone.spec
    backbone = spec.load(torch.device("cpu"), torch.float32)
    (adapter,) = attach_adapters(given.adapter, backbone, 0).values()
    assert found.adapters["one"].parameters == sum(p.numel() for p in adapter.parameters())
    own = sum(p.numel() for p in backbone.denoiser.parameters())
    assert found.parts["denoiser"].parameters == own
    text = spec.load_text_encoder(torch.device("cpu")).network
    assert found.parts["text encoder"].parameters == sum(p.numel() for p in text.parameters())
    assert measured.parts["text encoder"].parameters == 4_762_310_656  # T5 XXL's encoder
    assert measured.parts["codec"].parameters == 215_583_907


def test_words_are_planned_where_there_is_no_tokenizer():
    given = recipe({"kind": "zeroscope", "weights": "random", "width": 32}, 2)
    (token,) = (
        structure_component("adapters", each, load_plugins())
        for each in [{"kind": "token", "word": "sks", "initial": "small cat", "vectors": 2}]
    )
    found = measure(evolve(given, adapter={"one": token}), gpu=True)
    assert found.adapters["one"].parameters == 2 * 2 * 1024  # a vector for each word, twice
    assert found.reads_text and found.passes["one"][0].work.backward > 0


def test_a_loss_that_looks_at_words_is_planned_whatever_the_captions(pocket_recipe, capsys):
    plain = planned(capsys, pocket_recipe)
    loss = 'stage.one.branch.one.losses.words={kind="attention", phrase="wug"}'
    masks = "data.clips.masks=nowhere"
    watched = planned(capsys, pocket_recipe, "--set", loss, "--set", masks)
    assert watched["needed"] >= plain["needed"]


def test_options_of_memory_do_what_they_are_for(measured):
    given = recipe(DIT)

    def causes(**memory):
        phases = estimate(given, measured, Memory(**memory)).phases
        return next(phase.causes for phase in phases if phase.name.startswith("train"))

    plain, block = causes(), measured.blocks[0]
    assert causes(stream_blocks=4)["weights"] == plain["weights"] - 2 * block
    assert causes(stream_share=1.0)["weights"] == plain["weights"] - 4 * block
    assert causes(checkpoints="host")["checkpoints"] < plain["checkpoints"]
    # half a byte and a 64th of a float32 in place of two bytes, but for what is not packed
    assert plain["weights"] / 4 < causes(base="nf4")["weights"] < plain["weights"] / 3
    assert causes(base="int8")["weights"] == pytest.approx(plain["weights"] / 2, rel=0.1)
    assert plain["optimizer"] == 8 * measured.adapters["one"].parameters
    assert causes(optimizer="host")["optimizer"] == 0


def test_what_is_proposed_fits_and_is_exact_first(measured):
    given = recipe(DIT)
    needed = estimate(given, measured, Memory(text_encoder="host")).worst.needed

    def proposals(room):
        return list(Search(given, measured, None, room, 1e14, 1).fitting())

    found = proposals(needed - GIB // 2)
    assert found[0].exact
    assert all(each.needed <= needed - GIB // 2 for each in found)
    assert any("stream_share" in setting for setting in found[0].settings)
    assert proposals(GIB // 2) == []


def test_nothing_is_proposed_that_trained_weights_cannot_be_beside(measured):
    table = {"kind": "weights", "targets": "all"}
    weights = structure_component("adapters", table, load_plugins())
    given = evolve(recipe(DIT), adapter={"one": weights})
    assert not measured.trains_blocks
    found = measure(given, gpu=True)
    for room in range(2 * GIB, 13 * GIB, GIB // 2):
        for proposal in Search(given, found, None, room, 1e14, 1).fitting():
            told = " ".join(proposal.settings)
            assert "stream_share" not in told and "base" not in told


def test_room_that_is_left_keeps_blocks_for_speed(measured):
    given = recipe(DIT, memory={"text_encoder": "host"})

    def needed(keep):
        memory = Memory(text_encoder="host", keep_blocks=keep)
        return estimate(given, measured, memory).worst.needed

    for keep in (2, 6):
        room = int(needed(keep) / (1 - SPARE)) + 1
        (found,) = Search(given, measured, None, room, 1e14, 1).faster()
        assert found.settings == (f"engine.memory.keep_blocks={keep}",)
        assert found.exact and found.slower < 1 and found.needed == needed(keep)
    assert list(Search(given, measured, None, needed(0), 1e14, 1).faster()) == []


@pytest.mark.parametrize("size", ["24GB", "24 GiB", "24", "24g"])
def test_a_card_has_gigabytes_of_two_to_the_thirty(size):
    assert parse_size(size) == 24 * GIB


@pytest.mark.parametrize(
    "size", ["large", "24MB", "-24GB", "24XB", "", "0", "nan", "1e3GB", "2 4GB"]
)
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(JtError, match="--gpu: "):
        parse_size(size)


@pytest.fixture
def pocket_recipe(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text(
        """
        backbone = { kind = "pocket", weights = "random" }
        data.clips = { source = "nowhere", prompt = "a wug", frames = 8, size = [24, 24] }
        adapter.one = { kind = "lora", targets = "visual", rank = 2 }
        sample = { prompts = ["a wug"], frames = 8, size = [24, 24], steps = 2 }
        [stage.one]
        steps = 2
        lr = 1e-3
        branch.one = { data = ["clips"], adapters = ["one"], losses.e.kind = "diffusion" }
        """
    )
    return str(file)


def test_a_plan_is_told_and_its_status_is_its_verdict(pocket_recipe, capsys):
    assert cli.plan([pocket_recipe, "--gpu", "1GB"]) == 0
    said = capsys.readouterr().out
    assert "train stage.one.branch.one" in said and "fits: 0.7" in said
    assert cli.plan([pocket_recipe, *LARGE]) == 1
    said = capsys.readouterr().out
    assert "does not fit: 1." in said and "fits with engine.gradient_checkpointing=true" in said


PART = {"parameters": int, "bytes": int}
PHASE = {"name": str, "causes": dict, "allocated": int, "allowance": int, "needed": int}
STEP = {"place": str, "latents": list, "chance": float, "seconds": float}
STEP |= dict.fromkeys(("forward", "recompute", "backward"), float)
PROPOSAL = {"settings": list, "exact": bool, "needed": int, "slower": float}
SCHEMA = {"parts": dict, "adapters": dict, "trained": dict, "estimate": dict, "steps": list}
SCHEMA |= {"sampling": dict}
SCHEMA |= {"disk": dict, "tflops": float, "room": int, "fits": bool, "proposals": list}
SCHEMA |= {"worst": str, "needed": int, "margin": int}


def has(schema, *tables):
    return all({key: type(value) for key, value in table.items()} == schema for table in tables)


def planned(capsys, *given):
    """What it prints for programs."""
    assert cli.plan([*given, "--json"]) in (0, 1)
    return json.loads(capsys.readouterr().out)


def test_a_plan_is_json_for_programs(pocket_recipe, capsys):
    found = planned(capsys, pocket_recipe, "--gpu", "1GB", "--tflops", "50")
    assert has(SCHEMA, found)
    assert has(PART, *found["parts"].values(), *found["adapters"].values())
    assert has({"phases": list, "host": dict}, found["estimate"])
    assert has(PHASE, *found["estimate"]["phases"])
    assert has(STEP, *found["steps"], found["sampling"])
    assert found["steps"][0]["latents"] == [1, 48, 8, 4, 4]
    sizes = [found["disk"], found["estimate"]["host"], found["trained"]]
    sizes += [phase["causes"] for phase in found["estimate"]["phases"]]
    assert all(type(size) is int for each in sizes for size in each.values())
    assert {phase["name"] for phase in found["estimate"]["phases"]} >= {"sample", "decode"}
    assert (found["fits"], found["tflops"], found["room"]) == (True, 50, GIB)
    assert found["margin"] == GIB - found["needed"]

    found = planned(capsys, pocket_recipe)
    assert found["room"] is found["fits"] is found["margin"] is None and not found["proposals"]


def test_what_is_proposed_to_a_recipe_that_does_not_fit_makes_it_fit(pocket_recipe, capsys):
    found = planned(capsys, pocket_recipe, *LARGE)
    assert found["fits"] is False and has(PROPOSAL, *found["proposals"])
    best = found["proposals"][0]
    assert best["exact"] and "engine.gradient_checkpointing=true" in best["settings"]
    for each in found["proposals"]:
        changes = [part for setting in each["settings"] for part in ("--set", setting)]
        again = planned(capsys, pocket_recipe, *LARGE, *changes)
        assert again["fits"] is True and again["needed"] == each["needed"]
        assert seconds(again) / seconds(found) == pytest.approx(each["slower"])


def seconds(found):
    return sum(step["chance"] * step["seconds"] for step in found["steps"])


def test_an_option_that_is_proposed_to_be_left_out_is_taken_away(pocket_recipe, capsys):
    own = ("--set", "engine.memory.optimizer=8bit")
    found = planned(capsys, pocket_recipe, *LARGE, *own)
    settings = [s for each in found["proposals"] for s in each["settings"]]
    assert "engine.memory.optimizer=false" in settings


def test_a_recipe_of_several_seeds_is_planned_as_one_of_them(pocket_recipe, capsys):
    one = planned(capsys, pocket_recipe)
    assert planned(capsys, pocket_recipe, "--set", "seeds=[1, 2]") == one


def test_a_grid_is_refused_with_what_to_plan_instead(tmp_path, pocket_recipe, capsys):
    grid = tmp_path / "grid.toml"
    variants = "variant.short = {}\nvariant.long.stage.one.steps = 3\n"
    grid.write_text(f'base = "{pocket_recipe}"\n{variants}')
    assert cli.plan([str(grid)]) == 2
    assert capsys.readouterr().err == (
        f"{grid}: a grid has several recipes; jt-run --dry-run plans each, or plan its base, with a"
        " run's changes by --set\n"
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--gpu", ""), "--gpu: expected a size such as 24GB, got ''"),
        (("--gpu", "0"), "--gpu: '0' is too small for a card; expected a size such as 24GB"),
        (("--gpu", "24MB"), "--gpu: '24MB' is too small for a card; expected a size such as 24GB"),
        (("--tflops", "0"), "--tflops: expected a number above 0, got 0"),
        (("--tflops", "nan"), "--tflops: expected a number above 0, got nan"),
        (("--processes", "0"), "--processes: expected at least 1, got 0"),
        (
            ("--set", "data.clips.size=[25, 24]"),
            "data.clips.size: pocket knows one size of frame, found 25x24 px; the nearest is 24x24",
        ),
        (
            ("--preset", "24g", "--set", "engine.memory.keep_blocks=99"),
            "engine.memory.keep_blocks: the backbone has 5 blocks, found 99",
        ),
        (
            ("--set", "engine.memory.checkpoints=host"),
            "engine.memory.checkpoints: needs engine.gradient_checkpointing = true",
        ),
        (
            ("--preset", "16g-exact", "--preset", "zero3-offload"),
            "engine.memory.stream_share: engine.deepspeed.stage = 3 moves the frozen weights; take"
            " one of them",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_message(pocket_recipe, given, told, capsys):
    assert cli.plan([pocket_recipe, *given]) == 2
    assert capsys.readouterr().err == f"{told}\n"


def test_a_size_or_preset_that_is_not_there_is_one_message(pocket_recipe, capsys):
    assert cli.plan([pocket_recipe, "--gpu", "much"]) == 2
    assert capsys.readouterr().err == "--gpu: expected a size such as 24GB, got 'much'\n"
    assert cli.plan([pocket_recipe, "--preset", "16g"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("unknown preset '16g'; ")
    assert all(name in said for name in ("12g-nf4", "16g-exact", "16g-int8", "24g", "8g-exact"))


def test_help_answers_before_torch_is_imported():
    script = (
        "import sys\nfrom jtcore import cli\ntry:\n    cli.plan(['--help'])\n"
        "except SystemExit:\n    assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
