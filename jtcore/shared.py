"""What the backbone answers alone is the same for all runs on it: one of them asks, all know.

Its videos, and its losses on held-out files, do not depend on what a run trains. They are found
again by everything that shapes them: backbone, arithmetic, captions as they are embedded, and every
source of ours, so that what other code has made is never taken for what this would make.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from attrs import frozen

from jtcore.cache import Cache, Key, cache_folder, canonical, checksum, digest
from jtcore.evaluation.identity import code_digest, identify
from jtcore.provenance import backbone_identity
from jtcore.reading import replaced_words
from jtcore.store import Store
from jtcore.stream import LIBRARIES
from jtcore.structure import unstructure

if TYPE_CHECKING:
    from torch import Tensor

    from jtcore.engine import Engine
    from jtcore.model import Model
    from jtcore.recipe import Sampling
    from jtcore.structure import Component

FOLDER = "base"  # of the cache, for videos


class Asked(Protocol):
    """A recipe, or what is like one."""

    backbone: Component
    adapter: Mapping[str, Component]
    sample: Sampling | None


@frozen(eq=False)
class Shared:
    """What was answered without adapters, and by what."""

    answerer: Key  # all that shapes an answer but for what is asked
    controls: Key  # what leads videos, where anything does
    waiting: Callable[[], None]  # called while another run asks the same; may raise

    @classmethod
    def of(cls, asked: Asked, model: Model, waiting: Callable[[], None]) -> Shared:
        """That which any run knows that is on the same backbone, with the same arithmetic."""
        answerer = _backbone(asked.backbone) | _arithmetic(model.engine)
        answerer |= {"code": SOURCES, "libraries": LIBRARIES}
        controls = asked.sample.control if asked.sample else {}
        return cls(answerer, _controls(controls, replaced_words(asked.adapter)), waiting)

    def tensors(self, key: Key, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Answers to what the key asks."""
        return Cache(cache_folder(), self.waiting).get_or_make({**self.answerer, **key}, make)

    def videos(
        self, key: Key, files: Sequence[Path], make: Callable[[], None], wait: bool = True
    ) -> bool:
        """Put videos that answer it in their places, or let `make` do so; False where another run
        is making them, and is not waited for."""
        store = Store(cache_folder() / FOLDER, self.waiting)
        return store.get_or_make({**self.answerer, **self.controls, **key}, files, make, wait)


def digest_of(tensors: Sequence[Tensor]) -> str:
    """Of shapes, types and values, in order."""
    each = [checksum({"": tensor.detach().cpu().contiguous()}) for tensor in tensors]
    return hashlib.sha256("".join(each).encode()).hexdigest()


def _backbone(backbone: Component) -> dict[str, str]:
    """Its parts' weights and code, and options that these identities may not know."""
    return {
        "backbone": digest(backbone_identity(backbone)),
        "options": canonical(unstructure(backbone)),
        "plugin": code_digest(backbone),
    }


def _arithmetic(engine: Engine) -> dict[str, str | int | bool | None]:
    """What numbers are rounded by."""
    cuda = engine.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(engine.device) if cuda else engine.device.type,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": None if cuda else torch.get_num_threads(),
        "precision": str(engine.dtype),
        "attention": engine.attention,
        "compile": engine.compile,
        "base": engine.memory.base,
    }


def _controls(controls: Mapping[str, Component], replaced: Mapping[str, str]) -> dict[str, str]:
    """They look for phrases in what is read."""
    if not controls:
        return {}
    found = {name: f"{identify(each).hash} {code_digest(each)}" for name, each in controls.items()}
    return {"controls": canonical(found), "replaced": canonical(replaced)}


def sources(root: Path) -> str:
    """A digest of every module of a package."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


SOURCES = sources(Path(__file__).parent)  # as they are when they are imported
