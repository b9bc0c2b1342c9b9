"""AMT-S, which draws the frame between two others (https://arxiv.org/abs/2304.09790), with the
tensors of the released file."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._amt_layers import ContextEncoder, Decoder, FeatureEncoder, Update, enlarged
from ._correlation import BothWays, pixel_grid, warped

CHANNELS = (20, 32, 44, 56)  # of the context at 1/2, 1/4, 1/8 and 1/16 of the size
FEATURES = 84  # channels of what is correlated, at 1/8
FLOWS = 3  # pairs of flow fields that the last decoder answers
RADIUS, LEVELS = 3, 4  # of the looked up correlations
MULTIPLE = 16  # of which height and width must be
SMALLEST = 64  # px: below, the coarsest level of the correlations has no pixel
MIDDLE = 0.5  # when the frame is, between 0 and 1


class AMTS(nn.Module):
    """The frame halfway between two

    Flow from the middle to both frames is guessed at 1/16 of the size and refined at 1/8, 1/4 and
    1/2, each time by what features of the frames correlate where the flow points. At full size
    three pairs of flows warp the frames, and what they make is blended.
    """

    def __init__(self) -> None:
        super().__init__()
        whole, half, quarter, eighth = CHANNELS
        self.feat_encoder = FeatureEncoder(FEATURES)
        self.encoder = ContextEncoder(CHANNELS)
        self.decoder4 = Decoder(2 * eighth + 1, 2 * eighth, quarter + 4)
        self.decoder3 = Decoder(3 * quarter + 4, 3 * quarter, half + 4)
        self.decoder2 = Decoder(3 * half + 4, 3 * half, whole + 4)
        self.decoder1 = Decoder(3 * whole + 4, 3 * whole, 8 * FLOWS)
        planes = 2 * LEVELS * (2 * RADIUS + 1) ** 2
        self.update4 = Update(quarter, planes, coarser=1)
        self.update3 = Update(half, planes, coarser=2)
        self.update2 = Update(whole, planes, coarser=4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * FLOWS, 6 * FLOWS, 3, padding=1),
            nn.PReLU(6 * FLOWS),
            nn.Conv2d(6 * FLOWS, 3, 3, padding=1),
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] each -> (B, 3, H, W); any size from 1 px on."""
        height, width = before.shape[2:]
        top, bottom = margins(height)
        left, right = margins(width)
        pair = torch.cat([before, after])
        pair = functional.pad(pair, (left, right, top, bottom), mode="replicate")
        drawn = self.between(*pair.chunk(2))
        return drawn[:, :, top : top + height, left : left + width]

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """The same of sizes that are multiples of 16 px, from 64 px on."""
        mean = torch.stack([before, after]).mean((0, 2, 3, 4))[:, None, None, None]
        before, after = before - mean, after - mean
        correlations = BothWays(*self.feat_encoder(torch.cat([before, after])).chunk(2), LEVELS)
        contexts = [each.chunk(2) for each in self.encoder(torch.cat([before, after]))]

        moment = before.new_tensor(MIDDLE).expand_as(contexts[3][0][:, :1])
        out = self.decoder4(torch.cat([*contexts[3], moment], 1))
        flows, state = out[:, :4], out[:, 4:]  # flows to the frame before, and to the one after
        flows, state = refined(self.update4, correlations, flows, state)
        for decoder, update, context in (
            (self.decoder3, self.update3, contexts[2]),
            (self.decoder2, self.update2, contexts[1]),
        ):
            out = decoder(looked_at(state, context, flows))
            flows, state = out[:, :4] + 2 * enlarged(flows, 2), out[:, 4:]
            flows, state = refined(update, correlations, flows, state)
        out = self.decoder1(looked_at(state, contexts[0], flows))
        return (self.blend(out, 2 * enlarged(flows, 2), before, after, mean)).clamp(0, 1)

    def blend(self, out: Tensor, flows: Tensor, before: Tensor, after: Tensor, mean: Tensor):
        """What several pairs of flows make of both frames, averaged and corrected."""
        changes, masks, residuals = out.split([4 * FLOWS, FLOWS, 3 * FLOWS], 1)
        changes = changes.unflatten(1, (2, FLOWS, 2))  # (B, to which frame, FLOWS, 2, H, W)
        to_before, to_after = (changes + flows.unflatten(1, (2, 1, 2))).unbind(1)
        mask = masks.sigmoid().unflatten(1, (FLOWS, 1)).flatten(0, 1)  # (B FLOWS, 1, H, W)

        def seen(frame: Tensor, flow: Tensor) -> Tensor:  # -> (B FLOWS, 3, H, W)
            return warped(frame.repeat_interleave(FLOWS, 0), flow.flatten(0, 1))

        drawn = mask * seen(before, to_before) + (1 - mask) * seen(after, to_after)
        drawn = drawn.unflatten(0, (-1, FLOWS)) + mean[:, None] + residuals.unflatten(1, (FLOWS, 3))
        return drawn.mean(1) + self.comb_block(drawn.flatten(1, 2))


def looked_at(state: Tensor, context: tuple[Tensor, Tensor], flows: Tensor) -> Tensor:
    """What a decoder reads: its state, both frames' context where the flows point, and the flows"""
    to_before, to_after = flows.chunk(2, 1)
    seen = warped(context[0], to_before), warped(context[1], to_after)
    return torch.cat([state, *seen, flows], 1)


def refined(
    update: Update, correlations: BothWays, flows: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Flows (B, 4, h, w) and state (B, C, h, w) after a look at the correlations.

    A flow from the middle to one frame, the other way and as long as the whole way, is taken for
    the flow from the other frame to that one.
    """
    eighths = enlarged(flows, 1 / update.coarser) / update.coarser
    at = pixel_grid(eighths)
    to_before, to_after = eighths.chunk(2, 1)
    found = correlations.look_up(at + to_after / MIDDLE, at + to_before / (1 - MIDDLE), RADIUS)
    change, step = update(state, eighths, found)
    return flows + step, state + change


def margins(side: int) -> tuple[int, int]:
    """What is put before and after a side, in pixels, so that the network can take it."""
    spare = max(-(-side // MULTIPLE) * MULTIPLE, SMALLEST) - side
    return spare // 2, spare - spare // 2
