"""What MotionDirector's released code saves."""

from collections.abc import Sequence
from pathlib import Path

from attrs import field, frozen
from attrs.validators import ge, optional
from torch import Tensor

from jtcore import JtError, hookimpl
from jtcore.types import Backbone, Imported

from ._positional import Positional, read_list

PLAIN = {"kind": "lora", "dropout": 0.0}
PARTS = ("up", "down")
SPATIAL = Positional({"Transformer2DModel": ("attn1", "ff")}, PARTS, "spatial", PLAIN)
TEMPORAL = Positional(
    {"TransformerTemporalModel": ("attn1", "attn2", "ff")}, PARTS, "temporal", PLAIN
)


@frozen
class MotionDirector:
    """Reads MotionDirector's `.pt`: [up, down, ...] in the order of the layers

    For ZeroScope and ModelScope, by github.com/showlab/MotionDirector. `temporal/lora/` has the
    motion, `spatial/lora/` the appearance: two files, two adapters, told apart by their sizes. Of
    several videos the spatial file has a LoRA of each, of which `video` takes one, from 0.
    """

    video: int | None = field(default=None, validator=optional(ge(0)))

    def read(self, path: Path, backbone: Backbone) -> Imported:
        spatial, temporal = (len(one.names(backbone.denoiser)) for one in (SPATIAL, TEMPORAL))
        if not spatial or not temporal:
            raise JtError(
                f"MotionDirector was released for ZeroScope and ModelScope, and"
                f" {type(backbone.denoiser).__name__} has none of their blocks"
            )
        held = read_list(path)
        if len(held) == 2 * temporal:
            return TEMPORAL.read(held, backbone)
        if len(held) % (2 * spatial):
            raise JtError(
                f"has {len(held)} tensors; of {type(backbone.denoiser).__name__} a temporal"
                f" file has {2 * temporal}, and a spatial one {2 * spatial} for each video; is it"
                " of another backbone or size?"
            )
        return SPATIAL.read(self._of_one_video(held, spatial), backbone)

    def _of_one_video(self, held: Sequence[Tensor], layers: int) -> Sequence[Tensor]:
        """Those of `video`: the list has, of each layer, the pairs of all videos."""
        videos = len(held) // (2 * layers)
        video = 0 if videos == 1 and self.video is None else self.video
        if video is None or video >= videos:
            raise JtError(
                f"has spatial LoRAs of {videos} videos;"
                f" take one with --set format.video=N, N from 0 to {videos - 1}"
            )
        return [one for at in range(2 * video, len(held), 2 * videos) for one in held[at : at + 2]]


@hookimpl
def jt_formats() -> dict[str, type]:
    return {"motiondirector": MotionDirector}
