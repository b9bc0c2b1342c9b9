"""What adapters say at each step, as `jt-sample --trace` writes it."""

import csv
import re
from pathlib import Path

import pytest

from jtcore import cli


@pytest.fixture
def traced(table, jt_run, tmp_path) -> Path:
    """Two videos of a gated LoRA in three steps."""
    run = jt_run(table)
    command = [str(run), "--prompt", "a wug", "--seed", "0", "--seed", "1", "--steps", "3"]
    folders = ["--out", str(tmp_path / "again"), "--trace", str(tmp_path / "trace"), "--quiet"]
    assert cli.sample([*command, *folders]) == 0
    assert cli.sample([*command, "--out", str(tmp_path / "bare"), "--quiet"]) == 0
    return tmp_path


def test_each_pass_is_a_row_with_its_time_and_what_adapters_say(traced):
    with (traced / "trace" / "trace.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[:2] == ["time", "log_snr"]
    assert {"joint.gate", "joint.relative_update"} <= set(header)
    assert len(rows) == 6 and rows[0][0] == rows[3][0]
    falling = [float(row[0]) for row in rows[:3]]
    rising = [float(row[1]) for row in rows[:3]]
    assert falling == sorted(falling, reverse=True) and rising == sorted(rising)
    gates = [float(row[header.index("joint.gate")]) for row in rows]
    assert all(0 < gate < 1 for gate in gates)


def test_an_adapter_is_drawn_with_a_line_for_each_of_its_scalars(traced):
    drawing = (traced / "trace" / "joint.svg").read_text()
    with (traced / "trace" / "trace.csv").open() as file:
        header, *rows = csv.reader(file)
    lines = re.findall(r'<polyline points="([^"]+)"', drawing)
    assert len(lines) == len(header) - 2
    gate = header.index("joint.gate")
    means = [(float(rows[n][gate]) + float(rows[n + 3][gate])) / 2 for n in range(3)]
    heights = [float(point.split(",")[1]) for point in lines[gate - 2].split()]
    order = sorted(range(3), key=lambda n: means[n])
    assert order == sorted(range(3), key=lambda n: -heights[n])


def test_a_trace_changes_no_video(traced):
    for seed in (0, 1):
        file = f"adapted/00-seed{seed}.mp4"
        assert (traced / "again" / file).read_bytes() == (traced / "bare" / file).read_bytes()
