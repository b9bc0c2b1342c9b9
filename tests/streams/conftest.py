"""A folder of pictures, and streams of it."""

import numpy as np
import pytest
from checkpoints.averages import CPU, Blocks
from PIL import Image

from jtcore.cache import Cache
from jtcore.data import Data, captions
from jtcore.stream import embed_texts, load_stream


@pytest.fixture
def spec():
    return Blocks()


@pytest.fixture
def folder(tmp_path):
    """Five pictures: black on the left, white on the right, and file n has n grey rows."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(5):
        pixels = np.zeros((40, 40, 3), np.uint8)
        pixels[:, 20:] = 255
        pixels[:number] = 100
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("x" * (number + 1))
    return folder


@pytest.fixture
def load(tmp_path, spec):
    """Load a stream of the folder, and its captions; `load.said` is what was told."""

    def load(source, **options):
        data = Data(str(source), **{"size": (40, 40)} | options)
        cache = Cache(tmp_path / "cache")
        texts = embed_texts(captions(data), load.spec, cache, load.device)
        say = load.said.append
        return load_stream("subject", data, load.spec, cache, load.device, say), texts

    load.said, load.spec, load.device = [], spec, CPU
    return load
