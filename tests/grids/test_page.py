"""The page of a grid, as people meet it: in a browser, from disk, its videos beside it."""

import json
import re
from pathlib import Path
from shutil import copytree

import pytest
from browsing import DESK, PHONE, draw_run, headless, opened
from grid_folders import draw_grid, fail, write_json

from jtcore.grids.kept import FOLDER
from jtcore.grids.results import write_results
from jtcore.pages.plots import COLOURS, bundle_plot, mark, stroke

PLAYS = "video => !video.paused && video.currentTime > 0.1 && !video.error"
AXES = {"variant": ["full", "no <b>", "gone"], "subject": ["a & b", "c"], "seed": [0, 1]}
VALUES = {"full": 0.5, "no <b>": 0.25}
RECIPE = "[sample]\nframes = 16\nfps = 8.0\n"


def value(point) -> float:
    return VALUES[point["variant"]] + (point["subject"] == "c") / 8 + point["seed"] / 64


@pytest.fixture(scope="module")
def browser():
    with headless() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of three variants one has failed in every run; another has no videos of one seed."""
    from torch.utils.tensorboard import SummaryWriter

    place = tmp_path_factory.mktemp("grids")
    drawn = draw_run(place / "drawn")
    samples = json.loads((drawn / "metrics.json").read_text())["samples"]

    def numbers(point):
        more = {f"a_metric_of_a_long_name.{i}": 1.0 for i in range(6)}
        return None if point["variant"] == "gone" else {"m.value": value(point), **more}

    folder = draw_grid(place / "grid", AXES, numbers, lambda p: {"m.value": 0.125}, title="a & b")
    for run in sorted(folder.glob("*-*")):
        if run.name.startswith("gone"):
            fail(run, "no space left <on> device", kind="error")
            continue
        found = json.loads((run / "metrics.json").read_text())
        if run.name != "no <b>-c-1":
            copytree(drawn / "samples", run / "samples")
            write_json(run / "metrics.json", found | {"samples": samples})
        (run / "recipe.resolved.toml").write_text(RECIPE)
        (run / "report.html").write_text("a report")
        with SummaryWriter(run / "tensorboard") as writer:
            for step in range(5):
                writer.add_scalar("stage.joint/losses.motion", 1 / (step + 1), step)
                writer.add_scalar("stage.joint/lr", 0.1, step)
    better = {"metrics": {"m": {"better": "higher"}}, "summary": {}}
    write_json(folder / "full-c-0/evaluation/evaluation.json", better)
    write_results(folder)
    return folder


@pytest.fixture
def page(browser, folder):
    with opened(browser, folder / "grid.html") as page:
        yield page


def rows(page):
    return page.locator("#matrix .row:visible").all()


def captions(row) -> list[str]:
    return row.locator("figcaption").all_text_contents()


def test_a_matrix_has_a_row_for_each_prompt_and_a_video_of_each_variant(page):
    assert [row.locator("h3").text_content() for row in rows(page)] == ["a <wug>", "a dax runs"]
    for row in rows(page):
        assert captions(row) == ["base model", "full", "no <b>", "gone"]
        assert row.locator(".absent").all_text_contents() == ["failed"]
        assert row.locator("video").count() == 3


def test_videos_of_a_row_play_together_from_their_files(page):
    row = rows(page)[1]
    row.scroll_into_view_if_needed()
    videos = row.locator("video").all()
    for video in videos:
        page.wait_for_function(PLAYS, arg=video.element_handle())
    assert [video.get_attribute("src") for video in videos] == [
        "full-a%20%26%20b-0/samples/base/01-seed0.mp4",
        "full-a%20%26%20b-0/samples/adapted/01-seed0.mp4",
        "no%20%3Cb%3E-a%20%26%20b-0/samples/adapted/01-seed0.mp4",
    ]
    row.locator("input[type=range]").fill("11")
    for video in videos:
        page.wait_for_function(
            "video => video.paused && Math.abs(video.currentTime - 11.5 / 8) < 0.01",
            arg=video.element_handle(),
        )
    assert row.locator("output").text_content() == "frame 12/16"


def test_a_video_is_opened_only_where_it_is_seen(browser, folder):
    with opened(browser, folder / "grid.html", {"width": 800, "height": 300}) as page:
        assert page.locator("video[src]").count() == 0
        rows(page)[0].scroll_into_view_if_needed()
        page.wait_for_function("() => document.querySelectorAll('video[src]').length > 0")
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_function("() => document.querySelectorAll('video[src]').length === 0")


def choose(page, label: str, option: str) -> None:
    chosen = page.locator("#choices label", has_text=re.compile(f"^{label} "))
    chosen.locator("select").select_option(label=option)


def test_subject_and_seeds_are_chosen_and_so_is_what_stands_across(page):
    choose(page, "subject", "c")
    assert page.locator("#matrix video").nth(1).get_attribute("data-src").startswith("full-c-0/")
    choose(page, "seed", "1")
    assert page.locator("#matrix .absent").all_text_contents() == ["finished", "failed"] * 2
    choose(page, "Seed of samples", "all")
    titles = [row.locator("h3").text_content() for row in rows(page)]
    assert titles == [f"{p} (seed {s})" for s in (0, 1) for p in ("a <wug>", "a dax runs")]
    choose(page, "Across", "subject")
    assert captions(rows(page)[0]) == ["base model", "a & b", "c"]
    choose(page, "Across", "seed")
    assert captions(rows(page)[0]) == ["base model", "0", "1"]
    assert not page.locator("#choices label", has_text=re.compile("^seed")).is_visible()


def test_prompts_are_found_and_all_videos_stop(page):
    page.fill("#find", "RUNS")
    assert [row.locator("h3").text_content() for row in rows(page)] == ["a dax runs"]
    video = rows(page)[0].locator("video").first
    video.scroll_into_view_if_needed()
    page.wait_for_function(PLAYS, arg=video.element_handle())
    page.click("#all")
    page.wait_for_function("video => video.paused", arg=video.element_handle())
    choose(page, "subject", "c")  # other videos: they stay as they were asked to be
    assert [row.locator("h3").text_content() for row in rows(page)] == ["a dax runs"]
    page.wait_for_selector("#matrix video[src]")
    assert page.locator("#matrix .controls button").first.text_content() == "Play"


def difference(page, level: str) -> str:
    table = page.locator(".compared").first.locator(".against:visible table")
    return table.locator("tr", has=page.locator(f"td:text-is('{level}')")).inner_text()


def test_differences_are_to_the_level_that_is_chosen(page):
    assert "-0.25 all 2" in difference(page, "no <b>")
    page.locator(".reference").first.select_option("no <b>")
    assert "+0.25 all 2" in difference(page, "full")
    assert page.locator(".compared").first.locator(".against:visible").count() == 1


def test_which_way_is_better_is_told(page):
    heads = page.locator("table").first.locator("th").all_text_contents()
    assert heads[:3] == ["variant", "m.value ↑", "a_metric_of_a_long_name.0"]


def test_what_failed_is_told_with_why(page):
    told = page.locator("#failed li").all_text_contents()

    assert len(told) == 4
    assert told[0].startswith("gone-a & b-0: no space left <on> device")
    assert "error 2026-11-22" in told[0]


def test_what_mattered_is_told_of_every_axis(page):
    said = page.locator(".statements").text_content()

    assert "variant, against full" in said
    assert "no <b> changes m.value by -0.25 (in all 2 pairs alike)" in said
    assert "subject, against a & b" in said


def test_runs_are_linked_to_their_reports_and_sort(page, folder):
    table = page.locator("#runs + .wide table")
    link = table.locator("a").first
    assert (folder / "full-a & b-0/report.html").samefile(
        page.evaluate("link => decodeURIComponent(link.pathname)", link.element_handle())
    )
    assert table.locator("tbody tr").count() == 12
    assert table.locator("a").count() == 8
    table.locator("th button", has_text="m.value").click()
    column = table.locator("tbody td:nth-child(7)").all_text_contents()
    numbers = [float(text) for text in column if text]
    assert numbers == sorted(numbers)
    assert column[-4:] == [""] * 4


def test_curves_of_all_runs_are_in_the_colours_of_their_level(page):
    cards = page.locator("#training ~ .cards").first.locator(".card")
    assert cards.locator("h3").all_text_contents() == ["stage.joint/losses.motion"]
    colours = cards.locator("polyline").evaluate_all(
        "all => all.map(l => l.attributes.stroke.value)"
    )
    assert sorted(colours) == sorted([COLOURS[0]] * 5 + [COLOURS[1]] * 5)  # 4 runs and their mean


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_screen(browser, folder, viewport):
    with opened(browser, folder / "grid.html", viewport) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_a_page_prints_a_wide_table_in_portions(page):
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    whole = page.locator("table.sortable").first
    portions = page.locator(".wide").first.locator("table.portion").all()
    heads = [portion.locator("th").all_text_contents() for portion in portions]

    assert len(portions) > 1
    assert all(head[0] == "variant" for head in heads)
    names = ["variant", *(name for head in heads for name in head[1:])]
    assert names == whole.locator("th").all_text_contents()
    page.emulate_media(media="print")
    assert not whole.is_visible()
    assert all(portion.bounding_box()["width"] < 760 for portion in portions)  # of A4
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert whole.is_visible()
    assert page.pdf()[:5] == b"%PDF-"


def test_a_grid_may_be_moved(browser, folder, tmp_path):
    moved = copytree(folder, tmp_path / "moved")
    with opened(browser, moved / "grid.html") as page:
        video = rows(page)[0].locator("video").first
        video.scroll_into_view_if_needed()
        page.wait_for_function(PLAYS, arg=video.element_handle())


def test_what_is_slow_to_read_is_read_again_only_where_it_has_changed(folder, tmp_path):
    folder = copytree(folder, tmp_path / "grid")
    write_results(folder)
    kept = sorted((folder / FOLDER).iterdir())
    before = {path: path.stat().st_mtime_ns for path in kept}
    kept[1].write_text("{")
    events = next((folder / "full-c-0/tensorboard").glob("*[0-9]"))
    events.write_bytes(events.read_bytes()[:100])
    write_results(folder)

    changed = [path.name for path in kept if path.stat().st_mtime_ns != before[path]]
    assert changed == ["full-a & b-1.json", "full-c-0.json"]
    assert json.loads(kept[1].read_text())["kept"]["frames"] == 16


def test_a_grid_of_which_nothing_is_done_has_a_page(browser, tmp_path):
    folder = draw_grid(tmp_path / "grid", {"variant": ["a", "b"]}, lambda point: None)
    write_results(folder)

    with opened(browser, folder / "grid.html") as page:
        assert "2 runs: 2 waiting." in page.locator("body").text_content()
        assert page.locator("#runs + .wide tbody tr").count() == 2


def test_49_levels_look_different():
    signs = [(mark(number), stroke(number)) for number in range(49)]

    assert len({sign for sign, _ in signs}) == len({line for _, line in signs}) == 49


def test_a_mean_of_curves_needs_no_shared_steps_and_skips_what_is_not_finite():
    nan = float("nan")
    curves = [[(0, 1.0), (2, 1.0)], [(1, 3.0), (3, nan)], [(3, nan)]]

    drawn = bundle_plot("loss", {"a": (0, curves), "b": (1, [[(0, nan)]])})
    assert "nan" not in drawn
    assert drawn.count("<polyline") == 3 + 1 + 1  # runs, and the mean of a
    assert "no finite value" in bundle_plot("loss", {"b": (1, [[(0, nan)]])})
