"""The recipe that trains on a drawn task: the shipped one, with the task's files in it."""

from __future__ import annotations

from pathlib import Path

from jtcore.errors import JtError
from jtcore.files import write_text
from jtcore.tables import write_toml

from .task import Task

FILE = "recipe.toml"
BASE = "jointtuner_pocket"
JUDGES = ("success", "sprite_identity", "background_leak", "appearance_leak")  # that need the task
HEADER = """\
# JointTuner on a task of pocket's world, which task.json tells; cost and method are the base's.
# Its paths lead from where `jt-pocket draw` ran: run it from there.
"""


def write_recipe(folder: Path, task: Task) -> None:
    write_text(folder / FILE, recipe(folder, task))


def refuse_other_recipe(folder: Path, task: Task) -> None:
    """Raise JtError where the folder has another recipe, which somebody may have written."""
    file = folder / FILE
    if file.exists() and file.read_bytes() != recipe(folder, task).encode():
        raise JtError(f"{file}: is not what would be drawn; move it away, or draw elsewhere")


def recipe(folder: Path, task: Task) -> str:
    """TOML; paths are relative where `folder` is, as any recipe has them."""
    place = folder.as_posix()
    return HEADER + write_toml(
        {
            "base": BASE,
            "title": f"JointTuner on pocket: {task.subject} and {task.motion}, {task.tier} tier",
            "data": {
                "subject": {"source": f"{place}/subject"},
                "motion": {"source": f"{place}/motion"},
                "held_out_subject": {"source": f"{place}/held_out/subject"},
                "held_out_motion": {"source": f"{place}/held_out/motion"},
            },
            "sample": {"prompts": f"{place}/prompts.txt"},
            "metric": {judge: {"task": place} for judge in JUDGES},
        }
    )
