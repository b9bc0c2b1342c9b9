import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from jtcore.data import Data, captions, data_problems, reference_files
from jtcore.errors import JtError

REAL = Path(__file__).parents[1] / "../shared/data"


class Eights:
    """Takes sizes in multiples of 8 and 4 n + 1 frames."""

    def latent_shape(self, frames, height, width):
        if height % 8 or width % 8:
            raise ValueError("expected multiples of 8; the nearest is 24x24")
        if frames % 4 != 1:
            raise ValueError("expected 4 n + 1 frames; the nearest is 5")
        return 3, frames // 4 + 1, height // 8, width // 8


def write_picture(path, size=(32, 24), mode="RGB", colour="white"):
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, colour).save(path)


def write_video(path, frames, rate=10):
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
        for _ in range(frames):
            black = av.VideoFrame.from_ndarray(np.zeros((24, 32, 3), np.uint8), format="rgb24")
            file.mux(stream.encode(black))
        file.mux(stream.encode())


@pytest.fixture
def folder(tmp_path):
    """Two pictures with captions, among other things that folders hold."""
    folder = tmp_path / "dogs"
    for name in ("b.png", "a.jpg", ".hidden.png"):
        write_picture(folder / name)
    (folder / "a.txt").write_text("a dog\n on  grass\n")
    (folder / "b.txt").write_text("a dog")
    (folder / "masks").mkdir()
    return folder


def problems(folder, **options):
    return data_problems("subject", Data(str(folder), **{"size": (24, 24)} | options), Eights())


def test_a_folder_stands_for_its_visible_files_in_order(folder):
    found = reference_files(Data(str(folder), (24, 24)))
    assert found == [folder / "a.jpg", folder / "b.png"]


def test_a_pattern_stands_for_what_it_matches(folder):
    assert reference_files(Data(f"{folder}/../*/*.png", (24, 24)))[0].name == "b.png"


def test_a_file_may_be_named_like_a_pattern(folder):
    path = folder / "[b].png"
    write_picture(path)
    assert reference_files(Data(str(path), (24, 24))) == [path]


def test_captions_stand_beside_the_files(folder):
    assert captions(Data(str(folder), (24, 24))) == ["a dog on grass", "a dog"]


def test_the_suffix_of_a_caption_is_in_any_case(folder):
    (folder / "a.txt").rename(folder / "a.TXT")
    (folder / "b.txt").rename(folder / "b.Txt")
    assert captions(Data(str(folder), (24, 24))) == ["a dog on grass", "a dog"]


def test_a_prompt_is_the_caption_of_every_file(folder):
    assert captions(Data(str(folder), (24, 24), "my dog")) == ["my dog", "my dog"]


def test_every_file_without_a_caption_is_named(folder):
    (folder / "a.txt").unlink()
    (folder / "b.txt").write_text(" \n")
    with pytest.raises(JtError) as caught:
        captions(Data(str(folder), (24, 24)))
    assert caught.value.problems == (
        f"{folder / 'a.jpg'}: has no caption; give `prompt`, or write a.txt beside it",
        f"{folder / 'b.txt'}: is empty, expected the caption of b.png",
    )


def test_a_caption_in_another_encoding_is_named(folder):
    (folder / "a.txt").write_bytes(b"caf\xe9 table")
    assert problems(folder) == [
        f"data.subject.prompt: {folder / 'a.txt'}: expected UTF-8, "
        "got byte 3 invalid continuation byte"
    ]


def test_good_data_have_no_problems(folder):
    assert problems(folder) == []


def test_a_missing_source_is_told(tmp_path):
    assert problems(tmp_path / "nothing" / "*.png") == [
        f"data.subject.source: '{tmp_path}/nothing/*.png' matches no picture or video"
    ]


def test_an_empty_folder_is_told(tmp_path):
    assert problems(tmp_path) == [
        f"data.subject.source: '{tmp_path}' is a folder without picture or video"
    ]


def test_all_problems_are_told_at_once(folder):
    (folder / "a.txt").unlink()
    (folder / "c.md").write_text("about these dogs")
    assert problems(folder, size=(20, 24)) == [
        "data.subject.size: expected multiples of 8; the nearest is 24x24",
        f"data.subject.prompt: {folder / 'a.jpg'}: has no caption; give `prompt`, "
        "or write a.txt beside it",
        f"data.subject.prompt: {folder / 'c.md'}: has no caption; give `prompt`, "
        "or write c.txt beside it",
        f"data.subject.source: {folder / 'c.md'}: unknown kind of file; expected one of avi, "
        "avif, bmp, gif, jp2, jpeg, jpg, m4v, mkv, mov, mp4, mpeg, mpg, ogv, png, tif, tiff, ts, "
        "webm, webp, wmv",
    ]


