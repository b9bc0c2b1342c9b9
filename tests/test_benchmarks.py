"""Benchmarks run; what they find is not tested."""

import re
from pathlib import Path

import pytest

from benchmarks import (
    adapter_overhead,
    data,
    equal_time,
    evaluating,
    gated_lora,
    grid,
    low_bit_error,
    optimizer_error,
    planner_error,
    smoothness,
    training_step,
)
from benchmarks.allocator import Allocator, replay
from jtplugins.pocket.draw import draw

TINY = ("data.motion.size=[64, 64]", "data.subject.size=[64, 64]", "adapter.joint.rank=2")
NUMBER = r"[\d.e+-]+"
MIB = 2**20


@pytest.mark.slow  # whole steps, of two loops
def test_each_branch_of_a_recipe_is_timed_beside_the_reference(capsys, tmp_path):
    settings = ("backbone.width=32", "engine.device='cpu'", *TINY)
    changes = [part for each in settings for part in ("--set", each)]
    told = ["--steps", "1", "--videos", "2x64x64", "--out", str(tmp_path)]
    training_step.main(["jointtuner_zeroscope", *told, *changes])
    table = capsys.readouterr().out
    row = (
        rf"^\| joint\.(\w+) \| \((.*)\) \| ([\w-]+) \| {NUMBER} s \| {NUMBER} s \| {NUMBER}"
        rf" \| {NUMBER} GiB \| {NUMBER} \|$"
    )
    assert re.findall(row, table, re.M) == [
        ("appearance", "4, 1, 8, 8", "ours"),
        ("appearance", "4, 1, 8, 8", "reference-style"),
        ("motion", "4, 2, 8, 8", "ours"),
        ("motion", "4, 2, 8, 8", "reference-style"),
    ]
    written = (tmp_path / "training_step.md").read_text()
    assert written.startswith("# training_step\n") and table.strip() in written


def test_adapters_are_compared_on_one_block(capsys):
    size = ["--heads", "1", "--rows", "2", "--columns", "3", "--rank", "2"]
    adapter_overhead.main(["--device", "cpu", "--rounds", "1", "--dropout", "0.1", *size])
    rows = re.findall(r"^\| 226 \+ 6 \| 0\.1 \| ([\w, ]+) \|", capsys.readouterr().out, re.M)
    assert rows == list(adapter_overhead.KINDS)


def test_clips_are_encoded_and_found_in_the_cache():
    (row,) = data.measure(clips=1, frames=2, side=24)
    assert row.ours > 0 and row.reference > 0


def test_bases_in_few_bits_are_compared_with_the_whole_one(capsys):
    low_bit_error.main(["--heads", "1", "--tokens", "4", "--clips", "2"])
    row = rf"^\| (\w+) \| {NUMBER}% \| {NUMBER}% \| {NUMBER}% \| {NUMBER}% \| .* ± {NUMBER}% \|$"
    assert re.findall(row, capsys.readouterr().out, re.M) == ["bf16", "int8", "fp8", "nf4"]


def test_a_gated_layer_is_timed_beside_the_released_formula(monkeypatch):
    for name, size in {"WIDTH": 8, "TOKENS": 4, "RANK": 2}.items():
        monkeypatch.setattr(gated_lora, name, size)
    step, kept = gated_lora.measure()
    assert step.unit == "s" and kept.unit == "MiB" and kept.ours > 0 and kept.reference > 0


@pytest.fixture
def two_variants(tmp_path) -> Path:
    """Of one recipe, the second with twice as many steps."""
    draw(tmp_path / "task", "wug", "eightwise", pictures=2, videos=2)
    recipe = Path(__file__).parent.parent / "recipes" / "jointtuner_pocket.toml"
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f"""
        base = "{recipe}"
        sample = false
        metric = false
        validation = false
        data.subject.source = "{tmp_path}/task/subject"
        data.motion.source = "{tmp_path}/task/motion"
        stage.joint.warmup = 10
        [variant.once]
        stage.joint.steps = 20
        [variant.twice]
        stage.joint.steps = 40
        """
    )
    return grid


def test_variants_are_given_the_steps_of_as_much_time(two_variants, capsys):
    equal_time.main([str(two_variants), "--like", "once", "--rounds", "2", "--steps", "1"])
    told = capsys.readouterr().out
    assert re.findall(r"^\| (\w+) \| joint \| (\d+) \|", told, re.M) == [
        ("once", "20"),
        ("twice", "40"),
    ]
    once, twice = re.findall(r"stage.joint.steps = (\d+)\nstage.joint.warmup = (\d+)", told)
    assert once == ("20", "10")
    assert float(twice[1]) == pytest.approx(float(twice[0]) / 4, abs=1)  # as it was


def test_a_variant_that_is_not_there_is_told_before_anything_is_timed(two_variants):
    with pytest.raises(SystemExit, match="--like third: expected one of once, twice"):
        equal_time.main([str(two_variants), "--like", "third"])


