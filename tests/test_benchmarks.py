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
    low_bit_error,
    smoothness,
    training_step,
)
from jtplugins.pocket.draw import draw

TINY = ("data.motion.size=[64, 64]", "data.subject.size=[64, 64]", "adapter.joint.rank=2")
NUMBER = r"[\d.e+-]+"


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
