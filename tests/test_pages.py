"""Pages of results, as people meet them: in a browser, from disk, without a network."""

import json
import re
from base64 import b64decode
from pathlib import Path
from shutil import copytree

import av
import pytest
import torch
from browsing import DESK, INDEX_OF, PHONE, draw_run, grey, headless, opened, write_json

from jtcore.errors import JtError
from jtcore.media import read_sample, write_video
from jtcore.pages.contents import of_run
from jtcore.pages.curves import read_curves, thin
from jtcore.pages.media import anew, embed, share
from jtcore.pages.plots import curve_plot, intervals, smooth
from jtcore.pages.results import write_evaluation_page, write_run_page

PLAYS = "video => !video.paused && video.currentTime > 0.1 && !video.error"


@pytest.fixture(scope="module")
def browser():
    with headless() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return draw_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(browser, run):
    """The page of a run, moved far from its files."""
    elsewhere = run.parent / "moved" / "page.html"
    elsewhere.parent.mkdir()
    write_run_page(run).rename(elsewhere)
    with opened(browser, elsewhere) as page:
        yield page


def rows(page):
    """The rows of videos, each with its references or its pair."""
    return page.locator(".row").all()


def test_every_video_of_a_page_plays_far_from_its_file(page):
    played = 0
    for row in rows(page):
        row.scroll_into_view_if_needed()
        for video in row.locator("video").all():
            page.wait_for_function(PLAYS, arg=video.element_handle())
            played += 1

    assert played == 1 + 2 * 4


def test_videos_of_a_row_play_in_step_also_over_their_end(page):
    row = rows(page)[-1]
    row.scroll_into_view_if_needed()
    page.wait_for_function(PLAYS, arg=row.locator("video").first.element_handle())
    times = row.evaluate(
        """row => new Promise(resolve => {
          const [one, other] = row.querySelectorAll("video"), seen = [];
          const look = () => {
            if (!one.seeking && !other.seeking) seen.push([one.currentTime, other.currentTime]);
            const turned = seen.some(([time], i) => i && time < seen[i - 1][0]);
            turned && seen.length > 20 ? resolve(seen) : requestAnimationFrame(look);
          };
          look();
        })"""
    )
    apart = sorted(abs(one - other) for one, other in times)

    assert apart[int(0.9 * len(apart))] < 0.125  # a frame; a busy machine may jump once


def test_a_row_stops_and_is_scrubbed_to_a_frame(page):
    row = rows(page)[1]
    row.scroll_into_view_if_needed()
    videos = row.locator("video").all()
    page.wait_for_function(PLAYS, arg=videos[0].element_handle())
    slider = row.locator("input[type=range]")
    slider.fill("11")

    for video in videos:
        page.wait_for_function(
            "video => video.paused && Math.abs(video.currentTime - 11.5 / 8) < 0.01",
            arg=video.element_handle(),
        )
        page.wait_for_function(f"video => ({INDEX_OF})(video) === 11", arg=video.element_handle())
    assert row.locator("output").text_content() == "frame 12/16"
    slider.press("ArrowRight")
    page.wait_for_function(f"video => ({INDEX_OF})(video) === 12", arg=videos[1].element_handle())
    assert row.locator("button").text_content() == "Play"
    row.locator("button").click()
    page.wait_for_function(PLAYS, arg=videos[0].element_handle())


def test_one_button_stops_all_and_plays_all(page):
    row = rows(page)[0]
    row.scroll_into_view_if_needed()
    video = row.locator("video").first.element_handle()
    page.wait_for_function(PLAYS, arg=video)
    page.click("#all")
    page.wait_for_function("video => video.paused", arg=video)
    page.click("#all")
    page.wait_for_function(PLAYS, arg=video)


def test_a_table_sorts_both_ways_and_leaves_what_is_empty_below(page):
    page.click("summary:has-text('Values of all')")
    table = page.locator("details[open] table")

    def column(number: int) -> list[str]:
        cells = table.locator(f"tbody td:nth-child({number})")
        return [text.strip() for text in cells.all_text_contents()]

    table.locator("th button", has_text="metric.of").click()
    rising = [float(value) for value in column(4)]
    assert rising == sorted(rising)
    assert table.locator("th[aria-sort=ascending]").text_content() == "metric.of"
    table.locator("th button", has_text="metric.of").click()
    assert [float(value) for value in column(4)] == rising[::-1]
    for _ in range(2):
        table.locator("th button", has_text="quiet.x").click()
        assert column(5) == ["1"] * 6 + [""] * 2
    table.locator("th button", has_text="prompt").click()
    assert column(1) == ["a <wug>"] * 4 + ["a dax runs"] * 4


def test_prompts_are_found_by_their_words(page):
    page.fill("#find", "runs dax")
    assert [p.locator("h3").text_content() for p in page.locator(".prompt:visible").all()] == [
        "a dax runs"
    ]
    page.fill("#find", "")
    assert page.locator(".prompt:visible").count() == 2


