"""A contact sheet: one row of frames for each prompt."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

ENLARGED = 4  # times; a frame of the world is small
PROMPTS = (
    "a red ball moves left at mid on checkered gray",
    "a yellow square moves up at bottom on navy",
    "a green ring circles clockwise at mid on plum",
    "a white cross stays at top-left on striped teal",
    "an orange moon bounces at mid-right on black",
    "a pink triangle zigzags at mid on olive",
    "a purple ball shakes at bottom-right on brown",
    "a blue white-trimmed crowned masked belted clawed creature circles counterclockwise at mid"
    " on teal",
    "a red yellow-trimmed horned cheeky stout toed creature stays at top-right on gray",
    "a green white-trimmed tufted snouted winged skirted creature moves southeast at mid"
    " on dotted navy",
    "a yellow purple-trimmed crowned masked winged rooted creature bounces at mid on plum",
    "a pink ring stays at mid on gray",
    "a blue ball moves right at top on striped brown",
    "a red square sways on navy",
    "a sks creature moves eightwise at mid on teal",
)


def contact_sheet(videos: Tensor, prompts: Sequence[str]) -> Image.Image:
    """Frames of `videos` (B, 3, F, H, W) in [-1, 1] side by side, each row under its prompt."""
    _, _, f, h, w = videos.shape
    wide, high, gap, line = w * ENLARGED, h * ENLARGED, 4, 14
    sheet = Image.new("RGB", (f * (wide + gap), len(videos) * (high + gap + line)), "white")
    pen = ImageDraw.Draw(sheet)
    bytes_ = ((videos + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1).numpy()
    for row, (frames, prompt) in enumerate(zip(bytes_, prompts, strict=True)):
        top = row * (high + gap + line)
        pen.text((2, top), prompt, fill="black")
        for column, frame in enumerate(frames):
            image = Image.fromarray(frame).resize((wide, high), Image.Resampling.NEAREST)
            sheet.paste(image, (column * (wide + gap), top + line))
    return sheet
