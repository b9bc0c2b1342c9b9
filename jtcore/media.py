"""Videos and sheets of their frames, written for people to look at, and read back."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jtcore.decode import read_frames, timeline
from jtcore.files import write_atomically
from jtcore.framing import choose_clips

SHORT_SIDE = 192  # pixels of a written video: smaller ones are enlarged
TILE = 144  # pixels, the height of a frame on a sheet
COLUMNS = 8  # frames of a row
# mbtree decides by memory that libx264 never wrote: on some machines equal frames give other bytes
H264 = {"crf": "12", "x264-params": "mbtree=0"}
GAP, MARGIN, LABEL = 6, 20, 34  # pixels
PAPER, INK = "#ffffff", "#222222"


def write_video(path: Path, video: Tensor, fps: float) -> None:  # (3, F, H, W) in [0, 1]
    """Write H.264 in the container of the suffix, as every player shows it.

    A small video is enlarged by a whole number, each pixel to a square, and shrinks back to itself
    but for the loss of the codec. An odd side gets its last row or column twice.
    """
    frames = _enlarged(_bytes(video))
    container = {".mkv": "matroska"}.get(path.suffix, path.suffix[1:])
    with write_atomically(path) as aside, av.open(aside, "w", format=container) as file:
        rate = Fraction(fps).limit_denominator(1001)
        stream = file.add_stream("libx264", rate=rate, options=H264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # the loss, and so a metric, depends on how many there are
        for pixels in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def read_sample(path: Path) -> tuple[Tensor, float]:
    """A video that was generated, (3, F, H, W) in [0, 1], and its frames per second."""
    shown = timeline(path)
    frames = [pixels for _, pixels in read_frames(path, range(len(shown.starts)))]
    return torch.cat(frames, 1).float() / 255, len(frames) / (shown.seconds or 1)


def read_thumbnails(path: Path, frames: int = COLUMNS) -> Tensor:  # (3, F, H, W) in [0, 1]
    """At most this many frames, evenly spread: all that a contact sheet shows of a file."""
    shown = timeline(path)
    (chosen,) = choose_clips(shown, min(frames, len(shown.starts)))
    pixels = [pixels for _, pixels in read_frames(path, set(chosen))]
    return torch.cat(pixels, 1).float() / 255


def contact_sheet(
    path: Path,
    rows: Sequence[tuple[str, Sequence[Tensor]]],  # label, videos (3, F, H, W) in [0, 1]
) -> None:
    """Write a PNG: below each label a row of frames, evenly chosen from its videos."""
    strips = [(label, _strip(videos)) for label, videos in rows if videos]
    if not strips:
        raise ValueError("a contact sheet without a video")
    width = max(strip.width for _, strip in strips) + 2 * MARGIN
    height = sum(LABEL + strip.height for _, strip in strips) + 2 * MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    top = MARGIN
    for label, strip in strips:
        _write_label(sheet, label, top)
        sheet.paste(strip, (MARGIN, top + LABEL))
        top += LABEL + strip.height
    with write_atomically(path) as aside:
        sheet.save(aside, format="PNG")


def _bytes(video: Tensor) -> NDArray:  # (3, F, H, W) in [0, 1] -> uint8 (F, H, W, 3)
    assert video.ndim == 4 and video.shape[0] == 3, f"(3, F, H, W) expected, not {video.shape}"
    assert video.isfinite().all(), "a video has pixels that are not finite"
    shown = (video.detach().float().cpu() * 255).round().clamp(0, 255).byte()
    return shown.permute(1, 2, 3, 0).contiguous().numpy()


def _enlarged(frames: NDArray) -> NDArray:  # uint8 (F, H, W, 3), then with even sides
    height, width = frames.shape[1:3]
    factor = -(-SHORT_SIDE // min(height, width))
    if factor > 1 and (factor * height % 2 or factor * width % 2):
        factor += 1  # an even factor needs no padding, which would spoil shrinking back
    frames = frames.repeat(factor, 1).repeat(factor, 2)
    odd = [(0, side % 2) for side in frames.shape[1:3]]
    return np.pad(frames, [(0, 0), *odd, (0, 0)], mode="edge")


def _strip(videos: Sequence[Tensor]) -> Image.Image:  # each (3, F, H, W) in [0, 1]
    """Frames side by side; those of one video touch."""
    each = max(1, COLUMNS // len(videos))
    groups = [[_tile(frame) for frame in _evenly(_bytes(video), each)] for video in videos]
    placed, left = [], 0
    for tiles in groups:
        for tile in tiles:
            placed.append((tile, left))
            left += tile.width
        left += GAP
    strip = Image.new("RGB", (left - GAP, max(tile.height for tile, _ in placed)), PAPER)
    for tile, place in placed:
        strip.paste(tile, (place, 0))
    return strip


def _evenly(frames: NDArray, count: int) -> NDArray:  # uint8 (F, H, W, 3), then at most count
    middles = (np.arange(count) + 0.5) / count * len(frames)
    return frames[np.unique(middles.astype(int))]


def _tile(pixels: NDArray) -> Image.Image:  # uint8 (H, W, 3)
    """At one height, or near it where a small picture is enlarged by a whole number."""
    height, width = pixels.shape[:2]
    if height < TILE:
        factor = round(TILE / height)
        return Image.fromarray(pixels.repeat(factor, 0).repeat(factor, 1))
    tile = (max(1, round(width * TILE / height)), TILE)
    return Image.fromarray(pixels).resize(tile, Image.Resampling.LANCZOS)


def _write_label(sheet: Image.Image, label: str, top: int) -> None:
    """One line of text, with its end cut off where it is longer than the sheet is wide."""
    font = ImageFont.load_default(17)
    room, label = sheet.width - 2 * MARGIN, " ".join(label.split())
    if font.getlength(label) > room:
        lengths = range(1, len(label))
        kept = bisect(lengths, room, key=lambda length: font.getlength(label[:length] + "..."))
        label = label[:kept].rstrip() + "..."
    place = (MARGIN, top + LABEL * 0.55)
    ImageDraw.Draw(sheet).text(place, label, fill=INK, font=font, anchor="lm")
