"""MotionBooth's loss on where words are attended to from."""

from collections.abc import Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge, min_len, optional
from torch import Generator, Tensor
from torch.nn.functional import binary_cross_entropy, interpolate

from jtcore import JtError, hookimpl
from jtcore.attention import AttentionTo
from jtcore.types import Noised, Part


@frozen
class Attention:
    """Binary cross-entropy between the attention to a phrase and the mask of the subject

    BCE(mean over layers of A, M), where A is the probability with which a video token attends to a
    token of the phrase, a mean over those tokens and over heads, and M the mask, resized bilinearly
    (https://arxiv.org/abs/2406.17758; weight = 0.01 there). It also drives attention outside of the
    mask to nothing. `sites` is a pattern of the attention's names; `cells` takes only layers whose
    video tokens are that many latent rows high: 4 are the five of ZeroScope where a frame of
    320x576 px is 10x18 tokens, as in the paper. Layers of other sizes are averaged by size. A
    sample whose caption has lost the phrase costs nothing.
    """

    phrase: str = field(validator=min_len(1))
    sites: str = "*"
    cells: int | None = field(default=None, validator=optional(ge(1)))

    needs_mask = True

    @property
    def attention(self) -> AttentionTo:
        return AttentionTo(self.phrase, self.sites, self.cells)

    def __call__(
        self,
        prediction: Tensor,
        noised: Noised,
        part: Part,
        rng: Generator,
        maps: Mapping[str, Tensor],  # by layer; each (B, F, H, W)
    ) -> Tensor:  # (B,)
        if part.mask is None:
            raise JtError(f"data.{part.stream}: has no masks, but an attention loss is asked of it")
        sizes: dict[torch.Size, list[Tensor]] = {}
        for each in maps.values():
            sizes.setdefault(each.shape, []).append(each)
        values = [len(layers) * _cost(layers, part.mask) for layers in sizes.values()]
        return torch.stack(values).sum(0) / len(maps)


def _cost(layers: list[Tensor], mask: Tensor) -> Tensor:
    """Of layers of one size, each (B, F, H, W), and a mask (B, 1, F', H', W'): (B,)."""
    attended = torch.stack(layers).mean(0).clamp(0, 1)
    wanted = interpolate(mask.to(attended), attended.shape[1:], mode="trilinear")[:, 0]
    each = binary_cross_entropy(attended, wanted, reduction="none").flatten(1).mean(1)
    return each.where(attended.flatten(1).any(1), 0.0)


@hookimpl
def jt_losses() -> dict[str, type]:
    return {"attention": Attention}
