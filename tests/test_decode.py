import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from jtcore.decode import is_transparent, read_frames, read_image, timeline
from jtcore.errors import JtError
from jtcore.media import write_video

REAL = Path(__file__).parents[1] / "../shared/data"
CORNERS = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], np.uint8)
PIXELS = CORNERS.repeat(16, 0).repeat(24, 1)  # (32, 48, 3)


def pixels_of(path):
    """Of the first frame: (H, W, 3)."""
    return read_image(path)[:, 0].permute(1, 2, 0).numpy()


def corners_of(path):
    """The colours in the middle of the four quarters: (2, 2, 3), integers without sign errors."""
    pixels = pixels_of(path).astype(int)
    height, width = pixels.shape[:2]
    return pixels[height // 4 :: height // 2, width // 4 :: width // 2]


def write_grey_video(path, levels, codec="libx264", times=None, rate=10, turned=0, **container):
    """A frame of PIXELS' size for each level; `times` are in units of 1 / rate s."""
    with av.open(path, "w", **container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        if turned:
            stream.set_display_rotation(turned)
        for index, level in enumerate(levels):
            grey = np.full_like(PIXELS, level) if np.isscalar(level) else level
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts = times[index] if times else index
            frame.time_base = Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


LEVELS = [0, 50, 100, 150, 200, 250]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {}),
        ("bmp", {}),
        ("tif", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("gif", {}),
        ("jp2", {}),
        ("webp", {"lossless": True}),
    ],
)
def test_a_lossless_picture_is_read_exactly(tmp_path, suffix, options):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path, **options)
    assert np.array_equal(pixels_of(path), PIXELS)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "A.JPG", "a.webp", "a.avif"])
def test_a_lossy_picture_is_read(tmp_path, name):
    Image.fromarray(PIXELS).save(tmp_path / name, quality=95)
    assert np.abs(corners_of(tmp_path / name) - CORNERS).max() < 12


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_turns_the_picture(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(PIXELS).save(path, exif=exif, quality=95)
    assert read_image(path).shape == (3, 1, 48, 32)
    assert np.abs(corners_of(path) - np.rot90(CORNERS, -1)).max() < 12


def test_transparent_pixels_are_laid_on_white(tmp_path):
    path = tmp_path / "a.png"
    alpha = np.zeros((4, 4, 4), np.uint8)  # black
    alpha[1, :, 3] = 128
    alpha[2, :, 3] = 255
    Image.fromarray(alpha).save(path)
    assert pixels_of(path)[:, 0, 0].tolist() == [255, 127, 0, 255]
    assert is_transparent(path)


def test_an_opaque_alpha_channel_is_not_called_transparent(tmp_path):
    Image.fromarray(PIXELS).convert("RGBA").save(tmp_path / "a.png")
    assert not is_transparent(tmp_path / "a.png")


def test_a_transparent_colour_of_a_palette_is_laid_on_white(tmp_path):
    path = tmp_path / "a.png"
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([9, 9, 9, 200, 100, 0])
    picture.putpixel((0, 0), 0)
    picture.save(path, transparency=0)
    assert pixels_of(path)[0, :2].tolist() == [[255, 255, 255], [200, 100, 0]]


@pytest.mark.parametrize(("mode", "value"), [("1", 1), ("L", 255), ("LA", (255, 255))])
def test_grey_pictures_get_three_equal_channels(tmp_path, mode, value):
    path = tmp_path / "a.png"
    picture = Image.new(mode, (2, 1), value)
    picture.putpixel((0, 0), (0, 255) if mode == "LA" else 0)
    picture.save(path)
    assert pixels_of(path).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_becomes_rgb(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=95)
    assert np.abs(pixels_of(path).astype(int) - [255, 0, 0]).max() < 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled_to_8(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16)).save(path)
    assert pixels_of(path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_picture_of_32_bits_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.ones((2, 2), np.float32)).save(path)
    with pytest.raises(JtError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path}: cannot be read: its pixels have 32 bits, expected 8 or 16"
    )


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", "libx264"),
        ("m4v", "libx264"),
        ("mov", "libx264"),
        ("mkv", "libx264"),
        ("avi", "mpeg4"),
        ("webm", "libvpx-vp9"),
        ("ts", "libx264"),
    ],
)
def test_the_frames_of_a_video_are_read_by_index(tmp_path, suffix, codec):
    path = tmp_path / f"a.{suffix}"
    write_grey_video(path, LEVELS, codec, **({"format": "mp4"} if suffix == "m4v" else {}))
    shown = timeline(path)
    assert shown.starts == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5], abs=2e-3)
    assert shown.seconds == pytest.approx(0.6, abs=2e-3)
    found = {index: float(pixels.float().mean()) for index, pixels in read_frames(path, {1, 4})}
    assert found == pytest.approx({1: 50, 4: 200}, abs=6)


