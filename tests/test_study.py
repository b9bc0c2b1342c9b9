"""Blind comparisons: a page that does not know, a key that does, and what is counted."""

import json
import re
from base64 import b64decode
from html import escape
from itertools import combinations
from pathlib import Path
from shutil import copytree

import pytest
from browsing import INDEX_OF, PHONE, draw_run, headless, opened, write_json

from jtcore import cli
from jtcore.evaluation.measuring import Video
from jtcore.pages.score import alpha
from jtcore.pages.study import choose_rung, draw
from jtcore.statistics import wilson

PLAYS = "video => !video.paused && video.currentTime > 0.1 && !video.error"


@pytest.fixture(scope="module")
def browser():
    with headless() as found:
        yield found


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Of two methods, with the same prompts and seeds."""
    folder = tmp_path_factory.mktemp("runs")
    first = draw_run(folder / "jointtuner")
    return [first, copytree(first, folder / "dreamvideo")]


@pytest.fixture(scope="module")
def study(runs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("study")
    assert cli.study([*map(str, runs), "--out", str(out), "--ties", "--seed", "1"]) == 0
    return out


def test_a_page_names_no_method_and_the_key_does(study, runs):
    page, key = (study / "study.html").read_text(), json.loads((study / "key.json").read_text())
    words = re.sub(r"base64,[^'\"]+", "", page)
    files = [b64decode(found) for found in re.findall(r"base64,([^'\"]+)", page)]

    for name in ("jointtuner", "dreamvideo", "adapted", str(runs[0].parent)):
        assert name not in words
        assert not any(name.encode() in file for file in files)
    assert key["methods"] == ["jointtuner", "dreamvideo"]
    assert len(files) > 4 * 2 * 2  # each with its picture
    for trial in key["trials"].values():
        assert {trial["left"]["method"], trial["right"]["method"]} == {*key["methods"]}
        left, right = (Path(trial[side]["file"]) for side in ("left", "right"))
        assert left.name == right.name
        assert left.parents[2].name == trial["left"]["method"]


def test_what_people_answer_is_saved_kept_and_scored(browser, study, tmp_path, capsys):
    with opened(browser, study / "study.html", PHONE) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        page.fill("#rater", "A. B.")
        page.click("text=Begin")
        video = page.locator(".trial:visible video").first.element_handle()
        page.wait_for_function(PLAYS, arg=video)
        assert page.locator("#references video:visible").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]

        for choice in ("Left", "Right", "Equal"):  # one for each question, by clicks
            place = ("Left", "Right", "Equal").index(choice)
            block = page.locator(".trial:visible .question").nth(place)
            block.locator("button", has_text=choice).click()
        page.click("#next")
        for key in ("ArrowLeft", "ArrowRight", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        page.wait_for_function("document.querySelector('#place').textContent === 'pair 3 of 4'")
        page.keyboard.press("Backspace")
        pressed = page.locator(".trial:visible button[aria-pressed=true]").all_text_contents()
        assert pressed == ["Left", "Right", "Equal"]

        page.reload()
        page.wait_for_function("document.querySelector('#place').textContent === 'pair 2 of 4'")
        page.click("#next")
        assert page.locator("#next").is_disabled()
        for _ in range(2):
            for _ in range(3):
                page.keyboard.press("ArrowLeft")
            page.keyboard.press("Enter")
        assert page.locator("#place").text_content() == "all 4 pairs"
        with page.expect_download() as download:
            page.click("#end .save")
        assert download.value.suggested_filename.endswith("-A_B_.json")
        download.value.save_as(tmp_path / "answers.json")

    given = json.loads((tmp_path / "answers.json").read_text())
    assert given["rater"] == "A. B."
    choices = [(each["trial"], each["question"], each["choice"]) for each in given["answers"]]
    asked = ("subject", "motion", "overall")
    mixed = ("left", "right", "equal")
    assert choices == [
        (f"pair-{n:03d}", question, mixed[place] if n < 3 else "left")
        for n in range(1, 5)
        for place, question in enumerate(asked)
    ]
    found = scored(capsys, [tmp_path / "answers.json"], study / "key.json")
    key = json.loads((study / "key.json").read_text())
    wins = sum(trial["left"]["method"] == "jointtuner" for trial in key["trials"].values())
    assert found["raters"] == {"A. B.": 12}
    assert found["results"][0]["wins"] == wins == 2


def test_both_sides_play_and_are_scrubbed_together(browser, study):
    with opened(browser, study / "study.html") as page:
        page.click("text=Begin")
        page.locator(".trial:visible input").fill("3")
        for video in page.locator(".trial:visible video").all():
            page.wait_for_function(
                f"video => video.paused && ({INDEX_OF})(video) === 3", arg=video.element_handle()
            )


def scored(capsys, answers: list[Path], key: Path) -> dict:
    capsys.readouterr()
    assert cli.study(["--score", *map(str, answers), "--key", str(key), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def methods(*names: str, count: int = 7) -> dict[str, list[Video]]:
    return {
        name: [Video(Path(f"{name}-{n}.mp4"), name, f"p{n}", 0) for n in range(count)]
        for name in names
    }


def test_every_two_methods_meet_on_each_prompt_and_each_is_as_often_left():
    trials = draw(methods("a", "b", "c"), seed=5)

    met = sorted((*sorted((t.left.model, t.right.model)), t.left.prompt) for t in trials)
    assert met == sorted((*two, f"p{n}") for two in combinations("abc", 2) for n in range(7))
    assert all(trial.left.prompt == trial.right.prompt for trial in trials)
    for one, other in combinations("abc", 2):
        left = [t.left.model for t in trials if {t.left.model, t.right.model} == {one, other}]
        assert sorted((left.count(one), left.count(other))) == [3, 4]
    assert trials == draw(methods("a", "b", "c"), seed=5)
    assert trials != draw(methods("a", "b", "c"), seed=6)
    assert len(draw(methods("a", "b", "c"), 5, count=2)) == 6


def test_all_videos_are_encoded_alike_and_smaller_where_there_are_many(runs):
    file = runs[0] / "samples/base/00-seed0.mp4"

    assert choose_rung([file] * 8) == (512, 18)
    assert choose_rung([file] * 10**6) == (256, 28)


def test_a_single_run_is_compared_with_its_base_model(runs, tmp_path):
    assert cli.study([f"ours={runs[0]}", "--out", str(tmp_path), "--questions", "overall"]) == 0

    key = json.loads((tmp_path / "key.json").read_text())
    assert key["methods"] == ["ours adapted", "ours base"]
    assert key["questions"] == ["overall"]
    assert "How" not in (tmp_path / "study.html").read_text()


KEY = {
    "version": 1,
    "study": "abc",
    "questions": ["subject", "overall"],
    "ties": True,
    "methods": ["a", "b"],
    "trials": {
        f"pair-{n:03d}": {"left": {"method": "ab"[n % 2]}, "right": {"method": "ba"[n % 2]}}
        for n in range(4)
    },
}


def answers(folder: Path, rater: str, *winners: str, question: str = "subject") -> Path:
    """A rater's file, who finds "a", "b" or "=" the winner of each pair in turn."""
    given = [
        {
            "trial": trial,
            "question": question,
            "choice": next(
                (side for side in ("left", "right") if KEY["trials"][trial][side]["method"] == w),
                "equal",
            ),
        }
        for trial, w in zip(KEY["trials"], winners, strict=False)
    ]
    path = folder / f"{rater}.json"
    write_json(path, {"version": 1, "study": "abc", "rater": rater, "answers": given})
    return path


