"""Pictures and videos inside a page: as they are where that is small, else as previews."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
from attrs import evolve, frozen
from numpy.typing import NDArray
from PIL import Image

from jtcore.decode import read_frames, timeline

PAGE = 48 * 2**20  # bytes of all videos of a page, about: more, and a phone cannot open it
SHARE = 2**20  # bytes of one video, at most
RUNGS = ((320, 28), (160, 34))  # of previews: pixels of the short side, and what H.264 may lose
POSTER = 240  # pixels of the short side
PICTURE = 480
PLAYED = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
CODECS = {"h264", "vp8", "vp9", "libdav1d", "av1"}  # that browsers play, of 8 bits and 4:2:0

RULE = (
    "A video is embedded as it is where a browser plays it and it has at most its share of 48 MiB"
    " (and 1 MiB); else as a smaller preview: 320 pixels on the short side, and 160 where that is"
    " still more than its share."
)


@frozen
class Medium:
    """What a page holds of a file: a video, or a picture where it has one frame."""

    uri: str
    poster: str  # a picture of its middle
    frames: int
    fps: float
    is_preview: bool  # not the file itself

    @property
    def is_picture(self) -> bool:
        return self.frames == 1


def share(videos: int) -> int:
    """Bytes that each of so many videos of a page may have as it is."""
    return min(SHARE, PAGE // max(videos, 1))


def embed(path: Path, room: int) -> Medium:
    """What a page holds of a file, in at most `room` bytes where that can be. Raises JtError where
    it cannot be decoded."""
    medium = _pictured(path)
    if medium.is_picture:
        return medium
    if path.stat().st_size <= room and _is_played(path):
        return evolve(medium, uri=_uri(PLAYED[path.suffix.lower()], path.read_bytes()))
    for side, loss in RUNGS:
        video = encode(path, side, loss)
        if len(video) <= room:
            break
    return evolve(medium, uri=_uri("video/mp4", video), is_preview=True)


def anew(path: Path, side: int, loss: int) -> Medium:
    """A file encoded anew, whatever it is, with nothing of its metadata; see `encode`."""
    medium = _pictured(path)
    if medium.is_picture:
        return medium
    return evolve(medium, uri=_uri("video/mp4", encode(path, side, loss)), is_preview=True)


def _pictured(path: Path) -> Medium:
    """With a picture of its middle alone."""
    shown = timeline(path)
    frames = len(shown.starts)
    poster = _picture(path, frames // 2, POSTER if frames > 1 else PICTURE)
    fps = frames / shown.seconds if shown.seconds else 1.0
    return Medium(poster, poster, frames, fps, False)


def encode(path: Path, side: int, loss: int) -> bytes:
    """A video anew, as H.264 in MP4 without any of its metadata, with at most `side` pixels on the
    short side; `loss` is x264's constant rate factor. Memory holds one frame at a time."""
    shown, file = timeline(path), BytesIO()
    rate = len(shown.starts) / shown.seconds if shown.seconds else 1.0
    options = {"crf": str(loss), "x264-params": "mbtree=0"}
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", Fraction(rate).limit_denominator(1001), options=options)
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for index, pixels in enumerate(_pixels(path, range(len(shown.starts)))):
            if not index:
                stream.height, stream.width = _fitted(*pixels.shape[:2], side)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            small = frame.reformat(stream.width, stream.height, "yuv420p", interpolation="BICUBIC")
            out.mux(stream.encode(small))
        out.mux(stream.encode())
    return file.getvalue()


def _fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Even sides, of which the short one is at most `side`."""
    factor = min(1, side / min(height, width))
    return tuple(max(2, round(each * factor / 2) * 2) for each in (height, width))


def _is_played(path: Path) -> bool:
    if path.suffix.lower() not in PLAYED:
        return False
    with av.open(path, metadata_errors="ignore") as file:
        codec = file.streams.video[0].codec_context
        return codec.name in CODECS and codec.pix_fmt in ("yuv420p", "yuvj420p")


def _picture(path: Path, index: int, side: int) -> str:
    (pixels,) = _pixels(path, {index})
    image = Image.fromarray(pixels)
    width, height = image.size
    factor = min(1, side / min(width, height))
    image = image.resize((max(1, round(width * factor)), max(1, round(height * factor))))
    file = BytesIO()
    image.save(file, "WEBP", quality=80)
    return _uri("image/webp", file.getvalue())


def _pixels(path: Path, wanted: range | set[int]) -> Iterator[NDArray]:  # each uint8 (H, W, 3)
    for _, pixels in read_frames(path, wanted):
        yield pixels[:, 0].permute(1, 2, 0).contiguous().numpy()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
