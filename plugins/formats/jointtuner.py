"""What JointTuner's released code saves."""

from pathlib import Path

from attrs import frozen

from jtcore import JtError, hookimpl
from jtcore.types import Backbone, Imported

from ._positional import Positional, read_list

LAYOUT = Positional(
    sites={
        "CogVideoXBlock": ("attn1", "ff"),
        "Transformer2DModel": ("attn1", "ff"),  # the text is left alone
        "TransformerTemporalModel": ("attn1", "attn2", "ff"),
    },
    parts=("up", "down", "gate"),
    role="visual",
    adapter={"kind": "glora", "gate_over": "batch", "dropout": 0.0},
)


@frozen
class JointTuner:
    """Reads JointTuner's released `.pt`: [up, down, gate, ...] in the order of the layers

    For CogVideoX (`STEP_transformer.pt`), ZeroScope and ModelScope (`STEP_unet.pt`), by
    github.com/fdchen24/JointTuner. It becomes a "glora" whose gates are means over the whole batch,
    as they are there, both halves of guidance together.
    """

    def read(self, path: Path, backbone: Backbone) -> Imported:
        if not LAYOUT.names(backbone.denoiser):
            raise JtError(
                "JointTuner was released for CogVideoX, ZeroScope and ModelScope, and"
                f" {type(backbone.denoiser).__name__} has none of their blocks"
            )
        return LAYOUT.read(read_list(path), backbone)


@hookimpl
def jt_formats() -> dict[str, type]:
    return {"jointtuner": JointTuner}
