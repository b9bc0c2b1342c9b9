"""Datasets of subjects and motions: what a download lacks, and the grid over its pairs."""

import shutil
from pathlib import Path

import pytest

from jtcore import cli, commands
from jtcore.check import check
from jtcore.datasets.layout import find_layout
from jtcore.grids.grid import variants
from jtcore.recipe import build_recipe
from jtcore.tables import parse_toml, read_table

SUBJECTS = ("bear_plushie", "toy car")
MOTIONS = ("person_playing_flute", "twirling")


@pytest.fixture
def download(data: Path, tmp_path: Path) -> Path:
    """In the layout of JointTuner's benchmark, but for how many frames there are."""
    root = tmp_path / "download"
    picture, clip = (sorted((data / name).glob("*.[pm][np][g4]"))[0] for name in MAINS)
    for name in SUBJECTS:
        for number in range(3):
            put(picture, root / "subject" / name / f"{number:02d}{picture.suffix}")
    for name in MOTIONS:
        for clips in ("motion_16f", "motion_49f"):
            for number in range(2):
                put(clip, root / clips / name / f"{number:02d}.mp4")
    return root


MAINS = ("subject", "motion")


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """The shipped one, for clips of eight frames and four pairs."""
    text = Path(str(SHIPPED)).read_text()
    path = tmp_path / "layout.toml"
    text = text.replace("frames = 16", "frames = 8").replace("frames = 49", "frames = 8")
    path.write_text(text.replace("pairs = 90", "pairs = 4"))
    return path


SHIPPED = Path(__file__).parent.parent / "recipes" / "layouts" / "jointtuner.toml"


def put(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)


def checked(capsys, root: Path, layout: str | Path) -> tuple[int, list[str]]:
    status = commands.data(["check", str(root), "--layout", str(layout)])
    out, err = capsys.readouterr()
    return status, [line.removeprefix(f"{root}: ") for line in (out or err).splitlines()]


def test_a_whole_download_lacks_nothing(download, layout, capsys):
    assert checked(capsys, download, layout) == (
        0,
        ["2 subjects, 2 motions (2 as 16f, 2 as 49f): 4 pairs; nothing is missing"],
    )


def test_all_that_a_download_lacks_is_told_at_once(download, layout, capsys):
    (download / "subject/bear_plushie/01.png").unlink()
    shutil.rmtree(download / "motion_49f/twirling")
    whole = (download / "motion_16f/twirling/00.mp4").read_bytes()
    (download / "motion_16f/twirling/00.mp4").write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(download / "subject/toy car")
    (download / "subject/toy car").mkdir()

    status, problems = checked(capsys, download, layout)
    assert status == 2
    assert problems.pop(3).startswith("motion_16f/twirling/00.mp4: cannot be read: ")
    assert problems == [
        "motion_49f: lacks twirling, which another folder of clips has",
        "subject/bear_plushie: 01 is missing before 02.png",
        "subject/toy car: has no files in it",
    ]


def test_folders_that_are_still_packed_are_told(download, layout, capsys):
    shutil.rmtree(download / "subject")
    for number in (1, 2):
        (download / f"subject-{number}.zip").write_bytes(b"PK")
    assert checked(capsys, download, layout) == (
        2,
        ["subject: there is no such folder; unpack subject-1.zip, subject-2.zip"],
    )


def test_pairs_that_cannot_be_made_and_short_clips_are_told(download, layout, capsys):
    text = layout.read_text().replace("pairs = 4", "pairs = 5")
    layout.write_text(
        text.replace('folder = "motion_49f"\nframes = 8', 'folder = "motion_49f"\nframes = 9')
    )
    status, problems = checked(capsys, download, layout)
    assert (status, problems) == (
        2,
        [
            "2 subjects with 2 motions make 4 pairs, and 5 are known of: subjects or motions are"
            " missing",
            "motion_49f/person_playing_flute/00.mp4: has 8 of 9 frames",
            "motion_49f/person_playing_flute/01.mp4: has 8 of 9 frames",
            "motion_49f/twirling/00.mp4: has 8 of 9 frames",
            "motion_49f/twirling/01.mp4: has 8 of 9 frames",
        ],
    )