def test_a_file_is_decoded_once_until_it_changes(tmp_path):
    path = tmp_path / "a.mp4"
    write_grey_video(path, LEVELS)
    shown, stat = timeline(path), path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert timeline(path) is shown
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(JtError, match="Invalid data found"):
        timeline(path)


def test_times_that_run_backwards_are_of_a_constant_rate(tmp_path):
    path = tmp_path / "a.avi"
    noise = torch.rand(3, 9, 32, 48, generator=torch.Generator().manual_seed(0))
    write_video(path, noise, fps=10)  # H.264 reorders frames, and AVI stores no times
    with av.open(path) as file:
        stated = [frame.pts for frame in file.decode(video=0)]
    assert stated != sorted(stated)
    assert timeline(path).starts == pytest.approx([k / 10 for k in range(9)])


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animated_picture_is_a_video(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    first, *others = [Image.fromarray(np.full_like(PIXELS, level)) for level in LEVELS[:4]]
    durations = [100, 200, 300, 400]
    first.save(path, save_all=True, append_images=others, duration=durations, lossless=True)
    shown = timeline(path)
    assert shown.starts == pytest.approx([0, 0.1, 0.3, 0.6])
    assert shown.seconds == pytest.approx(1.0)
    assert {i: int(pixels.max()) for i, pixels in read_frames(path, {0, 3})} == {0: 0, 3: 150}


def test_a_picture_is_a_video_of_one_frame_and_no_length(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    shown = timeline(tmp_path / "a.png")
    assert (shown.starts, shown.seconds) == ((0.0,), 0.0)


def test_a_variable_frame_rate_shows_in_the_times(tmp_path):
    path = tmp_path / "a.mkv"
    write_grey_video(path, LEVELS[:4], times=[3, 4, 8, 9])
    assert timeline(path).starts == pytest.approx([0, 0.1, 0.5, 0.6], abs=2e-3)


@pytest.mark.parametrize("turned", [90, 180, -90])
def test_rotation_metadata_turns_the_video(tmp_path, turned):
    path = tmp_path / "a.mp4"
    write_grey_video(path, [PIXELS] * 2, turned=turned)
    assert np.abs(corners_of(path) - np.rot90(CORNERS, turned // 90)).max() < 12


def test_oblong_pixels_become_square(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(PIXELS, format="rgb24")))
        file.mux(stream.encode())
    assert read_image(path).shape == (3, 1, 32, 64)


def test_a_title_in_another_encoding_does_no_harm(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as file:
        file.metadata["title"] = "Muenchen"
        stream = file.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_ndarray(PIXELS, format="rgb24")))
        file.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Muenchen", "M\xfcnchen.".encode("latin-1")))
    assert len(timeline(path).starts) == 1


def test_a_truncated_picture_is_named(tmp_path):
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(JtError) as caught:
        timeline(path)
    assert str(caught.value) == f"{path}: cannot be read: image file is truncated"


def test_a_truncated_video_is_named(tmp_path):
    path = tmp_path / "a.mp4"
    write_grey_video(path, LEVELS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(JtError) as caught:
        timeline(path)
    assert str(caught.value) == (
        f"{path}: cannot be read: Invalid data found when processing input"
    )


def test_a_damaged_frame_is_named(tmp_path):
    path = tmp_path / "a.avi"
    noise = np.random.default_rng(0).integers(0, 255, (6, *PIXELS.shape), np.uint8)
    write_grey_video(path, noise, "mpeg4")
    damaged = bytearray(path.read_bytes())
    late = len(damaged) * 3 // 4
    damaged[late : late + 200] = bytes(200)
    path.write_bytes(damaged)
    with pytest.raises(JtError) as caught:
        timeline(path)
    assert str(caught.value) == f"{path}: cannot be read: frame 2 is damaged"


def test_a_video_without_pictures_is_named(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as file:
        stream = file.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 44100
        file.mux(stream.encode(silence))
        file.mux(stream.encode())
    with pytest.raises(JtError) as caught:
        timeline(path)
    assert str(caught.value) == f"{path}: cannot be read: it has no video stream"


def test_an_unknown_kind_of_file_is_named(tmp_path):
    with pytest.raises(JtError) as caught:
        timeline(tmp_path / "a.heic")
    assert str(caught.value) == (
        f"{tmp_path / 'a.heic'}: unknown kind of file; expected one of avi, avif, bmp, gif, jp2, "
        "jpeg, jpg, m4v, mkv, mov, mp4, mpeg, mpg, ogv, png, tif, tiff, ts, webm, webp, wmv"
    )


@pytest.mark.skipif(not REAL.exists(), reason=f"the real media are not in {REAL}")
def test_real_videos_are_read():
    (avi,) = REAL.glob("motions/playing_guitar/*_g06_c01.avi")
    shown = timeline(avi)
    assert (len(shown.starts), shown.seconds) == (250, pytest.approx(10.0))
    assert [(i, p.shape) for i, p in read_frames(avi, [249])] == [(249, (3, 1, 240, 320))]
