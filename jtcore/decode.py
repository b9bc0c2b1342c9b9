"""Pictures and videos, read from the files that people have."""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from jtcore.errors import JtError

PICTURES = {"avif", "bmp", "gif", "jp2", "jpeg", "jpg", "png", "tif", "tiff", "webp"}
VIDEOS = {"avi", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ogv", "ts", "webm", "wmv"}
ANIMATED = {"AVIF", "GIF", "PNG", "WEBP"}  # other formats hold pages, previews or stereo pairs
MALFORMED = (  # what the two libraries raise of a bad file
    av.FFmpegError,
    EOFError,
    IndexError,
    Image.DecompressionBombError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    struct.error,
)

Moment = tuple[float, float, Callable[[], NDArray]]  # start and length in s, pixels (H, W, 3)


@frozen
class Timeline:
    """When the frames of a file are shown; a picture is a video of one frame and no length."""

    path: Path
    starts: tuple[float, ...]  # seconds from the first frame, never falling
    seconds: float


def timeline(path: Path) -> Timeline:
    """Decode a file once to know its frames. Raises JtError where a frame cannot be decoded."""
    _refuse_other_kinds(path)
    with _naming(path):
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise ValueError("it is not a file")
    return _timeline(path, found.st_mtime_ns, found.st_size)


@lru_cache(4096)
def _timeline(path: Path, mtime: int, size: int) -> Timeline:
    """Of a file as it is now: the check and the run ask for the same ones, which takes minutes."""
    with _naming(path):
        shown = [(start, length) for start, length, _ in _moments(path)]
        if not shown:
            raise ValueError("it holds no picture")
    starts = [start - shown[0][0] for start, _ in shown]
    if starts != sorted(starts):  # H.264 in AVI, which stores no such times: its rate is constant
        starts = [index * max(starts) / (len(starts) - 1) for index in range(len(starts))]
    last = shown[-1][1] or starts[-1] / max(len(starts) - 1, 1)
    return Timeline(path, tuple(starts), starts[-1] + last)


def read_frames(path: Path, wanted: Collection[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield the wanted frames in order, each with its index: uint8 (3, 1, H, W), upright, with
    square pixels, and with transparent pixels laid on white. Memory holds one frame at a time."""
    last = max(wanted)
    with _naming(path):
        for index, (_, _, pixels) in enumerate(_moments(path)):
            if index in wanted:
                yield index, torch.from_numpy(pixels().copy()).permute(2, 0, 1)[:, None]
            if index == last:
                return


def read_image(path: Path) -> Tensor:  # uint8 (3, 1, H, W)
    """The picture, or the first frame of what moves, as `read_frames` gives it."""
    return next(read_frames(path, {0}))[1]


def is_readable_kind(path: Path) -> bool:
    """Whether the file's suffix is one of a picture or video."""
    return path.suffix.lower()[1:] in PICTURES | VIDEOS


def is_transparent(path: Path) -> bool:
    """Whether a picture has a pixel that `read_image` lays on white."""
    if path.suffix.lower()[1:] not in PICTURES:
        return False
    with _naming(path), Image.open(path) as image:
        if not image.has_transparency_data:
            return False
        return image.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _moments(path: Path) -> Iterator[Moment]:
    """The frames of a file as they are shown, decoded one by one."""
    _refuse_other_kinds(path)
    return (_stills if path.suffix.lower()[1:] in PICTURES else _video)(path)


def _refuse_other_kinds(path: Path) -> None:
    if not is_readable_kind(path):
        known = ", ".join(sorted(PICTURES | VIDEOS))
        raise JtError(f"{path}: unknown kind of file; expected one of {known}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what the decoders raise of a bad file into a JtError that names it."""
    try:
        yield
    except MALFORMED as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise JtError(f"{path}: cannot be read: {reason}") from error


def _video(path: Path) -> Iterator[Moment]:
    with av.open(path, metadata_errors="ignore") as file:  # a title may be in any encoding
        if not file.streams.video:
            raise ValueError("it has no video stream")
        stream = file.streams.video[0]
        stream.thread_type = "AUTO"
        aspect = stream.sample_aspect_ratio or 1
        for index, frame in enumerate(file.decode(stream)):
            if frame.is_corrupt:
                raise ValueError(f"frame {index} is damaged")
            start = index / (stream.average_rate or 25) if frame.pts is None else frame.time
            length = (frame.duration or 0) * (frame.time_base or 0)
            yield float(start), float(length), lambda frame=frame: _upright(frame, aspect)


def _upright(frame: av.VideoFrame, aspect: Fraction | int) -> NDArray:  # uint8 (H, W, 3)
    """The frame as a player shows it: square pixels, turned as its metadata says."""
    pixels = frame.to_ndarray(format="rgb24", width=round(frame.width * aspect))
    return np.rot90(pixels, round(frame.rotation / 90))  # both count anticlockwise


def _stills(path: Path) -> Iterator[Moment]:
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        start = 0.0
        for index in range(count):
            image.seek(index)
            image.load()
            # a frame without a length is shown for 0.1 s by browsers
            length = (image.info.get("duration") or 100) / 1000 if count > 1 else 0.0
            yield start, length, lambda: np.asarray(_on_white(ImageOps.exif_transpose(image)))
            start += length


def _on_white(image: Image.Image) -> Image.Image:
    """RGB of any mode."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, expected 8 or 16")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
