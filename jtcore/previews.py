"""Previews: a few samples of the weights as they are while training goes on.

They never raise the peak of the device's memory, and never end a run. The model that is trained is
there already, and is run without gradients, on a GPU within what training has taken before. Its
latents go to disk, where a process of low priority that sees no GPU decodes them, or, where that is
too slow, the run itself when training has ended, as it decodes its samples.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from safetensors.torch import load_file, save_file
from torch import Tensor

from jtcore.errors import JtError
from jtcore.files import write_atomically
from jtcore.inversion import invert
from jtcore.lending import lent
from jtcore.media import write_video
from jtcore.model import Model
from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe, build_recipe
from jtcore.run import Run
from jtcore.sample import Request, decoded, denoise, requests
from jtcore.tables import parse_toml
from jtcore.types import BackboneSpec

FOLDER, LOG = "previews", "decoding.log"
LATENTS = "step-*/*.safetensors"  # what is not decoded yet
PARENT = "JT_PREVIEWS_FOR"  # the run's process: without it the other ends as well


class Previews:
    """Those of one run. `tell` is given the step's number and what a preview shows."""

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        model: Model,
        scales: Mapping[str, float],
        prior: Tensor | None,  # (C, F, H, W), the noise prior's video
        tell: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        self.every, self.spec = recipe.sample.preview.every, recipe.backbone.spec
        prompts = recipe.sample.prompts[: recipe.sample.preview.prompts]
        seeds = recipe.sample.seeds[:1]
        self.settings = evolve(recipe.sample, prompts=prompts, seeds=seeds, batch=1)
        self.run, self.model, self.scales = run, model, scales
        self.prior, self.tell = prior, tell
        self.folder = run.folder / FOLDER
        self.awaited: dict[Path, tuple[int, Request]] = {}  # videos that are to come
        self.told: set[Path] = set()
        self.decoder: subprocess.Popen | None = None
        self.aside = True  # whether it is of use
        for folder in {latents.parent for latents in self.folder.glob(LATENTS)}:
            self._await(int(folder.name.removeprefix("step-")))  # of a run that was killed

    def after(self, number: int) -> None:
        """So many steps of the run are done; it leaves the model as it was."""
        self._tell_decoded()
        if self.due(number):
            with self._forgiven(f"the preview of step {number} is left out"):
                self._make(number)
            with self._forgiven("previews are decoded when training has ended"):
                self._decode_aside()

    def due(self, number: int) -> bool:
        return number > 0 and number % self.every == 0

    def finish(self) -> None:
        """Training has ended: decode what is left, where samples are decoded."""
        self.stop()
        with self._forgiven("previews are not all decoded"):
            decode(self.folder, self.settings.fps, self.spec, self.model.engine.device)
        if self.aside:
            (self.folder / LOG).unlink(missing_ok=True)
        self._tell_decoded()

    def stop(self) -> None:
        """End what is decoding; its latents stay."""
        if self.decoder:
            self.decoder.terminate()
            self.decoder.wait()
            self.decoder = None

    def _make(self, number: int) -> None:
        """Denoise what is not there yet."""
        for video, request in self._await(number):
            latents = video.with_suffix(".safetensors")
            if not video.is_file() and not latents.is_file():
                found = self._denoise(request)
                if not found.isfinite().all():
                    raise JtError("the model generates numbers that are not finite")
                with write_atomically(latents) as aside:
                    save_file({"latents": found.float().cpu().contiguous()}, aside)
        self._tell_decoded()

    def _await(self, number: int) -> list[tuple[Path, Request]]:
        """The videos of a step, which are told of when they are there."""
        videos = []
        for request in requests(self.settings, self.scales):
            file = f"step-{number:08d}/{Path(request.file).name}"
            videos.append((self.folder / file, evolve(request, file=file)))
        self.awaited |= {
            video: (number, request) for video, request in videos if video not in self.told
        }
        return videos

    def _denoise(self, request: Request) -> Tensor:  # (1, C, F, H, W)
        """From noise, with the weights as they are."""
        settings, device = self.settings, self.model.engine.device
        shape = self.spec.latent_shape(settings.frames, *settings.size)
        with within_peak(device), self.model.at_rest():
            prior = self.prior
            if prior is not None:
                prior = invert(prior, settings.noise_prior, self.model)
            return denoise([request], settings, self.model, shape, prior)

    def _decode_aside(self) -> None:
        """Let a process decode, unless one is at work. Where one has failed there is no other."""
        if self.decoder and (status := self.decoder.poll()) is not None:
            self.decoder, self.aside = None, status == 0
            if status:
                raise RuntimeError(_last_line(self.folder / LOG))
        if self.aside and self.decoder is None and any(self.folder.glob(LATENTS)):
            own = {"CUDA_VISIBLE_DEVICES": "", PARENT: str(os.getpid())}
            with (self.folder / LOG).open("wb") as log:
                self.decoder = subprocess.Popen(
                    [sys.executable, "-m", "jtcore.previews", str(self.run.folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | own,
                    start_new_session=True,  # Ctrl-C is for the run, which ends it
                )

    def _tell_decoded(self) -> None:
        for video, (number, request) in list(self.awaited.items()):
            if video.is_file():
                del self.awaited[video]
                self.told.add(video)
                shown = {"file": request.file, "prompt": request.prompt, "seed": request.seed}
                self.tell(number, shown)

    @contextmanager
    def _forgiven(self, what: str) -> Iterator[None]:
        """Whatever goes wrong is told, and training goes on."""
        try:
            yield
        except Exception as error:
            self.run.say(f"{what}: {(str(error).splitlines() or [repr(error)])[0]}")
        if self.model.engine.device.type == "cuda":
            torch.cuda.empty_cache()  # the next step finds memory as it was left


@contextmanager
def within_peak(device: torch.device) -> Iterator[None]:
    """What asks for more memory of a GPU than was ever taken here is told that there is none."""
    if device.type != "cuda":
        yield
        return
    whole = torch.cuda.get_device_properties(device).total_memory
    before = torch.cuda.get_per_process_memory_fraction(device)
    peak = min(1.0, torch.cuda.max_memory_reserved(device) / whole)
    torch.cuda.set_per_process_memory_fraction(peak, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before, device)


def decode(
    folder: Path,
    fps: float,
    spec: BackboneSpec,
    device: torch.device,
    going: Callable[[], bool] = lambda: True,
) -> None:
    """Make videos of all latents in a folder, as long as it is `going`."""
    with lent(partial(spec.load_codec, device), device) as codec:
        for latents in sorted(folder.glob(LATENTS)):
            if not going():
                return
            found = load_file(latents)["latents"].to(device)
            write_video(latents.with_suffix(".mp4"), decoded(found, codec()), fps)
            latents.unlink(missing_ok=True)


def main() -> None:
    """Decode the previews of a run, aside: `python -m jtcore.previews RUN_DIR`."""
    run, parent = Path(sys.argv[1]), int(os.environ[PARENT])
    with suppress(OSError):
        os.nice(19)
    table = parse_toml(run / "recipe.resolved.toml")
    recipe = build_recipe(table, load_plugins(table["plugins"]["folders"]))
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    device = torch.device("cpu")
    spec, fps = recipe.backbone.spec, recipe.sample.fps
    decode(run / FOLDER, fps, spec, device, lambda: os.getppid() == parent)


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    main()
