import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from jtcore.decode import timeline
from jtcore.framing import fit
from jtcore.media import contact_sheet, read_sample, read_thumbnails, write_video


def plain(height, width, levels):
    """A grey video with a frame for each level in [0, 1]."""
    return torch.tensor(levels).float().view(1, -1, 1, 1).expand(3, -1, height, width)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_a_written_video_is_read_back(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_video(path, plain(200, 300, [0.0, 0.5, 1.0]), fps=8)
    video, fps = read_sample(path)
    assert video.shape == (3, 3, 200, 300)
    assert fps == pytest.approx(8, rel=0.01)
    assert video.mean((0, 2, 3)).tolist() == pytest.approx([0, 0.5, 1], abs=0.02)


def test_nothing_else_is_left_beside_it(tmp_path):
    write_video(tmp_path / "a.mp4", plain(8, 8, [0.0]), fps=8)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]


@pytest.mark.parametrize(
    ("side", "written"),
    [
        ((24, 24), (192, 192)),
        ((24, 36), (192, 288)),
        ((65, 65), (260, 260)),  # 4 times: 3 times would be odd
        ((201, 301), (202, 302)),
        ((1, 2), (192, 384)),
    ],
)
def test_small_videos_are_enlarged_and_odd_ones_padded(tmp_path, side, written):
    write_video(tmp_path / "a.mp4", plain(*side, [0.5]), fps=8)
    assert read_sample(tmp_path / "a.mp4")[0].shape == (3, 1, *written)


@pytest.mark.parametrize("side", [(24, 24), (33, 17)])
def test_a_small_video_shrinks_back_to_itself(tmp_path, side):
    rng = torch.Generator().manual_seed(0)
    art = torch.rand(3, 2, *side, generator=rng)
    write_video(tmp_path / "a.mp4", art, fps=8)
    back = fit((read_sample(tmp_path / "a.mp4")[0] * 255).byte(), side).float() / 255
    assert (back - art).abs().mean() < 0.02


@pytest.mark.parametrize("fps", [8, 12.5, 29.97, 30000 / 1001])
def test_any_frame_rate_is_kept(tmp_path, fps):
    write_video(tmp_path / "a.mp4", plain(192, 192, [0.5] * 4), fps)
    assert timeline(tmp_path / "a.mp4").seconds == pytest.approx(4 / fps, rel=1e-3)


WRITER = """
import sys
from pathlib import Path
import torch
from jtcore.media import write_video

noise = torch.rand(3, 8, 24, 24, generator=torch.Generator().manual_seed(0))
write_video(Path(sys.argv[1]), noise, fps=8)
"""


def test_what_memory_held_before_does_not_show_in_a_video(tmp_path):
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path, filler in zip(paths, ["1", "170"], strict=True):
        command = [sys.executable, "-c", WRITER, str(path)]
        subprocess.run(command, env=os.environ | {"MALLOC_PERTURB_": filler}, check=True)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_video_of_nan_is_not_written(tmp_path):
    with pytest.raises(AssertionError, match=r"^a video has pixels that are not finite$"):
        write_video(tmp_path / "a.mp4", plain(8, 8, [float("nan")]), 8)
    assert list(tmp_path.iterdir()) == []


def test_thumbnails_are_spread_over_a_video(tmp_path):
    write_video(tmp_path / "a.mp4", plain(192, 192, [k / 20 for k in range(21)]), 8)
    levels = read_thumbnails(tmp_path / "a.mp4", 3).mean((0, 2, 3))
    assert levels.tolist() == pytest.approx([0.15, 0.5, 0.85], abs=0.02)


def test_a_picture_is_its_own_thumbnail(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    assert read_thumbnails(tmp_path / "a.png").shape == (3, 1, 30, 40)


def test_a_contact_sheet_has_a_row_for_each_label(tmp_path):
    path = tmp_path / "sheet.png"
    grey, white = plain(24, 24, [0.5] * 16), plain(24, 24, [0.25])
    contact_sheet(path, [("references", [white, white]), ("a long prompt " * 99, [grey])])
    with Image.open(path) as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (2 * (34 + 144) + 40, 8 * 144 + 40, 3)
    rows = [sheet[20 + 34 + 72], sheet[20 + 34 + 144 + 34 + 72]]
    assert [(rows[0] == 64).all(1).sum(), (rows[1] == 128).all(1).sum()] == [2 * 144, 8 * 144]
    labels = [sheet[20:54], sheet[20 + 34 + 144 : 20 + 34 + 144 + 34]]
    assert all(label.min() < 80 for label in labels)
    assert (sheet[:, -20:] == 255).all()  # a long label ends before the margin


def test_a_short_video_shows_each_frame_once(tmp_path):
    path = tmp_path / "sheet.png"
    contact_sheet(path, [("three", [plain(24, 24, [0.0, 0.5, 0.25])])])
    with Image.open(path) as sheet:
        assert sheet.width == 3 * 144 + 40
