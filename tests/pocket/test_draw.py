"""What the command draws is what the world shows, on disk."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from jtplugins.pocket import cli
from jtplugins.pocket.captions import caption
from jtplugins.pocket.draw import data_sets, draw
from jtplugins.pocket.held_out import SUBJECTS
from jtplugins.pocket.world import render


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draw(folder, "wug", "eightwise", seed=3, pictures=4)
    return folder


@pytest.fixture(scope="module")
def sets():
    return data_sets("wug", "eightwise", 3, 4, 4)


@pytest.fixture(scope="module")
def scenes(sets):
    return sets[0]


def shrunk(frames):  # bytes (F, 192, 192, 3) -> (3, F, 24, 24) in [-1, 1], as a trainer reads it
    assert frames.shape[1:] == (192, 192, 3)
    small = frames.reshape(len(frames), 24, 8, 24, 8, 3).mean((2, 4), dtype=np.float32)
    return small.transpose(3, 0, 1, 2) / 127.5 - 1


def test_pictures_decode_to_what_was_drawn(folder, scenes):
    for index, scene in enumerate(scenes[0]):
        picture = np.asarray(Image.open(folder / f"subject/{index:02}.png"))
        seen = shrunk(picture[None])
        np.testing.assert_allclose(seen, render([scene], 1)[0], atol=0.005)


def test_videos_decode_to_what_was_drawn(folder, scenes):
    for index, scene in enumerate(scenes[1]):
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


def test_the_motion_has_other_performers_and_backgrounds(scenes):
    subject, motion = scenes
    assert {scene.sprite for scene in subject} == {SUBJECTS["wug"]}
    assert len({(scene.sprite.name, scene.sprite.look) for scene in motion}) == 4
    assert not {scene.background for scene in subject} & {scene.background for scene in motion}


def test_what_is_held_out_has_other_performers_and_exchanged_backgrounds(sets):
    (subject, motion), (held_subject, held_motion) = sets
    looks = [{(s.sprite.name, s.sprite.look) for s in scenes} for scenes in (motion, held_motion)]
    assert not looks[0] & looks[1]
    assert {s.sprite for s in held_subject} == {SUBJECTS["wug"]}
    assert not {s.background for s in subject} & {s.background for s in held_subject}
    assert not {s.background for s in motion} & {s.background for s in held_motion}


def test_what_is_held_out_is_drawn_beside_the_rest(folder, sets):
    motion = sets[1][1]
    names = {path.name for path in (folder / "held_out").glob("*/*") if path.suffix != ".txt"}
    assert names == {f"{i:02}.mp4" for i in range(4)} | {f"{i:02}.png" for i in range(4)}
    captions = [(folder / f"held_out/motion/{i:02}.txt").read_text() for i in range(4)]
    assert captions == [f"{caption(scene)}\n" for scene in motion]


def test_the_same_seed_draws_the_same_bytes(folder, tmp_path):
    draw(tmp_path, "wug", "eightwise", seed=3, pictures=4)
    for path in filter(Path.is_file, folder.rglob("*")):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_a_folder_of_another_data_set_is_left_alone(folder, tmp_path, capsys):
    draw(tmp_path, "wug", "eightwise", pictures=10, videos=1)
    assert cli.main(["draw", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"jt-pocket draw: {tmp_path}/subject: holds 09.png of another data set; "
        "draw into an empty folder\n"
    )


def test_an_unknown_name_is_one_clear_line(tmp_path, capsys):
    assert cli.main(["draw", str(tmp_path), "--subject", "wgu"]) == 2
    assert capsys.readouterr().err == (
        "jt-pocket draw: unknown subject 'wgu'; did you mean 'wug'?\n"
    )
    assert not list(tmp_path.iterdir())


def test_listing_names_all_that_is_held_out(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(SUBJECTS) + 4
    assert {"words", "sks", "eightwise", "creature"} <= set(lines[-1].split())
    assert lines[0].split() == ["subject", "blick", "red", "and", "white", "creature"]


def test_help_imports_no_torch():
    code = (
        "import sys, contextlib\n"
        "from jtplugins.pocket.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
