"""The arithmetic of a low-rank update: added to an output where it lies, and its gradient to that
of the layer's input; dropout without copies.

What autograd would keep of `output + dropout(strength * hidden @ up.T)` is as wide as the output,
two or three times over. Here it keeps `hidden`, which is as wide as the rank, and what dropout
drew. A compiler fuses the plain operations by itself, and is given those.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional

from jtcore.reckoning import kind_of

ELEMENTS = 2**24  # of an activation that dropout works on at once: 64 MiB in float32
FRESH = (  # none of them keeps its own output
    *("AddmmBackward0", "MmBackward0", "LowBitProductBackward", "_AddedBackward"),
)
VIEWS = ("ViewBackward0", "UnsafeViewBackward0")


def linear(x: Tensor, weights: Sequence[Tensor], dropout: float = 0.0) -> Tensor:
    """`dropout(x) @ weight.T` of several weights (rows, in) in one product, (..., in) -> (..., all
    rows), computed in the type of `x`.

    A GPU's fast kernels ask for multiples of 8: rows of zeros may follow those of several weights.
    """
    if torch.compiler.is_compiling():
        matrix = _stacked(weights, x.dtype, x.is_cuda)
        return functional.linear(functional.dropout(x, dropout), matrix)
    return _Linear.apply(x, dropout, x.dtype, *weights)[1]


def tapped(
    x: Tensor, weights: Sequence[Tensor], dropout: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`x` again, and what `linear` answers of it in another type.

    In backward the gradient of the first is written over with that of both: give it to a layer
    that makes one of its own, as a product with a matrix does, and to nothing else.
    """
    return _Linear.apply(x, dropout, dtype, *weights)


def add(
    output: Tensor | None, hidden: Tensor, strength: float | Tensor, up: Tensor, dropout: float
) -> Tensor:
    """`output + dropout(strength * hidden @ up.T)`, (N, ..., out), of `hidden` (N, ..., rank).

    A `strength` (B,) is of each sample: N is B, or has each sample's frames or pixels folded into
    it with the sample outermost. Where autograd allows, `output` is written over: do not use it
    again. Without an output the update alone.
    """
    if torch.compiler.is_compiling():
        added = functional.linear(_scaled(hidden, strength), up.to(hidden.dtype))
        added = functional.dropout(added, dropout)
        return added if output is None else output + added
    if output is not None and not _may_be_written(output, hidden):
        return output + _Added.apply(None, hidden, strength, up, dropout)
    return _Added.apply(output, hidden, strength, up, dropout)


class _Added(Function):
    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor | None,
        hidden: Tensor,
        strength: float | Tensor,
        up: Tensor,
        dropout: float,
    ) -> Tensor:
        scaled, weight = _scaled(hidden, strength).flatten(0, -2), up.to(hidden.dtype)
        whole = hidden.new_zeros(*hidden.shape[:-1], len(up)) if output is None else output
        flat = whole.view(-1, len(up))
        ctx.kept = _Kept(dropout, flat)
        if dropout:
            for rows, mask in ctx.kept.draw():
                flat[rows].addcmul_(scaled[rows] @ weight.T, mask, value=1 / (1 - dropout))
        else:
            flat.addmm_(scaled, weight.T)
        tensor = isinstance(strength, Tensor)
        ctx.save_for_backward(hidden, up, strength if tensor else None, *ctx.kept.masks())
        ctx.strength, ctx.onto = None if tensor else strength, output is not None
        # the same memory, but a tensor of its own: autograd would take it for a view of `output`
        return whole.data

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, up, strength, *masks = ctx.saved_tensors
        strength = ctx.strength if strength is None else strength
        scaled, weight = _scaled(hidden, strength).flatten(0, -2), up.to(hidden.dtype)
        flat = gradient.to(hidden.dtype).reshape(-1, len(up))
        of_scaled, of_up = _backward(ctx.kept.draw_again(masks), flat, scaled, weight)
        if ctx.kept.drops:  # scaled where tensors are narrow
            of_scaled.mul_(ctx.kept.scale)
            of_up.mul_(ctx.kept.scale)
        of_scaled = of_scaled.view(hidden.shape)
        of_strength = None
        if ctx.needs_input_grad[2]:
            product = (of_scaled * hidden).view(len(strength), -1)
            of_strength = product.sum(1, dtype=torch.promote_types(product.dtype, torch.float32))
            of_strength = of_strength.to(strength.dtype)
        of_output = gradient if ctx.onto else None
        return of_output, _scaled(of_scaled, strength), of_strength, of_up.to(up.dtype), None


