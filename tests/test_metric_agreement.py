"""Rank correlations of metrics with the truth: against scipy, and on runs of pocket."""

import json

import numpy as np
import pytest
from grid_folders import draw_grid, write_json
from scipy.stats import kendalltau, spearmanr

from benchmarks import metric_agreement
from benchmarks.metric_agreement import Column, Videos, agreements, drawn, kendall, spearman
from jtcore.evaluation.measuring import Video


@pytest.mark.parametrize("ours, theirs", [(spearman, spearmanr), (kendall, kendalltau)])
def test_a_sample_in_which_pairs_stand_several_times_is_one_with_copies(ours, theirs):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 30).astype(float)
    y = x + rng.integers(0, 8, 30)
    times = rng.integers(0, 4, (5, 30)).astype(float)
    times[0] = 1
    for found, weights in zip(ours(x, y, times), times.astype(int), strict=True):
        expected = theirs(np.repeat(x, weights), np.repeat(y, weights)).statistic
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ours", [spearman, kendall])
def test_what_never_differs_has_no_correlation(ours):
    assert np.isnan(ours(np.ones(4), np.arange(4.0), np.ones((1, 4)))).all()


def test_whole_variants_are_drawn():
    times = drawn(3, 200)
    assert (times[0] == 1).all() and (times.sum(1) == 3).all()
    assert times[1:].mean(0) == pytest.approx([1, 1, 1], abs=0.2)


@pytest.fixture
def videos() -> Videos:
    """Two prompts of four variants: the first prompt's numbers are far above the second's."""
    variants = [f"v{variant}" for variant in range(4) for _ in range(2)]
    asked = ["hard", "easy"] * 4
    files = [Video(None, v, prompt, 0) for v, prompt in zip(variants, asked, strict=True)]
    return Videos(files, variants, [{}] * 8)


def test_levels_answer_different_questions(videos):
    """A metric that is right of each prompt and of variants, and wrong of prompts."""
    truth = np.array([0.0, 10, 1, 11, 2, 12, 3, 13])
    metric = np.array([10.0, 0, 11, 1, 12, 2, 13, 3])
    columns, truths = [Column("m", metric)], [Column("t", truth)]
    found = {
        level: agreements(videos, columns, truths, level, "Spearman", 50)["m", "t"]
        for level in metric_agreement.LEVELS
    }
    assert found["one prompt"].estimate == found["variants"].estimate == pytest.approx(1)
    assert found["videos"].estimate == pytest.approx(spearmanr(metric, truth).statistic)
    assert found["videos"].estimate < 0
    assert (found["videos"].count, found["variants"].count) == (8, 4)


def test_lower_may_be_better_and_what_has_no_value_is_left_out(videos):
    truth = np.arange(8.0)
    metric = -truth
    metric[2] = np.nan
    column = Column("m", metric, sign=-1)
    (found,) = agreements(videos, [column], [Column("t", truth)], "videos", "Kendall", 50).values()
    assert (found.estimate, found.low, found.high, found.count) == (1, 1, 1, 7)


@pytest.mark.slow
def test_runs_are_measured_and_told_in_tables(data, jt_run, tmp_path, capsys):
    grid = {
        "backbone": {"kind": "pocket"},
        "sample": {
            "prompts": ["a red ball moves left at mid on gray", "a blue ball moves up on teal"],
            "frames": 8,
            "size": [24, 24],
            "steps": 3,
        },
        "data": {"subject": {"source": str(data / "subject"), "size": [24, 24]}},
        "adapter": {"joint": {"kind": "lora", "targets": "visual", "rank": 1}},
        "stage": {
            "joint": {
                "steps": 1,
                "lr": 0.1,
                "branch": {
                    "joint": {
                        "data": ["subject"],
                        "adapters": ["joint"],
                        "losses": {"all": {"kind": "diffusion"}},
                    }
                },
            }
        },
        "metric": {
            "background_adherence": {"kind": "background_adherence"},
        },
        "variant": {f"v{n}": {"seed": n} for n in range(3)},
    }
    runs, out = jt_run(grid, "--quiet"), tmp_path / "tables"
    given = ["--subject", str(data / "subject"), "--motion", str(data / "motion")]
    given += ["--only", "temporal_consistency", "--only", "temporal_flickering", "--quiet"]
    metric_agreement.main([str(runs), *given, "--resamples", "20", "--out", str(out)])
    told = capsys.readouterr().out
    assert "6 videos of customised models from 3 runs of 3 variants" in told
    rows = [line for line in told.splitlines() if line.startswith("| temporal_consistency |")]
    assert len(rows) == 6
    found = json.loads((out / "metric_agreement.json").read_text())
    one = found["videos, Spearman"]["temporal_flickering/background"]
    samples = [
        each
        for run in sorted(runs.glob("v*"))
        for each in json.loads((run / "metrics.json").read_text())["samples"]
        if each["model"] == "adapted"
    ]
    assert one["count"] == len(samples) == 6
    assert -1 <= one["low"] <= one["high"] <= 1
    assert found["videos, Spearman"]["temporal_flickering/success"]["estimate"] is None


def test_a_variant_is_all_that_a_grid_varies_but_the_seed(tmp_path):
    axes = {"variant": ["a"], "lr": [1, 2], "seed": [0, 1]}
    grid = draw_grid(tmp_path / "grid", axes, lambda point: None)
    for run in grid.glob("a-*"):
        sample = {"file": "x.mp4", "model": "adapted", "prompt": "p", "seed": 0, "metrics": {}}
        write_json(run / "metrics.json", {"samples": [sample]})

    assert metric_agreement.read_videos([grid]).variants == [
        *["grid/a/1"] * 2,
        *["grid/a/2"] * 2,
    ]