def test_a_video_that_a_browser_cannot_play_is_told_and_the_others_go_on(browser, run, tmp_path):
    text = write_run_page(run).read_text()
    _, first, _ = re.findall(r"data-src='data:video/mp4;base64,([^']+)'", text)[:3]
    (tmp_path / "page.html").write_text(text.replace(first, "AAAA" + first[4:2000], 1))
    with opened(browser, tmp_path / "page.html") as page:
        pair = rows(page)[1]
        pair.scroll_into_view_if_needed()
        page.wait_for_function(PLAYS, arg=pair.locator("video").nth(1).element_handle())

        assert pair.locator("figure").first.locator("p").all_text_contents() == [
            "This browser cannot play this video."
        ]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_screen(browser, run, viewport):
    with opened(browser, write_run_page(run), viewport) as page:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")

        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_on_a_phone_a_tables_first_numbers_are_seen_and_names_stay_beside_the_last(browser, run):
    with opened(browser, write_run_page(run), PHONE) as page:
        name, number = page.locator("table").first.locator("tbody tr").first.locator("td").all()[:2]
        assert number.bounding_box()["x"] < PHONE["width"] / 2

        page.evaluate("document.querySelector('.wide').scrollLeft = 100")

        assert name.bounding_box()["x"] == 16


def test_a_page_prints_a_picture_of_each_video(browser, run):
    with opened(browser, write_run_page(run)) as page:
        posters = page.eval_on_selector_all(
            "video",
            """videos => Promise.all(videos.map(async video => {
              const image = new Image();
              image.src = video.poster;
              await image.decode();
              return [image.width, image.height];
            }))""",
        )
        assert posters == [[288, 192]] * 9
        assert page.pdf()[:5] == b"%PDF-"


def test_a_page_of_several_runs_has_a_column_for_each(browser, tmp_path, run):
    runs = {name: copytree(run, tmp_path / name) for name in ("one", "other")}
    file = evaluation(tmp_path / "both", runs)
    with opened(browser, write_evaluation_page(file, runs)) as page:
        heads = page.locator("table").first.locator("th").all_text_contents()
        captions = page.locator(".prompt .row").first.locator("figcaption").all_text_contents()
        missing = page.locator(".missing").text_content()

    assert heads == ["metric", "one", "other"]
    assert captions == ["one, seed 0", "other, seed 0"]
    assert missing == "Not measured:clip: model: 'x' is not there"


def evaluation(folder: Path, runs: dict[str, Path]) -> Path:
    """An evaluation of what runs have learned, with one metric that lacks its model."""
    videos = [
        {
            "file": str(run / "samples/adapted" / f"{number:02d}-seed0.mp4"),
            "model": name,
            "prompt": f"prompt {number}",
            "seed": 0,
            "sha256": "",
            "values": {"steady.x": float(number)},
        }
        for name, run in runs.items()
        for number in range(2)
    ]
    mean = {"mean": 0.5, "low": None, "high": None, "videos": 2, "prompts": 2}
    measured = {"identity": {"kind": "steady"}, "hash": "ab" * 32, "better": "lower"}
    table = {
        "version": 1,
        "created": "2026-11-22T00:00:00+00:00",
        "command": ["jt-eval", *runs],
        "title": "both",
        "recipe": None,
        "metrics": {
            "steady": {"kind": "steady", **measured, "missing": None},
            "clip": {"kind": "clip", **measured, "missing": "model: 'x' is not there"},
        },
        "videos": videos,
        "summary": {name: {"steady.x": mean} for name in runs},
        "paired": [],
        "references": {"subject": [], "motion": []},
    }
    write_json(folder / "evaluation.json", table)
    return folder / "evaluation.json"


def test_a_run_shows_its_own_numbers_where_its_evaluation_has_others(tmp_path, run):
    run = copytree(run, tmp_path / "run")
    assert [numbers.title for numbers in of_run(run).numbers] == ["Metrics that the run measured"]
    evaluation(run / "evaluation", {"adapted": run})

    shown = of_run(run)
    assert [numbers.title for numbers in shown.numbers] == [
        "Metrics",
        "Metrics that the run measured",
    ]
    table = json.loads((run / "evaluation/evaluation.json").read_text())
    samples = json.loads((run / "metrics.json").read_text())["samples"]
    table["videos"] = [
        {**entry, "file": f"../samples/{entry['file']}", "values": entry["metrics"]}
        for entry in samples
    ]
    write_json(run / "evaluation/evaluation.json", table)
    assert [numbers.title for numbers in of_run(run).numbers] == ["Metrics"]
    assert len(of_run(run).shots) == 8


def test_a_video_that_was_deleted_is_told(tmp_path, run):
    run = copytree(run, tmp_path / "run")
    (run / "samples/base/01-seed1.mp4").unlink()

    assert "base, seed 1</a>: its file is not there" in write_run_page(run).read_text()