def test_the_shipped_layout_is_found_by_name(capsys, tmp_path):
    assert find_layout("jointtuner").pairs == 90
    assert checked(capsys, tmp_path / "nowhere", "jointtuner") == (2, ["there is no such folder"])
    status, told = checked(capsys, tmp_path, "jointuner")
    assert status == 2
    assert told == [
        "--layout jointuner: no such file, nor a shipped layout; did you mean 'jointtuner'?"
    ]


@pytest.fixture
def description(download, layout, tmp_path) -> Path:
    path = tmp_path / "dataset.toml"
    given = ["describe", str(download), "--layout", str(layout), "--out", str(path)]
    assert commands.data(given) == 0
    return path


def test_names_are_those_of_the_folders(description, download):
    table = parse_toml(description)
    assert {name: row["words"] for name, row in table["subject"].items()} == {
        "bear_plushie": "bear plushie",
        "toy_car": "toy car",
    }
    assert {name: (row["words"], row["action"]) for name, row in table["motion"].items()} == {
        "person_playing_flute": ("person playing flute", "playing flute"),
        "twirling": ("twirling", "twirling"),
    }
    assert list(table["pair"]) == [
        "bear_plushie-person_playing_flute",
        "bear_plushie-twirling",
        "toy_car-person_playing_flute",
        "toy_car-twirling",
    ]
    assert table["subject"]["toy_car"]["source"] == str(download / "subject/toy car")


def test_what_a_person_has_edited_is_not_written_over(description, download, capsys):
    given = ["describe", str(download), "--layout", "jointtuner", "--out", str(description)]
    assert commands.data(given) == 2
    told = f"{description} exists; name another file with --out, or take it away\n"
    assert capsys.readouterr().err == told


def make(base: Path, description: Path, tmp_path: Path, *options: str) -> tuple[int, Path]:
    out = tmp_path / "grid.toml"
    given = ["grid", str(description), "--base", str(base), "--out", str(out), *options]
    return commands.data(given), out


def test_every_run_of_a_grid_trains_on_its_pair(
    description, download, table, write_recipe, tmp_path, plugins
):
    text = description.read_text()
    description.write_text(text.replace('"playing flute"', '"playing the flute"'))
    table["data"]["motion"]["prompt"] = "a clip"
    table["data"]["subject"]["frames"] = 1
    table["data"]["motion"]["frames"] = 8
    table["sample"]["frames"] = 8
    for path in (download / "subject/toy car").iterdir():
        path.with_suffix(".txt").write_text("a car")
    status, grid = make(write_recipe(table), description, tmp_path)

    assert status == 0
    found = variants(read_table(grid))
    assert len(found) == 4
    recipes = {name: build_recipe(each, plugins) for name, each in found.items()}
    for recipe in recipes.values():
        check(recipe)
    bear = recipes["bear_plushie-person_playing_flute"]
    assert bear.data["subject"].source == str(download / "subject/bear_plushie")
    assert bear.data["motion"].source == str(download / "motion_16f/person_playing_flute")
    assert bear.data["subject"].prompt == "A bear plushie."
    assert bear.data["motion"].prompt == "A person playing flute."
    assert bear.sample.prompts[0] == "A bear plushie playing the flute on the grass."
    assert len(bear.sample.prompts) == 5
    assert recipes["toy_car-twirling"].data["subject"].prompt is None


def test_what_lies_beside_the_bases_files_lies_beside_the_pairs(
    description, download, table, write_recipe, tmp_path, plugins, data, capsys
):
    source = table["data"]["subject"]["source"]
    table["data"]["same"] = {**table["data"]["motion"], "prompt": "how it looks"}
    table["sample"]["reference"] = {"picture": f"{source}/00.png"}
    status, grid = make(write_recipe(table), description, tmp_path, "--clips", "49f")

    assert status == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "data.same.prompt: 'how it looks' is not that of data.motion, which has the same files, and"
        " stays as it is in all variants"
    )
    found = variants(read_table(grid))["toy_car-twirling"]
    assert found["sample"]["reference"]["picture"] == str(download / "subject/toy car/00.png")
    assert found["data"]["same"]["source"] == str(download / "motion_49f/twirling")
    assert found["data"]["same"]["prompt"] == "how it looks"

    (download / "subject/toy car/00.png").unlink()
    grid.unlink()
    assert make(write_recipe(table), description, tmp_path, "--clips", "49f")[0] == 2
    lacking = download / "subject/toy car/00.png"
    assert capsys.readouterr().err.splitlines()[0] == (
        f"subject.toy_car: no {lacking}, and sample.reference.picture is '{source}/00.png'"
    )


