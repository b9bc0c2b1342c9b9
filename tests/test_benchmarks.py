"""Benchmarks run; what they find is not tested."""

import re

from benchmarks import adapter_overhead, data, low_bit_error, training_step

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