def test_a_damaged_evaluation_is_named(tmp_path, run):
    run = copytree(run, tmp_path / "run")
    write_json(run / "evaluation/evaluation.json", {})
    (run / "evaluation/evaluation.json").write_text("{")

    with pytest.raises(JtError, match=r"evaluation\.json: damaged: "):
        write_run_page(run)


def noisy(tmp_path) -> Path:
    path = tmp_path / "noisy.mp4"
    write_video(path, torch.rand(3, 2, 360, 480, generator=torch.Generator()), 4.0)
    return path


def decoded(uri: str, tmp_path) -> tuple[torch.Tensor, float]:
    path = tmp_path / "embedded.mp4"
    path.write_bytes(b64decode(uri.partition(",")[2]))
    return read_sample(path)


def test_a_small_video_is_embedded_as_it_is_and_a_large_one_as_a_preview(tmp_path):
    path = noisy(tmp_path)
    size = path.stat().st_size
    whole, first, last = (embed(path, room) for room in (size, size // 2, 1))

    assert b64decode(whole.uri.partition(",")[2]) == path.read_bytes()
    assert [each.is_preview for each in (whole, first, last)] == [False, True, True]
    for medium, shape in ((first, (3, 2, 320, 426)), (last, (3, 2, 160, 214))):
        video, fps = decoded(medium.uri, tmp_path)
        assert video.shape == shape
        assert fps == pytest.approx(4.0)


def test_the_share_of_a_video_falls_with_their_number():
    assert share(1) == 2**20
    assert share(96) == 2**19


@pytest.mark.parametrize("codec", [("mpeg4", "yuv420p"), ("libx264", "yuv444p")])
def test_what_browsers_do_not_play_is_encoded_anew(tmp_path, codec):
    path = tmp_path / "foreign.mp4"
    name, pixels = codec
    with av.open(path, "w") as file:
        stream = file.add_stream(name, rate=8)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixels
        for frame in (grey(8) * 255).byte().permute(1, 2, 3, 0).contiguous().numpy():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    medium = embed(path, 2**20)

    assert medium.is_preview
    video, _ = decoded(medium.uri, tmp_path)
    assert (video - grey(8)).abs().max() < 0.05


def test_a_gif_becomes_a_video_and_a_picture_stays_one(tmp_path):
    from PIL import Image

    frames = [Image.new("RGB", (33, 21), (40 * i, 0, 0)) for i in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=200)
    frames[4].save(tmp_path / "a.png")
    moving, still = embed(tmp_path / "a.gif", 2**20), embed(tmp_path / "a.png", 2**20)

    assert (moving.frames, moving.fps, moving.is_picture) == (5, 5.0, False)
    assert decoded(moving.uri, tmp_path)[0].shape == (3, 5, 20, 32)
    assert still.is_picture
    assert still.uri.startswith("data:image/webp;base64,")


def test_what_is_encoded_anew_tells_nothing_of_its_file(tmp_path):
    path = tmp_path / "telling.mp4"
    with av.open(path, "w") as file:
        file.metadata["title"] = file.metadata["comment"] = "by-method-a"
        stream = file.add_stream("libx264", rate=8)
        stream.width = stream.height = 32
        file.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(stream.encode())

    assert b"by-method-a" in path.read_bytes()
    assert b"by-method-a" not in b64decode(anew(path, 32, 18).uri.partition(",")[2])


def test_a_curve_is_thinned_to_means_of_neighbours():
    points = [(step, float(step % 2)) for step in range(1000)]
    thinned = thin(points, 100)

    assert len(thinned) == 100
    assert thinned[0] == (4.5, 0.5)
    assert thin(points[:100], 100) == points[:100]


def test_steps_that_a_resumed_run_did_again_count_once(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for first, purge, value in ((0, None, 1.0), (2, 2, 2.0)):
        with SummaryWriter(tmp_path / "tensorboard", purge_step=purge) as writer:
            for step in range(first, 4):
                writer.add_scalar("stage.joint/lr", value, step)
            writer.add_scalar("metric.base/x", value, 4)

    assert read_curves(tmp_path) == {"stage.joint/lr": [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)]}


def test_a_run_without_events_has_no_curves(tmp_path):
    assert read_curves(tmp_path) == {}


def test_a_smooth_curve_is_the_mean_of_neighbours_and_its_last_point_no_jump():
    line = [(step, 2.0 * step) for step in range(50)]
    assert smooth(line)[10:40] == line[10:40]

    jump = [*((step, 0.0) for step in range(49)), (49, 11.0)]
    assert smooth(jump)[49] == (49, 1.0)


def test_plots_bear_numbers_that_are_alone_equal_or_not_finite():
    nan = float("nan")

    assert "no finite value" in curve_plot("loss", {"run": (0, [(0, nan)])})
    assert "nan" not in curve_plot("loss", {"run": (0, [(0, nan), (1, 1.0)])})
    assert "nan" not in intervals("a", [("base", 0, 0.0, None, None)])
