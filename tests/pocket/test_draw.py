"""What the command draws is what the world shows, on disk."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from jtcore import cli as core
from jtcore.tables import read_table
from jtplugins.backbones.pocket import Pocket
from jtplugins.pocket import cli
from jtplugins.pocket.captions import caption
from jtplugins.pocket.draw import draw
from jtplugins.pocket.held_out import SUBJECTS, is_held_out
from jtplugins.pocket.motions import PHRASES
from jtplugins.pocket.prior import draw_prior
from jtplugins.pocket.task import TIERS, read_task
from jtplugins.pocket.task_captions import clip_caption, picture_caption, prompts
from jtplugins.pocket.tiers import draw_tasks
from jtplugins.pocket.world import render


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draw(folder, "wug", "eightwise", seed=3, pictures=4)
    return folder


@pytest.fixture(scope="module")
def tasks():
    return draw_tasks("wug", "eightwise", "easy", 3, pictures=4)


def shrunk(frames):  # bytes (F, 192, 192, 3) -> (3, F, 24, 24) in [-1, 1], as a trainer reads it
    assert frames.shape[1:] == (192, 192, 3)
    small = frames.reshape(len(frames), 24, 8, 24, 8, 3).mean((2, 4), dtype=np.float32)
    return small.transpose(3, 0, 1, 2) / 127.5 - 1


def test_pictures_decode_to_what_was_drawn(folder, tasks):
    for index, scene in enumerate(tasks[0].pictures):
        picture = np.asarray(Image.open(folder / f"subject/{index:02}.png"))
        seen = shrunk(picture[None])
        np.testing.assert_allclose(seen, render([scene], 1)[0], atol=0.005)


def test_masks_are_where_a_picture_is_not_its_background(folder, tasks):
    for index, scene in enumerate(tasks[0].pictures):
        mask = np.asarray(Image.open(folder / f"masks/{index:02}.png")) / 255
        small = mask.reshape(24, 8, 24, 8).mean((1, 3))
        behind = scene.background.pixels(24)  # (3, 24, 24)
        changed = abs(render([scene], 1)[0, :, 0] / 2 + 0.5 - behind).max(0) > 0.01
        assert not changed[small == 0].any()
        assert changed[small > 0.99].mean() > 0.9  # a sprite may have the ground's colour


def test_the_prior_shows_what_pretraining_did_and_says_so(folder, tasks):
    pictures, clips = draw_prior(8, 8, seed=3)
    for index, scene in enumerate(pictures):
        seen = shrunk(np.asarray(Image.open(folder / f"prior/subject/{index:02}.png"))[None])
        np.testing.assert_allclose(seen, render([scene], 1)[0], atol=0.005)
        assert scene.sprite.kind == "creature" and not is_held_out(scene.sprite)
        assert scene.motion == "stays"
        said = (folder / f"prior/subject/{index:02}.txt").read_text().strip()
        assert said == caption(scene)
    assert len({scene.anchor for scene in pictures}) == 8
    for index, scene in enumerate(clips):
        assert not is_held_out(scene.sprite) and scene.motion in PHRASES
        assert (folder / f"prior/motion/{index:02}.txt").read_text().strip() == caption(scene)
    assert len(list((folder / "prior/motion").glob("*.mp4"))) == 8
    assert not Pocket().prompt_problems([caption(scene) for scene in (*pictures, *clips)])


def test_videos_decode_to_what_was_drawn(folder, tasks):
    for index, scene in enumerate(tasks[0].clips):
        with av.open(folder / f"motion/{index:02}.mp4") as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        error = abs(shrunk(np.stack(frames)) - render([scene])[0])
        assert error.mean() < 0.015
        assert error.max() < 0.2


def test_captions_name_the_subject_by_a_rare_word_and_the_motion_by_its_own(folder):
    captions = [path.read_text() for path in sorted(folder.glob("*/*.txt"))]
    assert len(captions) == 8
    assert all(" moves eightwise at " in words for words in captions[:4])
    assert all(words.startswith("a sks creature stays at ") for words in captions[4:])


@pytest.mark.parametrize("half", [0, 1])
def test_every_file_has_the_caption_of_its_scene(folder, tasks, half):
    task, where = tasks[half], (folder, folder / "held_out")[half]
    for index, scene in enumerate(task.pictures):
        text = (where / f"subject/{index:02}.txt").read_text()
        assert text == f"{picture_caption(task, scene)}\n"
    for index, scene in enumerate(task.clips):
        assert (where / f"motion/{index:02}.txt").read_text() == f"{clip_caption(task, scene)}\n"


def test_what_is_held_out_is_drawn_beside_the_rest(folder):
    names = {path.name for path in (folder / "held_out").glob("*/*") if path.suffix != ".txt"}
    assert names == {f"{i:02}.{kind}" for i in range(4) for kind in ("mp4", "png")}


def test_the_truth_and_the_prompts_are_written_beside_them(folder, tasks):
    assert read_task(folder) == tasks[0]
    assert (folder / "prompts.txt").read_text().splitlines() == prompts(tasks[0])


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_says_how_much_is_drawn(tier, tmp_path):
    draw(tmp_path, "zot", "spirals", tier=tier)
    drawn = {p: len([*tmp_path.glob(p)]) for p in ("subject/*.png", "motion/*.mp4", "held_out/*/*")}
    clips = 2 if tier == "hard" else 4
    assert drawn == {"subject/*.png": 9, "motion/*.mp4": clips, "held_out/*/*": 3 * 9 + 2 * 4}


@pytest.mark.parametrize("tier", TIERS)
def test_the_same_command_draws_the_same_bytes(tier, tmp_path, monkeypatch):
    one, other, third = (tmp_path / name for name in ("one", "other", "third"))
    for place, seed in ((one, 3), (other, 3), (third, 4)):
        place.mkdir()
        monkeypatch.chdir(place)
        draw(Path(), "wug", "eightwise", seed=seed, pictures=2, videos=2, tier=tier)
    drawn = {path.relative_to(one): path.read_bytes() for path in one.rglob("*.*")}
    assert len(drawn) == 2 * (2 * 4 + 2) + 4 * 4 + 4  # held out as well; the prior; four texts
    assert drawn == {path.relative_to(other): path.read_bytes() for path in other.rglob("*.*")}
    assert all((third / path).read_bytes() != drawn[path] for path in map(Path, TOLD))


TOLD = ("task.json", "prompts.txt", "subject/00.png", "motion/00.mp4")


def test_a_folder_of_another_task_is_left_alone(tmp_path, capsys):
    draw(tmp_path, "wug", "eightwise", pictures=1, videos=1)
    before = {path: path.read_bytes() for path in filter(Path.is_file, tmp_path.rglob("*"))}
    for other in (["--subject", "zot"], ["--tier", "leaky"], ["--seed", "1"]):
        command = ["draw", str(tmp_path), "--pictures", "1", "--videos", "1", *other]
        assert cli.main(command) == 2
        assert capsys.readouterr().err == (
            f"{tmp_path}: holds another task; draw into an empty folder\n"
        )
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("file", ["subject/09.png", "held_out/motion/clip.mp4"])
def test_files_of_others_are_not_mixed_with_drawn_ones(tmp_path, capsys, file):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_bytes(b"mine")
    assert cli.main(["draw", str(tmp_path)]) == 2
    folder, name = (tmp_path / file).parent, Path(file).name
    assert capsys.readouterr().err == (
        f"{folder}: holds {name} of another data set; draw into an empty folder\n"
    )


@pytest.mark.parametrize("command", ["draw", "pretrain"])
@pytest.mark.parametrize("place", ["afile", "afile/task"])
def test_a_file_in_a_folders_place_is_one_clear_line(tmp_path, capsys, command, place):
    file = tmp_path / "afile"
    file.touch()
    assert cli.main([command, str(tmp_path / place)]) == 2
    assert capsys.readouterr().err == f"{file}: is a file, expected a folder\n"


def test_the_recipe_of_another_task_trains_on_that_task(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--subject", "zot", "--motion", "spirals", "--tier", "leaky"]
    assert cli.main(["draw", "data/zot", *options]) == 0
    assert core.run(["data/zot/recipe.toml", "--check"]) == 0, capsys.readouterr().err
    table = read_table(Path("data/zot/recipe.toml"))
    sources = {name: data["source"] for name, data in table["data"].items()}
    assert sources == {
        "subject": "data/zot/subject",
        "motion": "data/zot/motion",
        "held_out_subject": "data/zot/held_out/subject",
        "held_out_motion": "data/zot/held_out/motion",
    }
    assert table["sample"]["prompts"] == "data/zot/prompts.txt"
    assert {metric.get("task", "data/zot") for metric in table["metric"].values()} == {"data/zot"}


def test_a_recipe_that_somebody_has_changed_is_left_alone(tmp_path, capsys):
    draw(tmp_path, "wug", "eightwise", pictures=1, videos=1)
    draw(tmp_path, "wug", "eightwise", pictures=1, videos=1)
    file = tmp_path / "recipe.toml"
    changed = file.read_text() + "seed = 3\n"
    file.write_text(changed)
    assert cli.main(["draw", str(tmp_path), "--pictures", "1", "--videos", "1"]) == 2
    assert capsys.readouterr().err == (
        f"{file}: is not what would be drawn; move it away, or draw elsewhere\n"
    )
    assert file.read_text() == changed


@pytest.mark.parametrize(
    ("option", "name", "meant"),
    [("subject", "wgu", "wug"), ("motion", "spiral", "spirals"), ("tier", "leeky", "leaky")],
)
def test_an_unknown_name_is_one_clear_line(tmp_path, capsys, option, name, meant):
    assert cli.main(["draw", str(tmp_path), f"--{option}", name]) == 2
    assert capsys.readouterr().err == f"unknown {option} {name!r}; did you mean {meant!r}?\n"
    assert not list(tmp_path.iterdir())


def test_the_command_draws_a_tier(tmp_path, capsys):
    arguments = ["draw", str(tmp_path), "--tier", "leaky", "--seed", "2", "--videos", "1"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path}: drew wug and eightwise, leaky\n"
    assert read_task(tmp_path) == draw_tasks("wug", "eightwise", "leaky", 2, clips=1)[0]


def test_listing_names_all_that_is_held_out(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(SUBJECTS) + 4
    assert {"words", "sks", "eightwise", "creature"} <= set(lines[-1].split())
    blick = SUBJECTS["blick"]
    assert lines[0].split() == ["subject", "blick", *blick.look.split(), *blick.name.split()]


def test_help_imports_no_torch():
    code = (
        "import sys, contextlib\n"
        "from jtplugins.pocket.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
