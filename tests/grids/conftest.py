"""Grids of tiny runs, which every launcher does in no time."""

import pytest


@pytest.fixture
def grid(table) -> dict:
    """Two variants by two ranks by two seeds."""
    diffusion = {"losses": {"motion": {"kind": "diffusion", "on": "video"}}}
    return {
        **table,
        "seeds": [0, 5],
        "axes": {"adapter.joint.rank": [1, 2]},
        "variant": {
            "full": {},
            "no_ait": {"stage": {"joint": {"branch": {"joint": diffusion}}}},
        },
    }
