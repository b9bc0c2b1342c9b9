"""What people would prefer, by PickScore (https://arxiv.org/abs/2305.01569)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen

from jtcore import hookimpl
from jtcore.types import Metric, Sample

from . import _clip
from ._checkpoints import Checkpoint
from ._frames import OfFramesOrReleased
from ._preparations import of_checkpoint


@frozen
class PickScore(OfFramesOrReleased):
    """Mean over frames of PickScore: the network's scale times the cosine of prompt and frame

    About 20, and not in [-1, 1]: the scale, about 100, is part of the published number. `model` is
    a folder or a hub id of the network, `processor` of the CLIP whose tokenizer and preparation of
    pictures it was trained with. `tokens_cut` is how many tokens of the prompt the network does not
    read, where there are any. `batch` frames go through it at once; `frames` is "all", or a rate in
    1/s. Trained on images that people picked: blind to motion.

    `compat = "jointtuner"` looks at every int(fps / 8)th frame, as that paper's released code does.
    """

    better: ClassVar[str] = "higher"

    model: str = "yuvalkirstain/PickScore_v1"
    processor: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

    def problems(self) -> list[str]:
        return self._network.problems() + self._processor.problems()

    def identity(self) -> Mapping[str, Any]:
        return {
            "model": self._network.identity(),
            "processor": self._processor.identity(),
            "preparation": of_checkpoint(self._processor).identity(),
            "frames": self.sampling(),
        }

    def load(self, device: torch.device) -> Metric:
        network = self._network.load("CLIPModel", device)
        looking = _clip.look(network, of_checkpoint(self._processor), self.batch)
        reading = _clip.read(network, self._processor)
        scale = _clip.scale(network)

        def measure(sample: Sample) -> Mapping[str, float]:
            alike = looking.embed(self.shown(sample)) @ reading.embed(sample.prompt)  # (F,)
            cut = reading.cut_off(sample.prompt)
            told = {"tokens_cut": float(cut)} if cut else {}
            return {"pickscore": scale * alike.mean().item(), **told}

        return measure

    @property
    def _network(self) -> Checkpoint:
        return _clip.bare(self.model)

    @property
    def _processor(self) -> Checkpoint:
        return Checkpoint("processor", self.processor, ("pictures", "words"))


@hookimpl
def jt_metrics() -> dict[str, type]:
    return {"pickscore": PickScore}