@pytest.fixture
def key(tmp_path) -> Path:
    write_json(tmp_path / "key.json", KEY)
    return tmp_path / "key.json"


def test_answers_are_counted_by_method_and_by_majority(key, tmp_path, capsys):
    files = [
        answers(tmp_path, "r1", *"aab="),
        answers(tmp_path, "r2", *"aaba"),
        answers(tmp_path, "r3", *"aba"),
    ]
    found = scored(capsys, files, key)

    (result,) = found["results"]
    assert {name: result[name] for name in ("question", "one", "other")} == {
        "question": "subject",
        "one": "a",
        "other": "b",
    }
    over_all, by_majority = wilson(7, 10), wilson(3, 4)
    assert [result[name] for name in ("wins", "ties", "losses")] == [7, 1, 3]
    assert [result["low"], result["high"]] == [over_all.low, over_all.high]
    majority = result["majority"]
    assert [majority[name] for name in ("wins", "ties", "losses")] == [3, 0, 1]
    assert [majority["low"], majority["high"]] == [by_majority.low, by_majority.high]
    agreement = found["agreement"][0]
    assert agreement["pairs"] == 4
    assert agreement["same"] == pytest.approx((1 + 1 / 3 + 1 / 3 + 0) / 4)
    assert found["agreement"][1] == {"question": "overall", "pairs": 0, "same": None, "alpha": None}
    assert found["left"]["wins"] + found["left"]["losses"] + found["left"]["ties"] == 11


def test_the_table_of_scores(key, tmp_path, capsys):
    files = [answers(tmp_path, "r1", *"aaa="), answers(tmp_path, "r2", *"aaab")]
    assert cli.study(["--score", *map(str, files), "--key", str(key)]) == 0

    assert capsys.readouterr().out == (
        "study abc: 8 answers of 2 raters\n\n"
        "question  methods   won  equal  lost  win rate           of pairs, by majority\n"
        "subject   a over b  6    1      1     0.86 [0.49, 0.97]  0.75 [0.30, 0.95]\n\n"
        "question  pairs of several raters  same answer  Krippendorff's alpha\n"
        "subject   4                        0.75         0.46\n"
        "overall   0\n\n"
        "left was chosen 0.71 [0.36, 0.92]; far from 0.5, raters favour a side\n"
    )


def test_agreement_is_krippendorffs():
    """His example of nominal data with four observers, of whom some are absent."""
    observers = (
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    )
    units = [[v for v in unit if v != "."] for unit in zip(*map(str.split, observers), strict=True)]

    assert alpha(units) == pytest.approx(0.743, abs=0.0005)
    assert alpha([[1, 1], [2, 2]]) == 1
    assert alpha([[1, 1], [1, 1], [1]]) is None


