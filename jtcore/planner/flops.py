"""Floating point operations by operation: torch's own formulas, and those that it lacks."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward


def flops_of(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any], found: Any) -> float:
    """A multiplication and an addition are two. Of what is not a product of matrices, a
    convolution or an attention, 0."""
    packet = operation._overloadpacket
    if packet is ATTENTION:  # not in torch's registry
        query, key, value = args[:3]
        return sdpa_flop_count(query.shape, key.shape, value.shape)
    if packet is ATTENTION_BACKWARD:
        answer, query, key, value = args[:4]
        return sdpa_backward_flop_count(answer.shape, query.shape, key.shape, value.shape)
    formula = flop_registry.get(packet)
    return formula(*args, **kwargs, out_val=found) if formula else 0
