"""TensorBoard as people meet it: its server on a folder, and its views in a browser.

python tests/tensorboarding.py runs/components_pocket docs/images/tensorboard
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from browsing import headless
from PIL import Image

READS = 300.0  # s, at most, until the server has read a grid
SHOWS = 120_000  # ms, at most, until a view is there
WINDOW = {"width": 1360, "height": 860}
CHOSEN = r"wug-eightwise-seed0|-\.$"
COLOURS = 128  # of a picture for the docs


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A TensorBoard on a folder; yields its address once it has read all that is there."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        lines = iter(server.stderr.readline, "")
        address = next(found[0] for line in lines if (found := re.search(r"http://\S+/", line)))
        runs = {str(path.parent.relative_to(folder)) for path in folder.rglob("*tfevents*")}
        until = time.monotonic() + READS
        while not runs <= set(asked(address, "data/runs")):
            assert time.monotonic() < until, f"TensorBoard has not read {folder}"
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.stderr.close()
        server.wait()


def asked(address: str, what: str):
    """What the server says."""
    with urlopen(address + what) as answer:
        return json.load(answer)


@contextmanager
def looking(address: str) -> Iterator:
    """A browser's page on a server."""
    with headless() as browser:
        page = browser.new_page(viewport=WINDOW)
        page.set_default_timeout(SHOWS)
        page.goto(address, wait_until="commit")
        yield page


def _tick_runs(page) -> None:
    """TensorBoard ticks none of more than 40: then those of one task are, and the grid itself."""
    boxes = page.locator("tf-runs-selector").filter(visible=True).locator("[role=checkbox]")
    boxes.first.wait_for()
    if boxes.and_(page.locator("[aria-checked=true]")).count():
        return
    names = boxes.evaluate_all("all => all.map(box => box.id)")
    for name in names:
        box = boxes.and_(page.locator(f"[id='{name}']"))
        while re.search(CHOSEN, name) and box.get_attribute("aria-checked") != "true":
            box.click()  # which is lost where the list is drawn anew
            time.sleep(1)


def scalars(page) -> None:
    """Losses of training, and the numbers of the grid."""
    _open(page, "scalars")
    _tick_runs(page)
    page.locator("tf-scalar-dashboard tf-tag-filterer input").fill("losses|grid/.*_leak")
    found = page.locator("tf-scalar-dashboard tf-category-paginated-view")
    found.filter(visible=True).first.locator("tf-scalar-card path").first.wait_for(state="attached")


def images(page) -> None:
    """Videos, as moving pictures."""
    _open(page, "images")
    _tick_runs(page)
    page.locator("tf-image-loader img").filter(visible=True).first.wait_for()


def text(page) -> None:
    """What the grid says in words."""
    _open(page, "text")
    _tick_runs(page)
    page.locator("tf-text-loader", has_text="What mattered").filter(visible=True).first.wait_for()


def table(page) -> None:
    _open(page, "hparams")
    page.locator("tf-hparams-table-view vaadin-grid-cell-content").first.wait_for()


def coordinates(page) -> None:
    """Parallel ones: a line for each run."""
    _open(page, "hparams")
    page.get_by_text("PARALLEL COORDINATES VIEW").click()
    page.locator("tf-hparams-parallel-coords-plot path").first.wait_for(state="attached")


def scatter(page) -> None:
    _open(page, "hparams")
    page.get_by_text("SCATTER PLOT MATRIX VIEW").click()
    page.locator("tf-hparams-scatter-plot-matrix-plot circle").first.wait_for(state="attached")


VIEWS: dict[str, Callable] = {
    "scalars": scalars,
    "images": images,
    "text": text,
    "hparams_table": table,
    "hparams_parallel_coordinates": coordinates,
    "hparams_scatter": scatter,
}


def _open(page, dashboard: str) -> None:
    page.evaluate(f"location.hash = '{dashboard}'")


def picture(page, path: Path) -> None:
    """A small PNG of what is seen, but of where it lies on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = page.locator("#data-location").filter(visible=True)
    place.evaluate_all("all => all.forEach(one => (one.style.visibility = 'hidden'))")
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def main(folder: str, pictures: str) -> None:
    with serving(Path(folder)) as address, looking(address) as page:
        for name, view in VIEWS.items():
            view(page)
            time.sleep(3)  # charts move into their place
            picture(page, Path(pictures) / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