def test_pairs_that_were_taken_away_are_no_runs(description, table, write_recipe, tmp_path):
    text = description.read_text()
    away = text.index("[pair.toy_car-twirling]")
    description.write_text(text[:away])
    status, grid = make(write_recipe(table), description, tmp_path, "--clips", "16f")

    assert status == 0
    assert parse_toml(grid)["axes"]["exclude"] == [{"subject": "toy_car", "motion": ["twirling"]}]
    assert list(variants(read_table(grid))) == [
        "bear_plushie-person_playing_flute",
        "toy_car-person_playing_flute",
        "bear_plushie-twirling",
    ]


def test_a_pair_may_have_prompts_of_its_own(description, table, write_recipe, tmp_path):
    own = '[pair.toy_car-twirling]\nprompts = ["A {subject} is {action}, and {action}."]'
    description.write_text(description.read_text().replace("[pair.toy_car-twirling]", own))
    status, grid = make(write_recipe(table), description, tmp_path, "--clips", "16f")

    assert status == 0
    found = variants(read_table(grid))
    assert len(found) == 4
    assert found["toy_car-twirling"]["sample"]["prompts"] == [
        "A toy car is twirling, and twirling."
    ]
    assert found["toy_car-person_playing_flute"]["sample"]["prompts"][1] == (
        "A toy car playing flute in the jungle."
    )


def test_variants_of_a_grid_are_run_on_every_pair(description, table, write_recipe, tmp_path):
    base = write_recipe(table | {"variant": {"full": {}, "other": {"title": "other"}}}, "base")
    status, grid = make(base, description, tmp_path, "--clips", "16f")

    assert status == 0
    found = variants(read_table(grid))
    assert len(found) == 8
    assert found["other-toy_car-twirling"]["title"] == "other"


def test_the_90_pairs_of_jointtuners_benchmark_are_90_runs(
    download, table, write_recipe, tmp_path, capsys
):
    """Its folders' names are not published: of as many there may be, two are known."""
    root = tmp_path / "whole"
    picture, clip = (next(download.rglob(f"00.{end}")) for end in ("png", "mp4"))
    for number in range(15):
        put(picture, root / f"subject/subject_{number}/00.png")
    for number in range(6):
        for clips in ("motion_16f", "motion_49f"):
            put(clip, root / clips / f"person_doing_{number}/00.mp4")
    description = tmp_path / "dataset.toml"
    given = ["describe", str(root), "--layout", "jointtuner", "--out", str(description)]
    assert commands.data(given) == 0
    status, grid = make(write_recipe(table), description, tmp_path, "--clips", "49f")
    assert status == 0
    capsys.readouterr()

    out = str(tmp_path / "out")
    assert cli.run([str(grid), "--dry-run", "--tflops", "1", "--out", out]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}: 15 subjects x 6 motions: 90 runs, 90 to be done"
    assert {line.split()[0] for line in said[3:93]} == {
        f"subject_{one}-person_doing_{other}" for one in range(15) for other in range(6)
    }
    assert len(grid.read_text().splitlines()) < 200


@pytest.mark.parametrize(
    "old, new, told",
    [
        (
            'subject = "toy_car"',
            'subject = "toy_cat"',
            "pair.toy_car-person_playing_flute.subject:"
            " unknown subject 'toy_cat'; did you mean 'toy_car'?",
        ),
        (
            "{action} on the grass",
            "{act} on the grass",
            "prompts: expected {subject} or {motion} or"
            " {action}, got 'A {subject} {act} on the grass.'",
        ),
    ],
)
def test_mistakes_of_a_description_are_told(
    old, new, told, description, table, write_recipe, tmp_path, capsys
):
    description.write_text(description.read_text().replace(old, new, 1))
    assert make(write_recipe(table), description, tmp_path)[0] == 2
    assert capsys.readouterr().err == f"{description}: {told}\n"


def test_clips_of_another_length_are_chosen_by_name(
    description, table, write_recipe, tmp_path, capsys
):
    recipe = write_recipe(table)
    assert make(recipe, description, tmp_path)[0] == 2
    assert capsys.readouterr().err == (
        f"{recipe}: its clips have 3 frames; choose --clips of 16f (8 frames), 49f (8 frames)\n"
    )
