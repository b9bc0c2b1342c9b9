"""MotionBooth's attention edit: what a phrase names is kept in a box that moves."""

from __future__ import annotations

from typing import Literal, get_args

from attrs import field, frozen
from attrs.validators import in_, min_len

from jtcore import hookimpl
from jtcore.controls import Control, Grid, Held, Scores, Walk
from jtcore.scales import Unit, reached

from ._boxes import Keyframe, cells, in_order

Suppress = Literal["prompt", "phrase", "none"]
NEVER = -1e4  # before a softmax; fp16 has it too


@frozen
class BoxAttention:
    """Attention to a phrase is raised inside a box that moves, and suppressed outside of it

    Before the softmax, S += scale (1 - |box| / |frame|) for video tokens in the box of their frame
    and tokens of the phrase (https://arxiv.org/abs/2406.17758), in the prompted half of guidance,
    until the moment `until`, counted in `unit` as a `[sample.schedule]` is. In all steps tokens are
    kept from being attended to outside of the box: those of the phrase (`suppress = "phrase"`), or,
    as the released code does, all of the prompt, everywhere, but for those of phrases in their
    boxes ("prompt"): only CLIP holds the rest of the sentence in its end and padding. `path` has
    keyframes `{ at, box }`, `at` from 0, the first frame, to 1, the last, and box = [top, left,
    bottom, right] in parts of the frame; without any the control does nothing. A latent frame that
    stands for several frames has the union of their boxes.
    """

    phrase: str = field(validator=min_len(1))
    path: tuple[Keyframe, ...] = field(validator=in_order)
    scale: float = 7.5
    unit: Unit = "step"
    until: float = 5.0
    suppress: Suppress = field(default="phrase", validator=in_(get_args(Suppress)))

    def begin(self, walk: Walk) -> Boxed:
        return Boxed(self, walk)


class Boxed(Control):
    def __init__(self, options: BoxAttention, walk: Walk) -> None:
        self.options, self.walk = options, walk
        self.tokens = walk.words(options.phrase)
        self.prompt = walk.words(walk.prompt) if options.suppress == "prompt" else ()
        if options.path:
            walk.held.append(Held(lambda: cells(options.path, walk, walk.shape), self.tokens))

    def scores(self, index: int, grid: Grid, together: int) -> Scores:
        options = self.options
        if not options.path:
            return ()
        inside = cells(options.path, self.walk, grid, together).float()
        found = []
        if not reached(options.unit, options.until, self.walk.moments[index]):
            share = inside.mean((1, 2), keepdim=True)
            found.append((options.scale * (1 - share) * inside, self.tokens))
        if options.suppress != "none":
            found.append((NEVER * (1 - inside), self.tokens))
        named = {token for held in self.walk.held for token in held.tokens}
        if others := [token for token in self.prompt if token not in named]:
            found.append((NEVER * inside.new_ones(grid), others))
        return found


@hookimpl
def jt_controls() -> dict[str, type]:
    return {"box_attention": BoxAttention}
