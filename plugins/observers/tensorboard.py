"""TensorBoard: every scalar under its path in the recipe, samples as moving pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jtcore import hookimpl

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from jtcore.recipe import Recipe
    from jtcore.run import Run
    from jtcore.types import Step


class TensorBoard:
    """Writes the event files of one run to its folder `tensorboard`."""

    def __init__(self, run: Run, recipe: Recipe):
        self.run = run
        self.recipe = recipe
        self.writer: SummaryWriter | None = None
        self.previews: list[tuple[int, Mapping[str, Any]]] = []  # that are not written yet

    @hookimpl
    def jt_step_finished(self, step: Step, scalars: Mapping[str, float]) -> None:
        self._open(step.number)
        for path, value in scalars.items():
            self.writer.add_scalar(tag(path), value, step.number)
        if step.number + 1 == self.recipe.steps:
            self.writer.flush()  # for the report, which is written before the run is finished

    @hookimpl
    def jt_preview_decoded(self, number: int, preview: Mapping[str, Any]) -> None:
        self.previews.append((number, preview))
        if self.writer:
            self._add_previews()

    @hookimpl
    def jt_run_finished(self, error: BaseException | None) -> None:
        if error is None:
            self._open(self.recipe.steps)
            self._add_results()
        if self.writer:
            self.writer.close()

    def _open(self, step: int) -> None:
        """Begin at `step`: what a killed run had plotted from there on is purged."""
        from torch.utils.tensorboard import SummaryWriter

        if self.writer is None:
            folder = self.run.folder / "tensorboard"
            self.writer = SummaryWriter(folder, purge_step=step if folder.is_dir() else None)
            self.writer.add_text("recipe", _code(self.run.folder / "recipe.resolved.toml"))
            self._add_previews()

    def _add_previews(self) -> None:
        """Those of a killed run come before its next step, which says where to begin."""
        while self.previews:
            number, preview = self.previews.pop(0)
            label = f"previews/{preview['prompt']} (seed {preview['seed']})"
            _add_video(self.writer, label, self.run.folder / "previews" / preview["file"], number)

    def _add_results(self) -> None:
        results, writer, last = self.run.read_json("metrics.json"), self.writer, self.recipe.steps
        for model, metrics in results.get("metrics", {}).items():
            for name, value in metrics.items():
                writer.add_scalar(f"metric.{model}/{name}", value["mean"], last)
        for name, losses in results.get("validation", {}).items():
            for model in ("base", "adapted"):
                writer.add_scalar(f"validation.{model}/{name}", losses[model], last)
        for entry in results.get("samples", []):
            label = f"samples.{entry['model']}/{entry['prompt']} (seed {entry['seed']})"
            _add_video(writer, label, self.run.samples / entry["file"], last)


def tag(path: str) -> str:
    """`stage.joint.lr` -> `stage.joint/lr`: TensorBoard groups by what is before the slash."""
    *group, rest = path.split(".", 2)
    return f"{'.'.join(group)}/{rest}" if group else rest


def _add_video(writer: SummaryWriter, label: str, path: Path, step: int) -> None:
    """As a GIF: the writer's own `add_video` wants a library more."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    from jtcore.media import read_sample

    video, fps = read_sample(path)
    frames = (video * 255).round().byte().permute(1, 2, 3, 0).numpy()  # (F, H, W, 3)
    _, height, width, _ = frames.shape
    image = Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=_gif(frames, fps)
    )
    summary = Summary(value=[Summary.Value(tag=label, image=image)])
    writer._get_file_writer().add_summary(summary, step)


def _gif(frames, fps: float) -> bytes:  # uint8 (F, H, W, 3)
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    return file.getvalue()


def _code(path: Path) -> str:
    """Indented, which Markdown shows as it is."""
    return "\n".join(f"    {line}" for line in path.read_text().splitlines())


@hookimpl
def jt_observers() -> list[type]:
    return [TensorBoard]
