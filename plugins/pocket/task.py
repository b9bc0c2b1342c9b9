"""The truth of a drawn customisation task: its tier, and what its pictures and clips show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen
from attrs.validators import ge, in_

from jtcore.errors import JtError
from jtcore.files import write_text

from .creatures import Creature
from .held_out import SUBJECTS
from .motions import HELD_OUT
from .sprites import Background, Shape, Sprite
from .world import Scene

FILE = "task.json"
NAME = "sks"  # what captions call the subject


@frozen
class Tier:
    """How many pictures and clips there are, and what is the same in all of them

    What is the same is left unsaid by captions, as by those of real clips, and a background that
    is the same has a pattern: so a method may take either for a part of subject or motion.
    """

    pictures: int = 9  # one at every place
    clips: int = 4
    one_performer: bool = False  # in all clips, before one background
    one_ground: bool = False  # in all pictures


TIERS = {
    "easy": Tier(),
    "leaky": Tier(one_performer=True),
    "hard": Tier(clips=2, one_performer=True, one_ground=True),
}


@frozen
class Task:
    """A subject and a motion to be learned, and the scenes that show them"""

    subject: str = field(validator=in_(SUBJECTS))
    motion: str = field(validator=in_(HELD_OUT))
    tier: str = field(validator=in_(TIERS))
    seed: int = field(validator=ge(0))
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


def task_file(path: Path) -> Path:
    """The file itself, of a path that is its own or its folder's."""
    return path if path.suffix == ".json" else path / FILE


def read_task(path: Path) -> Task:
    """Read what `Task.write` wrote; `path` is the file or its folder. Raises JtError."""
    file = task_file(path)
    cure = f"jt-pocket draw {file.parent} writes it, with --subject, --motion and --tier as wanted"
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        scenes = {name: tuple(map(_scene, table[name])) for name in ("pictures", "clips")}
        return Task(**table | scenes)
    except (FileNotFoundError, NotADirectoryError):
        raise JtError(f"{file}: not found; {cure}") from None
    except OSError as error:
        raise JtError(f"{file}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JtError(
            f"{file}: not a task of this version ({error.args[0]}); "
            "remove the folder, and draw it anew"
        ) from None


def _scene(table: dict[str, Any]) -> Scene:
    background, offset = Background(**table["background"]), tuple(table["offset"])
    sprite = _sprite(**table["sprite"])
    return Scene(**table | {"sprite": sprite, "background": background, "offset": offset})


def _sprite(**fields: Any) -> Sprite:
    if "rows" in fields:
        return Creature(**{name: tuple(values) for name, values in fields.items()})
    return Shape(**fields)
