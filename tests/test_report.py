"""What a run leaves for people to read."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from jtcore.evaluate import summarise


@pytest.fixture
def run(table, jt_run) -> Path:
    table["title"] = "one <b> & two"
    table["validation"] = {"data": ["subject"], "draws": 2}
    table["sample"] |= {"prompts": ["a <wug>"], "seeds": [0, 1]}
    return jt_run(table)


def test_metrics_have_every_sample_and_their_mean(run):
    results = json.loads((run / "metrics.json").read_text())

    assert [entry["file"] for entry in results["samples"]] == [
        "base/00-seed0.mp4",
        "base/00-seed1.mp4",
        "adapted/00-seed0.mp4",
        "adapted/00-seed1.mp4",
    ]
    assert results["samples"][3] == {
        "file": "adapted/00-seed1.mp4",
        "model": "adapted",
        "prompt": "a <wug>",
        "seed": 1,
        "scales": {"joint": 1.0},
        "metrics": results["samples"][3]["metrics"],
    }
    values = [entry["metrics"]["consistency.temporal_consistency"] for entry in results["samples"]]
    mean = results["metrics"]["adapted"]["consistency.temporal_consistency"]
    assert mean["mean"] == pytest.approx(sum(values[2:]) / 2)
    assert mean["deviation"] == pytest.approx(abs(values[2] - values[3]) / 2**0.5)
    assert mean["videos"] == 2
    assert results["validation"]["subject"].keys() == {
        "base",
        "adapted",
        "change",
        "change_standard_error",
    }


def test_the_page_for_people_who_read_text(run):
    results = json.loads((run / "metrics.json").read_text())
    losses = results["validation"]["subject"]
    metrics = [
        results["metrics"][model]["consistency.temporal_consistency"]
        for model in ("base", "adapted")
    ]
    cells = " | ".join(f"{m['mean']:.4f} ± {m['deviation']:.4f} (n=2)" for m in metrics)

    assert (run / "report.md").read_text() == (
        "# one <b> & two\n\n"
        "## Diffusion loss on held-out files, same noise\n\n"
        "| held-out data | base | adapted | change ± standard error |\n"
        "| --- | --- | --- | --- |\n"
        f"| subject | {losses['base']:.4f} | {losses['adapted']:.4f} |"
        f" {losses['change']:+.4f} ± {losses['change_standard_error']:.4f} |\n\n"
        "## Metrics of the samples, mean ± deviation over videos\n\n"
        "| metric | base | adapted |\n"
        "| --- | --- | --- |\n"
        f"| consistency.temporal_consistency | {cells} |\n\n"
        "## Samples\n\n"
        "![references, base and adapted model](samples/contact_sheet.png)\n\n"
        "- base, seed 0: [a <wug>](samples/base/00-seed0.mp4)\n"
        "- base, seed 1: [a <wug>](samples/base/00-seed1.mp4)\n"
        "- adapted, seed 0: [a <wug>](samples/adapted/00-seed0.mp4)\n"
        "- adapted, seed 1: [a <wug>](samples/adapted/00-seed1.mp4)\n"
    )


class Page(HTMLParser):
    """The words and the sources of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.words: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_data(self, data):
        self.words.append(data)

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name == "src"]


def test_the_page_for_browsers_shows_every_video_and_escapes_what_people_wrote(run):
    page = Page((run / "report.html").read_text())

    assert {"one <b> & two", "a <wug>", "adapted, seed 1", "held-out data"} <= {*page.words}
    assert page.sources == [
        "samples/base/00-seed0.mp4",
        "samples/base/00-seed1.mp4",
        "samples/adapted/00-seed0.mp4",
        "samples/adapted/00-seed1.mp4",
        "samples/contact_sheet.png",
    ]
    assert all((run / source).is_file() for source in page.sources)


def test_the_contact_sheet_has_a_row_for_references_and_each_video(run):
    with Image.open(run / "samples/contact_sheet.png") as sheet:
        width, height = sheet.size

    rows = 1 + 4  # what is validated on is no reference
    assert height == rows * (34 + 144) + 2 * 20
    assert width > 3 * 144


def test_a_run_that_samples_nothing_has_a_report(table, jt_run):
    del table["sample"], table["metric"]
    run = jt_run(table)

    assert json.loads((run / "metrics.json").read_text()) == {}
    assert (run / "report.md").read_text() == "# tiny\n\n"
    assert not (run / "samples").exists()


def test_a_metric_without_a_value_for_some_videos_counts_the_others():
    samples = [
        {"model": "base", "metrics": {}},
        {"model": "base", "metrics": {"a": 1.0}},
        {"model": "base", "metrics": {"a": 3.0}},
    ]
    (found,) = summarise(samples).values()

    assert found == {"a": {"mean": 2.0, "deviation": pytest.approx(2**0.5), "videos": 2}}