@pytest.mark.slow  # four runs of pocket
def test_an_optimizer_of_8_bits_is_compared_with_one_of_32(capsys, tmp_path):
    optimizer_error.main(["--steps", "2", "--seeds", "1", "2", "--ranks", "64"])
    told = capsys.readouterr().out
    change = rf"[+-]{NUMBER}% ± {NUMBER}%"
    assert re.search(rf"^\| 64 \| 99% \| {NUMBER} \| {change} \| {change} \| ", told, re.M)
    assert re.search(rf"^\| 64 \| {change} \| {change} \| [+-]{NUMBER}% \|$", told, re.M)


def test_a_prediction_is_told_beside_two_counts(capsys):
    planner_error.main(["--only", "pocket, checkpointed"])
    row = rf"^\| ([\w, ]+) \| {NUMBER} \| {NUMBER} \| ({NUMBER})% \| {NUMBER} \| ({NUMBER})% \|$"
    ((what, *errors),) = re.findall(row, capsys.readouterr().out, re.M)
    assert what == "pocket, checkpointed"
    assert all(abs(float(error)) < 10 for error in errors)  # which nothing else shapes


def test_segments_are_as_pytorch_reserves_them():
    allocator, blocks = Allocator(), {}
    for size, reserved in ((300, 2), (MIB, 2), (3 * MIB, 22), (11 * MIB, 22), (7 * MIB, 42)):
        blocks[size] = allocator.allocate(size)
        assert allocator.reserved == reserved * MIB
    large = allocator.allocate(70 * MIB + 1)  # in whole numbers of 2 MiB
    assert allocator.reserved == (42 + 72) * MIB == allocator.least
    allocator.give_back(large)
    half = allocator.allocate(36 * MIB)  # of what was given back
    assert allocator.allocate(36 * MIB).start == half.start + 36 * MIB
    assert allocator.reserved == (42 + 72) * MIB


def test_segments_that_grow_are_reserved_as_far_as_they_reach():
    allocator = Allocator(expandable=True)
    first = allocator.allocate(3 * MIB)
    allocator.allocate(30 * MIB)  # behind it
    assert allocator.reserved == allocator.least == 40 * MIB
    allocator.give_back(first)
    assert allocator.allocate(25 * MIB).start == first.start + 33 * MIB
    assert allocator.reserved == allocator.least == 60 * MIB  # which all are reached into


@pytest.mark.slow  # blocks of true width
def test_a_step_reserves_more_than_it_allocates():
    recipe = planner_error.published_recipe("2b", 4, frames=1, layers=2)
    fixed, growing = Allocator(), Allocator(expandable=True)
    replay(recipe, (fixed, growing), planner_error.TEXT)
    allocated = planner_error.predicted_peak(recipe, gpu=True)
    for one in (fixed, growing):  # whole segments, of which a small network has few
        assert allocated < one.least <= one.reserved < 1.5 * allocated


def test_smoothness_is_told_of_clips_made_wrong(capsys, tmp_path):
    draw(tmp_path, "wug", "eightwise", pictures=2, videos=2)
    clips = sorted(tmp_path.rglob("*.mp4"))[:1]
    smoothness.main([*map(str, clips), "--frames", "5"])
    values = re.findall(r"^\| ([a-z][^|]+) \| ([\d.]+) \|", capsys.readouterr().out, re.M)
    assert [name for name, _ in values][:2] == ["as filmed", "one frame repeated"]
    assert len(values) == 7 and dict(values)["one frame repeated"] == "1.000"


def test_memory_and_intervals_of_evaluation_are_told(capsys):
    small = ("--videos", "1", "--runs", "1", "--prompts", "3", "--repetitions", "20")
    evaluating.main(small)
    (peak, held) = re.findall(r"^\| \d+ \| ([\d.]+)%? \|", capsys.readouterr().out, re.M)
    assert 50 < int(peak) < 5000
    assert 0 < float(held) <= 100


@pytest.mark.slow  # four runs and a grid
def test_a_grid_is_timed_beside_its_runs_one_after_another(capsys, tmp_path):
    few = ["--subjects", "wug", "--motions", "eightwise", "--seeds", "0", "1", "--steps", "2"]
    grid.main([*few, "--out", str(tmp_path)])
    told = capsys.readouterr().out
    row = rf"^\| ([\w -]+) time \| {NUMBER} s \| {NUMBER} s \| {NUMBER} \|$"
    assert re.findall(row, told, re.M) == ["wall-clock", "processor"]
    assert re.search(r"^A run took .* of\s+the work was shared\.", told, re.M)
    assert told.splitlines()[-1].endswith("samples/adapted/*.mp4: none.")
    assert (tmp_path / "grid.md").read_text().endswith(told.splitlines()[-1] + "\n")
