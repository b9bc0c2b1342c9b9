"""Draw a customisation task: pictures of a subject, videos of a motion, captions and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from jtcore.errors import JtError
from jtcore.files import write_atomically, write_text
from jtcore.media import write_video

from .captions import caption
from .prior import draw_prior
from .probes import write_probes
from .task import FILE, Task, read_task
from .task_captions import clip_caption, picture_caption, prompts
from .task_recipe import refuse_other_recipe, write_recipe
from .tiers import draw_tasks
from .world import Scene, masks, render

ENLARGED = 8  # times, for people to look at; what a trainer reads shrinks back to the world's size
FPS = 8
MEDIA = ("subject", "motion")  # the folders of pictures, and of videos


def draw(
    out: Path,
    subject: str,
    motion: str,
    seed: int = 0,
    pictures: int | None = None,
    videos: int | None = None,
    tier: str = "easy",
) -> None:
    """Write `out`/subject/NN.png and `out`/motion/NN.mp4, each with its caption in NN.txt, and in
    `out`/masks/NN.png where the subject is.

    Nine pictures show the subject at every place. Pocket learns a sprite place by place: blocks of
    the codec cut it differently at each, and where it was not shown it is not learned.

    `out`/prior/ has twice as much of what pretraining showed, for methods that show it again;
    `out`/held_out/ has as much, shown as in the easy tier, for validation; `out`/prompts.txt has
    prompts for evaluation, `out`/probes.toml those of `jt-probe`, `out`/task.json says what all of
    it shows, for metrics, and `out`/recipe.toml trains on it. Raises JtError where a folder holds
    another task or recipe, or files that would be left beside the drawn ones.
    """
    shown, held_out = draw_tasks(subject, motion, tier, seed, pictures, videos)
    _refuse_other_task(out, shown)
    refuse_other_recipe(out, shown)
    folders = {out: shown, out / "held_out": held_out}
    for folder, task in folders.items():
        _refuse_others(folder / "subject", len(task.pictures), ".png")
        _refuse_others(folder / "motion", len(task.clips), ".mp4")
        _refuse_others(folder / "masks", len(task.pictures), ".png")
    known = draw_prior(2 * len(shown.pictures), 2 * len(shown.clips), seed)
    for medium, scenes, suffix in zip(MEDIA, known, (".png", ".mp4"), strict=True):
        _refuse_others(out / "prior" / medium, len(scenes), suffix)
    for folder, task in folders.items():
        _write_scenes(folder, task)
    for medium, scenes in zip(MEDIA, known, strict=True):
        _write_shown(out / "prior" / medium, [(scene, caption(scene)) for scene in scenes])
    write_text(out / "prompts.txt", "".join(f"{prompt}\n" for prompt in prompts(shown)))
    write_probes(out, shown)
    write_recipe(out, shown)
    shown.write(out)


def _write_scenes(folder: Path, task: Task) -> None:
    subject, motion = (folder / medium for medium in MEDIA)
    _write_shown(subject, [(scene, picture_caption(task, scene)) for scene in task.pictures])
    _write_shown(motion, [(scene, clip_caption(task, scene)) for scene in task.clips])
    for index, scene in enumerate(task.pictures):
        _write_mask(folder / "masks" / f"{index:02}.png", masks([scene], 1)[0, 0])


def _write_shown(folder: Path, shown: Sequence[tuple[Scene, str]]) -> None:
    """Scenes with their captions: pictures or, in a folder named so, videos of a motion."""
    for index, (scene, said) in enumerate(shown):
        if folder.name == MEDIA[0]:
            _write_picture(folder / f"{index:02}.png", render([scene], 1)[0])
        else:
            _write_video(folder / f"{index:02}.mp4", render([scene])[0])
        write_text(folder / f"{index:02}.txt", f"{said}\n")


def _refuse_other_task(folder: Path, task: Task) -> None:
    try:
        same = not (folder / FILE).exists() or read_task(folder) == task
    except JtError:  # of another version
        same = False
    if not same:
        raise JtError(f"{folder}: holds another task; draw into an empty folder")


def _refuse_others(folder: Path, count: int, suffix: str) -> None:
    drawn = {f"{index:02}{end}" for index in range(count) for end in (suffix, ".txt")}
    others = sorted(path.name for path in folder.glob("*") if path.name not in drawn)
    if others:
        raise JtError(f"{folder}: holds {others[0]} of another data set; draw into an empty folder")


def _write_picture(path: Path, pixels: np.ndarray) -> None:  # (3, 1, H, W) in [-1, 1]
    with write_atomically(path) as aside:
        Image.fromarray(_enlarged(pixels)[0]).save(aside, format="png")


def _write_mask(path: Path, covered: np.ndarray) -> None:  # (H, W) in [0, 1]
    shown = (covered * 255).round().astype(np.uint8).repeat(ENLARGED, 0).repeat(ENLARGED, 1)
    with write_atomically(path) as aside:
        Image.fromarray(shown).save(aside, format="png")


def _write_video(path: Path, pixels: np.ndarray) -> None:  # (3, F, H, W) in [-1, 1]
    write_video(path, torch.from_numpy(pixels / 2 + 0.5), FPS)


def _enlarged(pixels: np.ndarray) -> np.ndarray:  # (3, F, H, W) -> bytes (F, 8 H, 8 W, 3)
    shown = ((pixels + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 3, 0)
    return np.ascontiguousarray(shown.repeat(ENLARGED, 1).repeat(ENLARGED, 2))
