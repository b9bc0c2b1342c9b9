"""The truth of a drawn customisation task: what its pictures and clips show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from jtcore.errors import JtError
from jtcore.files import write_text

from .creatures import Creature
from .held_out import SUBJECTS
from .sprites import Background, Shape, Sprite
from .world import Scene

FILE = "task.json"
NAME = "sks"  # what captions call the subject


@frozen
class Task:
    """A subject and a motion to be learned, and the scenes that show them"""

    subject: str  # of held_out.SUBJECTS
    motion: str  # of motions.HELD_OUT
    tier: str
    seed: int
    pictures: tuple[Scene, ...]
    clips: tuple[Scene, ...]

    @property
    def sprite(self) -> Creature:
        return SUBJECTS[self.subject]

    @property
    def performers(self) -> tuple[Sprite, ...]:
        """Who shows the motion."""
        return tuple(dict.fromkeys(scene.sprite for scene in self.clips))

    @property
    def backgrounds(self) -> tuple[Background, ...]:
        """Before what the motion is shown."""
        return tuple(dict.fromkeys(scene.background for scene in self.clips))

    def write(self, folder: Path) -> None:
        write_text(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")


def read_task(path: Path) -> Task:
    """Read what `Task.write` wrote; `path` is the file or its folder. Raises JtError."""
    file = path / FILE if path.is_dir() else path
    try:
        table = json.loads(file.read_text())
        return Task(
            **table
            | {
                "pictures": tuple(map(_scene, table["pictures"])),
                "clips": tuple(map(_scene, table["clips"])),
            }
        )
    except FileNotFoundError:
        raise JtError(f"{file}: not found; jt-pocket draw {file.parent} writes it") from None
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise JtError(
            f"{file}: not a task of this version ({error}); jt-pocket draw writes it anew"
        ) from None


def _scene(table: dict[str, Any]) -> Scene:
    background, jitter = Background(**table["background"]), tuple(table["jitter"])
    sprite = _sprite(**table["sprite"])
    return Scene(**table | {"sprite": sprite, "background": background, "jitter": jitter})


def _sprite(**fields: Any) -> Sprite:
    if "rows" in fields:
        return Creature(**{name: tuple(values) for name, values in fields.items()})
    return Shape(**fields)
