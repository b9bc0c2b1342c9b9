"""Pages in a real browser without a network, and the folders that they are made of."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from jtcore.media import write_video

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
FRAMES, FPS = 16, 8.0
LOCAL = ("file:", "data:", "blob:")


@contextmanager
def headless() -> Iterator:
    """The system's browser; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on PATH: {', '.join(BROWSERS)}")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextmanager
def opened(browser, file: Path, viewport: dict[str, int] = DESK) -> Iterator:
    """A page from disk. In the end, it has told no problem on the console and asked for nothing."""
    problems: list[str] = []
    context = browser.new_context(viewport=viewport, accept_downloads=True, offline=True)

    def seen(request) -> None:
        if not request.url.startswith(LOCAL):
            problems.append(f"asked for {request.url}")

    context.on("request", seen)
    page = context.new_page()
    page.set_default_timeout(10_000)

    def told(message) -> None:
        if message.type in ("error", "warning"):
            problems.append(f"{message.type}: {message.text}")

    page.on("console", told)
    page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
    page.goto(file.absolute().as_uri())
    yield page
    context.close()
    assert problems == [], problems


def draw_run(folder: Path) -> Path:
    """A finished run as `jt-run` leaves it, whose videos are grey and say their frame by it."""
    samples = []
    for model in ("base", "adapted"):
        for number, prompt in enumerate(["a <wug>", "a dax runs"]):
            for seed in (0, 1):
                file = f"{model}/{number:02d}-seed{seed}.mp4"
                write_video(folder / "samples" / file, grey(FRAMES), FPS)
                values = {"metric.of": number + seed / 10 + (model == "adapted"), "quiet.x": 1.0}
                if seed and number:
                    del values["quiet.x"]
                entry = {"file": file, "model": model, "prompt": prompt, "seed": seed}
                samples.append({**entry, "metrics": values})
    write_video(folder / "samples/references/motion-00.mp4", grey(8), FPS)
    write_video(folder / "samples/references/subject-00.mp4", grey(1), 1.0)
    references = {f"references/{n}-00.mp4": f"{n}: 00" for n in ("motion", "subject")}
    told = {"title": "one & two", "facts": "Training seed 3", "command": "jt-run it"}
    write_json(folder / "report.json", {**told, "enlarged": False, "references": references})
    write_json(folder / "metrics.json", {"metrics": {"base": {}}, "samples": samples})
    write_json(folder / "run.json", {"command": ["jt-run"], "directory": str(folder)})
    (folder / "recipe.resolved.toml").write_text('title = "one & two"\nseed = 3\n')
    return folder


def grey(frames: int):  # (3, F, 32, 48) in [0, 1]
    """Brightness says which frame it is: `index_of` reads it back."""
    steps = (torch.arange(frames) + 0.5) / FRAMES
    return steps[None, :, None, None].expand(3, frames, 32, 48)


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


# what a video shows, by its brightness
INDEX_OF = """(video) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 1, 1);
  return Math.floor((context.getImageData(0, 0, 1, 1).data[0] / 256) * 16);
}"""