class _Linear(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropout: float, dtype: torch.dtype, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        computed = x.to(dtype)
        flat = computed.flatten(0, -2)
        ctx.aligned = kind_of(x.device) == "cuda"
        matrix = _stacked(weights, dtype, ctx.aligned)
        ctx.kept = _Kept(dropout, flat)
        if dropout:
            parts = [(flat[rows] * mask) @ matrix.T for rows, mask in ctx.kept.draw()]
            hidden = torch.cat(parts).mul_(ctx.kept.scale)
        else:
            hidden = flat @ matrix.T
        trained = any(ctx.needs_input_grad[3:])
        ctx.save_for_backward(computed if trained else None, *weights, *ctx.kept.masks())
        ctx.shape, ctx.dtype, ctx.count = x.shape, x.dtype, len(weights)
        ctx.set_materialize_grads(False)
        # the same memory, but no view of `x`
        return x.data, hidden.view(*x.shape[:-1], len(matrix))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_same: Tensor | None, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return of_same, None, None, *[None] * ctx.count
        x, *more = ctx.saved_tensors
        weights, masks = more[: ctx.count], more[ctx.count :]
        outer, matrix = gradient.flatten(0, -2), _stacked(weights, gradient.dtype, ctx.aligned)
        outer = outer * ctx.kept.scale if ctx.kept.drops else outer
        kept = ctx.kept.draw_again(masks)
        onto = None
        if ctx.needs_input_grad[0]:
            onto = outer.new_zeros(ctx.shape, dtype=ctx.dtype) if of_same is None else of_same
            onto = onto.contiguous()
        of_rows = _backward_of_product(kept, x, outer, matrix, onto)
        of_each = [None] * len(weights)
        if of_rows is not None:
            counts = [len(weight) for weight in weights]
            parts = of_rows[: sum(counts)].split(counts)
            of_each = [part.to(one.dtype) for part, one in zip(parts, weights, strict=True)]
        # no view, so that autograd adds the next one to it where it lies
        return None if onto is None else onto.data, None, None, *of_each


class _Kept:
    """What dropout keeps of an activation (n, width): drawn as torch's own dropout draws, off the
    global generator, in as many parts as bound its memory.

    Backward finds it again: on a CPU, where drawing is slow, in a byte for each element; elsewhere
    drawn anew from the generator's state, a few bytes in all.
    """

    def __init__(self, dropout: float, like: Tensor) -> None:
        self.drops, self.keep, self.scale = dropout > 0, 1 - dropout, 1 / (1 - dropout)
        self.shape, self.device, self.dtype = like.shape, like.device, like.dtype
        self.redrawn = kind_of(like.device) != "cpu"
        self.drawn: list[Tensor] = []
        self.state: Tensor | None = None

    def draw(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows, and a mask of ones and zeros for them."""
        if self.redrawn:
            self.state = _global_generator(self.device).get_state()
        for rows in self._rows():
            mask = self._mask(rows, None)
            if not self.redrawn:
                self.drawn.append(mask.bool())
            yield rows, mask

    def masks(self) -> list[Tensor]:
        """To be saved with other tensors, for checkpointing gives those up; once."""
        drawn, self.drawn = self.drawn, []
        return drawn

    def draw_again(self, masks: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor]] | None:
        """The same, of the `masks` that were saved; None where nothing is dropped."""
        if not self.drops:
            return None
        if not self.redrawn:
            return zip(self._rows(), (mask.to(self.dtype) for mask in masks), strict=True)
        generator = Generator(self.device)
        generator.set_state(self.state)
        return ((rows, self._mask(rows, generator)) for rows in self._rows())

    def _rows(self) -> list[slice]:
        count, width = self.shape
        each = max(1, ELEMENTS // width)
        return [slice(start, min(start + each, count)) for start in range(0, count, each)]

    def _mask(self, rows: slice, generator: Generator | None) -> Tensor:
        shape = (rows.stop - rows.start, self.shape[1])
        mask = torch.empty(shape, dtype=self.dtype, device=self.device)
        return mask.bernoulli_(self.keep, generator=generator)


def _backward(
    kept: Iterable[tuple[slice, Tensor]] | None, gradient: Tensor, scaled: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `scaled` (n, rank) and of `weight` (out, rank), of that (n, out) of the sum."""
    if kept is None:
        return gradient @ weight, gradient.T @ scaled
    of_scaled, of_weight = torch.empty_like(scaled), _sum_of(weight)
    for rows, mask in kept:
        inner = mask.mul_(gradient[rows])
        torch.mm(inner, weight, out=of_scaled[rows])
        of_weight += inner.T @ scaled[rows]
    return of_scaled, of_weight


def _backward_of_product(
    kept: Iterable[tuple[slice, Tensor]] | None,
    x: Tensor | None,
    gradient: Tensor,
    matrix: Tensor,
    onto: Tensor | None,
) -> Tensor | None:
    """Of the gradient (n, rows) of `x @ matrix.T`: that of the matrix (rows, in), where there is
    an `x` (..., in), and that of `x`, added to `onto` (..., in)."""
    x = None if x is None else x.flatten(0, -2)
    onto = None if onto is None else onto.view(-1, matrix.shape[1])
    if kept is None:
        if onto is not None:
            _add_product(onto, gradient, matrix)
        return None if x is None else gradient.T @ x
    of_matrix = None if x is None else _sum_of(matrix)
    for rows, mask in kept:
        if onto is not None:
            onto[rows].addcmul_(gradient[rows] @ matrix, mask)
        if x is not None:
            of_matrix += gradient[rows].T @ mask.mul_(x[rows])
    return of_matrix


def _add_product(onto: Tensor, left: Tensor, right: Tensor) -> None:
    if onto.dtype == left.dtype:
        onto.addmm_(left, right)
    else:
        onto.add_(left @ right)


def _stacked(weights: Sequence[Tensor], dtype: torch.dtype, aligned: bool) -> Tensor:
    """One matrix, (all rows, in)."""
    if len(weights) == 1:
        return weights[0].to(dtype)
    count = sum(map(len, weights)) if aligned else 0
    return torch.cat([*weights, weights[0].new_zeros(-count % 8, weights[0].shape[1])]).to(dtype)


def _sum_of(weight: Tensor) -> Tensor:
    """Zeros in which parts of a gradient are added up, which 16 bits would round each time."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros(weight.shape, dtype=dtype, device=weight.device)


def _scaled(hidden: Tensor, strength: float | Tensor) -> Tensor:
    """Each sample's `hidden` times its strength."""
    if not isinstance(strength, Tensor):
        return hidden if strength == 1 else hidden * strength
    assert len(hidden) % len(strength) == 0, (
        f"an axis of {len(hidden)} does not hold {len(strength)} samples"
    )
    each = strength.to(hidden.dtype).repeat_interleave(len(hidden) // len(strength), 0)
    return hidden * each.view(-1, *[1] * (hidden.ndim - 1))


def _may_be_written(output: Tensor, hidden: Tensor) -> bool:
    """Whether nobody needs the values of `output`: it is fresh from a matrix product."""
    if output.dtype != hidden.dtype or not output.is_contiguous():
        return False
    made = output.grad_fn
    if made is not None and made.name() in VIEWS:
        made = made.next_functions[0][0]
    return not output.requires_grad or (made is not None and made.name() in FRESH)


def _global_generator(device: torch.device) -> Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index]
    return torch.default_generator