def test_frames_that_the_backbone_cannot_take_are_told(folder):
    assert problems(folder, frames=4, short="repeat") == [
        "data.subject.frames: expected 4 n + 1 frames; the nearest is 5"
    ]


def test_a_short_video_is_told(tmp_path):
    write_video(tmp_path / "a.mp4", 8)
    assert problems(tmp_path, frames=9, stride=2, prompt="x") == [
        f"data.subject.source: {tmp_path / 'a.mp4'}: holds 8 frames (0.8 s), expected at least 17 "
        "(9 frames, stride 2); ask for fewer frames or a smaller stride, or hold its last frame "
        'with short = "repeat"'
    ]


def test_a_damaged_file_is_told(folder):
    whole = (folder / "a.jpg").read_bytes()
    (folder / "a.jpg").write_bytes(whole[: len(whole) // 2])
    (problem,) = problems(folder)
    assert problem.startswith(f"data.subject.source: {folder / 'a.jpg'}: cannot be read: ")


def test_broken_links_are_told(folder):
    (folder / "c.png").symlink_to(folder / "away.png")
    (folder / "d.mp4").symlink_to(folder / "d.mp4")
    assert problems(folder, prompt="x") == [
        f"data.subject.source: {folder / 'c.png'}: cannot be read: No such file or directory",
        f"data.subject.source: {folder / 'd.mp4'}: cannot be read: "
        "Too many levels of symbolic links",
    ]
    assert problems(folder / "c.png", prompt="x") == problems(folder, prompt="x")[:1]


def test_a_pipe_is_told_and_not_waited_for(folder):
    os.mkfifo(folder / "c.png")
    assert problems(folder, prompt="x") == [
        f"data.subject.source: {folder / 'c.png'}: cannot be read: it is not a file"
    ]


def test_masks_are_checked(folder):
    masks = folder / "masks"
    for name in "cdef":
        write_picture(folder / f"{name}.png")
    write_picture(masks / "a.png", (24, 32))
    write_picture(masks / "b.png", mode="L")
    write_picture(masks / "d.png", colour="red")
    write_picture(masks / "e.png", mode="L", colour=1)
    write_picture(masks / "f.png", mode="1")
    assert problems(folder, masks=str(masks), prompt="x") == [
        f"data.subject.masks: {masks / 'a.png'}: is 32x24 pixels, expected 24x32 as a.jpg has",
        f"data.subject.masks: {masks / 'c.png'}: is missing, the mask of c.png",
        f"data.subject.masks: {masks / 'd.png'}: has colours, expected grey, "
        "white where the subject is",
        f"data.subject.masks: {masks / 'e.png'}: is dark all over, "
        "expected white where the subject is",
    ]


def test_a_mask_of_a_video_is_refused(tmp_path):
    write_video(tmp_path / "a.mp4", 8)
    assert problems(tmp_path, prompt="x", masks=str(tmp_path)) == [
        f"data.subject.masks: {tmp_path / 'a.mp4'}: moves, and a mask is one picture; "
        "expected pictures"
    ]


def test_fps_and_stride_exclude_each_other():
    with pytest.raises(ValueError, match=r"^expected fps or stride, got both$"):
        Data("x", (24, 24), fps=8.0, stride=2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"frames": 0}, "'frames' must be >= 1: 0"),
        ({"batch": 0}, "'batch' must be >= 1: 0"),
        ({"clips": 0}, "'clips' must be >= 1: 0"),
        ({"clips": 1001}, "'clips' must be <= 1000: 1001"),
        ({"stride": 0}, "'stride' must be >= 1: 0"),
        ({"fps": 0.0}, "'fps' must be > 0: 0.0"),
        ({"size": (0, 24)}, "'size' must be >= 1: 0"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(ValueError) as caught:
        evolve(Data("x", (24, 24)), **option)
    assert str(caught.value) == message


def test_the_medium_is_a_matter_of_frames():
    assert Data("a.mp4", (24, 24)).medium == "image"
    assert Data("a.mp4", (24, 24), frames=5).medium == "video"


def test_tables_are_read_without_torch():
    code = "import sys, jtcore.data; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.skipif(not REAL.exists(), reason=f"the real media are not in {REAL}")
def test_real_data_have_no_problems():
    dogs = REAL / "subjects/dog2"
    assert problems(dogs, prompt="a dog", masks=str(dogs / "masks")) == []
    assert problems(f"{REAL}/motions/*/*.avi", prompt="a man", frames=49, fps=8.0) == []