@pytest.mark.parametrize(
    "change, told",
    [
        ({"study": "other"}, "is of study 'other', and the key of 'abc'"),
        ({"answers": None}, "has no answers of a study; expected what its page has saved"),
        ({"answers": [1]}, "answers[0]: the study has no such pair or question"),
        (
            {"answers": [{"trial": "pair-000", "question": "subject", "choice": []}]},
            "answers[0]: choice: expected one of left, right, equal",
        ),
    ],
)
def test_files_that_are_no_answers_are_told(key, tmp_path, capsys, change, told):
    path = answers(tmp_path, "r1", *"aaaa")
    write_json(path, json.loads(path.read_text()) | change)

    assert cli.study(["--score", str(path), "--key", str(key)]) == 2
    assert capsys.readouterr().err == f"{path}: {told}\n"


def test_a_rater_who_saved_twice_counts_once(key, tmp_path, capsys):
    path = answers(tmp_path, "r1", *"aaaa")

    assert cli.study(["--score", str(path), str(path), "--key", str(key)]) == 2
    assert capsys.readouterr().err == (
        "r1: two files have answers of this rater to pair-000, subject; keep one\n"
    )


def test_a_study_without_common_prompts_or_references_is_told(runs, tmp_path, capsys):
    other = copytree(runs[0], tmp_path / "other")
    results = json.loads((other / "metrics.json").read_text())
    write_json(
        other / "metrics.json",
        {"samples": [{**entry, "prompt": "another"} for entry in results["samples"]]},
    )
    assert cli.study([str(runs[0]), str(other), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "jointtuner and other have no video of the same prompt and seed\n"
    )
    write_json(other / "report.json", {})
    assert cli.study([str(other), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "".join(
        f"--questions: {name}: there is no reference of it; name one with --{name}, or ask other"
        " questions\n"
        for name in ("subject", "motion")
    )
    assert not (tmp_path / "out").exists()


def test_raters_read_other_words_in_place_of_those_that_they_cannot_know(runs, tmp_path, capsys):
    own = json.loads((runs[0] / "metrics.json").read_text())["samples"][0]["prompt"]
    *others, word = own.split()  # of which angle brackets are a part
    out = tmp_path / "out"
    made = [*map(str, runs), "--questions", "overall", "--out", str(out), "--say", f"{word}=that"]
    assert cli.study(made) == 0
    page = (out / "study.html").read_text()
    assert f"<h2>{' '.join([*others, 'that'])}</h2>" in page
    assert escape(own) not in page
    capsys.readouterr()
    assert cli.study([*made[:-1], "nobody=that"]) == 2
    assert "--say nobody=that: expected WORD=TEXT" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, told",
    [
        ([], "name either what is compared or --score FILE"),
        (["a", "--score", "b"], "name either what is compared or --score FILE"),
        (["--score", "b"], "--score needs the --key of the study"),
        (["--score", "b", "--key", "k", "--ties"], "--score takes --key and --json, and no --ties"),
        (["a", "b", "--json"], "--key and --json are of --score"),
        (["a", "b"], "name a folder for the study with --out DIR"),
        (["a", "--out", "o", "--pairs", "0"], "--pairs: expected 1 or more, got 0"),
    ],
)
def test_options_that_do_not_belong_together_are_told(capsys, arguments, told):
    with pytest.raises(SystemExit) as left:
        cli.study(arguments)
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {told}\n")


def test_what_is_no_folder_and_what_has_one_model_is_told(runs, tmp_path, capsys):
    assert cli.study(["nowhere", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "nowhere: is not a folder; expected a run directory, or one of videos\n"
    )
    videos = runs[0] / "samples/base"
    assert cli.study([str(videos), "--out", str(tmp_path), "--prompts", prompts(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{videos}: has videos of one model; expected another to compare with\n"
    )


def test_folders_of_videos_are_compared_with_references_that_are_named(runs, tmp_path):
    folders = [f"{name}={runs[0] / 'samples' / name}" for name in ("base", "adapted")]
    reference = str(runs[0] / "samples/references/motion-00.mp4")
    options = ["--questions", "motion", "overall", "--motion", reference, "--title", "Which <one>?"]
    where = ["--out", str(tmp_path / "out"), "--prompts", prompts(tmp_path)]
    assert cli.study([*folders, *where, *options]) == 0

    key = json.loads((tmp_path / "out/key.json").read_text())
    page = (tmp_path / "out/study.html").read_text()
    assert key["methods"] == ["base", "adapted"]
    assert {trial["prompt"] for trial in key["trials"].values()} == {"one", "two"}
    assert "<h1>Which &lt;one&gt;?</h1>" in page
    assert "Reference: motion" in page and "Reference: subject" not in page


def prompts(folder: Path) -> str:
    (folder / "prompts.txt").write_text("one\ntwo\n")
    return str(folder / "prompts.txt")
