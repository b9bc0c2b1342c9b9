"""What a run leaves for people to read."""

import json
import sys
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from jtcore.evaluate import summarise
from jtcore.media import read_sample, read_thumbnails
from jtcore.pages.curves import read_curves


@pytest.fixture(autouse=True)
def command(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/jt-run", "a <recipe>", "--set", "seed=3"])


@pytest.fixture
def run(table, jt_run) -> Path:
    table["title"] = "one <b> & two"
    table["validation"] = {"data": ["held_out"], "draws": 2}
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
    assert results["validation"]["held_out"].keys() == {
        "base",
        "adapted",
        "change",
        "change_standard_error",
        "adapters",
    }


def test_the_page_for_people_who_read_text(run):
    results = json.loads((run / "metrics.json").read_text())
    losses = results["validation"]["held_out"]
    metrics = [
        results["metrics"][model]["consistency.temporal_consistency"]
        for model in ("base", "adapted")
    ]
    cells = " | ".join(f"{m['mean']:.4f} ± {m['deviation']:.4f} (n=2)" for m in metrics)

    assert (run / "report.md").read_text() == (
        "# one <b> & two\n\n"
        f"Training seed 3, steps 3, trained parameters {count_trained(run):,}\n\n"
        "    jt-run 'a <recipe>' --set seed=3\n\n"
        "## Diffusion loss on held-out files, same noise\n\n"
        "| held-out data | base | adapted | change ± standard error |\n"
        "| --- | --- | --- | --- |\n"
        f"| held_out | {losses['base']:.4f} | {losses['adapted']:.4f} |"
        f" {losses['change']:+.4f} ± {losses['change_standard_error']:.4f} |\n\n"
        "## Metrics of the samples, mean ± deviation over videos\n\n"
        "| metric | base | adapted |\n"
        "| --- | --- | --- |\n"
        f"| consistency.temporal_consistency | {cells} |\n\n"
        "## Adapters, and the modules of the denoiser that they reach\n\n"
        "| adapter | modules | parameters |\n"
        "| --- | --- | --- |\n"
        f"| joint | 2 | {count_trained(run):,} |\n\n"
        "## Samples\n\n"
        "![references, base and adapted model](samples/contact_sheet.png)\n\n"
        "- base, seed 0: [a <wug>](samples/base/00-seed0.mp4)\n"
        "- adapted, seed 0: [a <wug>](samples/adapted/00-seed0.mp4)\n"
        "- base, seed 1: [a <wug>](samples/base/00-seed1.mp4)\n"
        "- adapted, seed 1: [a <wug>](samples/adapted/00-seed1.mp4)\n"
    )


def count_trained(run: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(run / "adapters/joint.safetensors").values())


class Page(HTMLParser):
    """The words, the videos, the pictures and the links of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.words: list[str] = []
        self.videos: list[str] = []
        self.pictures: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_data(self, data):
        self.words.append(data)

    def handle_starttag(self, tag, attributes):
        found = {"data-src": self.videos, "src": self.pictures, "href": self.links}
        for name, value in attributes:
            found.get(name, []).append(value)


def content(uri: str) -> bytes:
    return b64decode(uri.partition(",")[2])


def test_the_page_for_browsers_holds_the_files_and_escapes_what_people_wrote(run):
    page = Page((run / "report.html").read_text())

    assert {
        "one <b> & two",
        f"Training seed 3, steps 3, trained parameters {count_trained(run):,}",
        "jt-run 'a <recipe>' --set seed=3",
        "held-out data",
        "motion: 00.mp4",
        "a <wug>",
        (run / "recipe.resolved.toml").read_text(),
    } <= {*page.words}
    files = [
        "samples/references/motion-00.mp4",  # what is validated on is no reference
        "samples/references/motion-01.mp4",
        "samples/base/00-seed0.mp4",
        "samples/adapted/00-seed0.mp4",
        "samples/base/00-seed1.mp4",
        "samples/adapted/00-seed1.mp4",
    ]
    assert [content(uri) for uri in page.videos] == [(run / file).read_bytes() for file in files]
    assert len(page.pictures) == 2  # the subject's
    assert [link for link in page.links if link[0] != "#"] == files[2:]


def test_pairs_stand_below_their_own_prompt(table, jt_run):
    table["sample"] |= {"prompts": ["a wug", "a dax"]}
    words = Page((jt_run(table) / "report.html").read_text()).words

    shown = [word for word in words if word in ("a wug", "a dax") or word.endswith(", seed 0")]
    pair = ["base, seed 0", "adapted, seed 0"]
    assert shown[:6] == ["a wug", *pair, "a dax", *pair]


def test_the_page_has_the_curves_of_every_step(run):
    curves = read_curves(run)

    assert {"stage.joint/branch.joint.losses.motion", "stage.joint/lr"} <= curves.keys()
    assert [step for step, _ in curves["stage.joint/lr"]] == [0, 1, 2]
    assert "stage.joint/branch.joint.losses.motion" in (run / "report.html").read_text()


def test_references_are_copies_at_the_speed_of_the_originals(table, jt_run, data):
    references = jt_run(table) / "samples/references"

    assert sorted(path.name for path in references.iterdir()) == [
        "motion-00.mp4",
        "motion-01.mp4",
        "subject-00.mp4",
        "subject-01.mp4",
    ]
    copy, fps = read_sample(references / "motion-01.mp4")
    original, original_fps = read_sample(data / "motion/01.mp4")
    assert (copy - original).abs().mean() < 0.02
    assert fps == pytest.approx(original_fps, rel=0.01)
    copy, fps = read_sample(references / "subject-01.mp4")
    assert (copy - read_thumbnails(data / "subject/01.png")).abs().mean() < 0.02
    assert fps == 1


def test_references_are_framed_as_training_sees_them(table, jt_run):
    table["data"]["motion"]["size"] = [24, 48]
    copy, _ = read_sample(jt_run(table) / "samples/references/motion-00.mp4")

    assert copy.shape[2:] == (192, 384)


def test_data_that_nothing_draws_from_is_no_reference(table, jt_run):
    table["data"]["unused"] = {**table["data"]["motion"], "source": "nowhere/*.mp4"}
    del table["stage"]["joint"]["branch"]["joint"]["losses"]["appearance"]
    table["stage"]["joint"]["branch"]["joint"]["data"] = ["motion"]
    references = jt_run(table) / "samples/references"

    assert {path.name for path in references.iterdir()} == {"motion-00.mp4", "motion-01.mp4"}


def test_the_contact_sheet_has_a_row_for_pictures_and_for_each_clip_and_video(run):
    with Image.open(run / "samples/contact_sheet.png") as sheet:
        width, height = sheet.size

    rows = 1 + 2 + 4  # pictures, two clips; what is validated on is no reference
    assert height == rows * (34 + 144) + 2 * 20
    assert width > 3 * 144


def test_a_run_that_samples_nothing_has_a_report(table, jt_run):
    del table["sample"], table["metric"]
    run = jt_run(table)

    reach = {"joint": {"modules": 2, "parameters": count_trained(run)}}
    assert json.loads((run / "metrics.json").read_text()) == {"adapters": reach}
    assert (run / "report.md").read_text() == (
        "# tiny\n\n"
        f"Training seed 3, steps 3, trained parameters {count_trained(run):,}\n\n"
        "    jt-run 'a <recipe>' --set seed=3\n\n"
        "## Adapters, and the modules of the denoiser that they reach\n\n"
        "| adapter | modules | parameters |\n"
        "| --- | --- | --- |\n"
        f"| joint | 2 | {count_trained(run):,} |\n"
    )
    assert not (run / "samples").exists()


def test_a_metric_without_a_value_for_some_videos_counts_the_others():
    samples = [
        {"model": "base", "metrics": {}},
        {"model": "base", "metrics": {"a": 1.0}},
        {"model": "base", "metrics": {"a": 3.0}},
    ]
    (found,) = summarise(samples).values()

    assert found == {"a": {"mean": 2.0, "deviation": pytest.approx(2**0.5), "videos": 2}}
