"""TensorBoard on a finished grid, opened in a browser, shows all that it is said to show."""

import json
import re
import shutil
from pathlib import Path

import pytest
from grid_folders import fail
from tensorboarding import VIEWS, asked, looking, serving

from jtcore.grids.results import write_results

pytestmark = pytest.mark.slow

VARIANTS, SEEDS = ("full", "low", "gone"), (0, 1)
COUNT = "all => all.filter(one => one.getClientRects().length).length"


@pytest.fixture(scope="module")
def table(data) -> dict:
    """A tiny recipe with metrics."""
    return {
        "backbone": {"kind": "pocket"},
        "data": {"subject": {"source": str(data / "subject"), "size": [24, 24]}},
        "adapter": {"joint": {"kind": "lora", "targets": "visual", "rank": 1}},
        "stage": {"joint": {"steps": 4, "lr": 0.01, "branch": {"joint": BRANCH}}},
        "sample": {"prompts": ["a wug"], "frames": 3, "size": [24, 24], "steps": 2},
        "metric": {"steady": {"kind": "temporal_consistency"}},
    }


BRANCH = {"data": ["subject"], "adapters": ["joint"], "losses": {"all": {"kind": "diffusion"}}}


@pytest.fixture(scope="module")
def grid(table, tmp_path_factory) -> Path:
    """Three variants with two seeds, of which one has failed."""
    import tomli_w

    from jtcore import cli

    place = tmp_path_factory.mktemp("grid")
    table["variant"] = {"full": {}, "low": {"stage": {"joint": {"lr": 0.001}}}, "gone": {}}
    table |= {"seeds": list(SEEDS), "launch": {"kind": "here"}}
    (place / "grid.toml").write_text(tomli_w.dumps(table))
    assert cli.run([str(place / "grid.toml"), "--out", str(place / "out"), "--quiet"]) == 0
    run = place / "out/gone-seed1"
    for name in ("result.json", "metrics.json"):
        (run / name).unlink()
    shutil.rmtree(run / "tensorboard")
    fail(run, "no space left on device")
    write_results(place / "out")
    return place / "out"


@pytest.fixture(scope="module")
def seen(grid):
    """The server's address, and a browser's page."""
    with serving(grid) as address, looking(address) as page:
        yield address, page


def shown(page, what: str) -> int:
    """How many of these are to be seen."""
    return page.locator(what).evaluate_all(COUNT)


def test_scalars_of_training_and_of_the_grid_are_drawn(seen):
    _, page = seen
    VIEWS["scalars"](page)

    assert shown(page, "tf-scalar-card") > 2
    assert shown(page, "tf-scalar-card svg path, tf-scalar-card canvas") > 0


def test_videos_move_in_images(seen):
    address, page = seen
    VIEWS["images"](page)

    image = page.locator("tf-image-loader img").first
    page.wait_for_function("image => image.naturalWidth > 0", arg=image.element_handle())
    tags = asked(address, "data/plugin/images/tags")
    assert [len(tags[f"{v}-seed0/tensorboard"]) for v in VARIANTS] == [2] * 3  # base and adapted
    source = image.get_attribute("src")
    picture = page.request.get(address + source.removeprefix("./").removeprefix(address)).body()
    assert picture[:6] == b"GIF89a"
    assert picture.count(b"\x21\xf9\x04") == 3  # frames


def test_text_has_the_grids_results_and_the_runs_recipes(seen):
    address, page = seen
    VIEWS["text"](page)

    assert "variant, against full" in page.locator("tf-text-loader", has_text="What").inner_text()
    tags = asked(address, "data/plugin/text/tags")
    assert tags["."] == ["grid/results"]
    assert "recipe/text_summary" in tags["full-seed0/tensorboard"]


def test_the_table_has_a_row_for_every_run_with_its_levels_and_numbers(seen):
    _, page = seen
    VIEWS["hparams_table"](page)

    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content").all_inner_texts()
    words = [re.sub(r"\s+", " ", cell).strip() for cell in cells]
    for variant in VARIANTS:
        for seed in SEEDS:
            assert f"{variant}-seed{seed}" in words
    assert {"variant", "seed", "steady.temporal_consistency", "seconds"} <= set(words)


def test_coordinates_have_a_line_and_scatter_plots_a_point_for_every_run(seen):
    _, page = seen
    VIEWS["hparams_parallel_coordinates"](page)
    finished = len(VARIANTS) * len(SEEDS) - 1
    lines = "tf-hparams-parallel-coords-plot path"
    assert shown(page, lines) >= finished
    VIEWS["hparams_scatter"](page)
    columns = 4  # variant, seed, steady, seconds: those of numbers are below each other
    assert shown(page, "tf-hparams-scatter-plot-matrix-plot circle") >= finished * columns


def test_sessions_say_which_run_failed(seen):
    address, page = seen
    request = {"startIndex": 0, "sliceSize": 100, "colParams": []}
    request["allowedStatuses"] = ["STATUS_SUCCESS", "STATUS_FAILURE"]
    answer = page.request.post(
        f"{address}data/plugin/hparams/session_groups", data=json.dumps(request)
    )
    groups = answer.json()["sessionGroups"]

    assert {group["name"] for group in groups if len(group["sessions"]) == 1} == {
        f"{variant}-seed{seed}" for variant in VARIANTS for seed in SEEDS
    }
    failed = [g["name"] for g in groups if g["sessions"][0]["status"] == "STATUS_FAILURE"]
    assert failed == ["gone-seed1"]
