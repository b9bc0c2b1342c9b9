"""Randomness is a function of names."""

import torch

from jtcore.rng import generator, seed_of, shared_random


def draw(*path: int | str) -> list[float]:
    return torch.rand(3, generator=generator(*path)).tolist()


def test_equal_paths_draw_alike():
    assert draw(1, "stage", 2) == draw(1, "stage", 2)
    assert shared_random(1, "stage").random() == shared_random(1, "stage").random()


def test_paths_that_differ_anywhere_draw_otherwise():
    paths = [
        (1, "a", 2),
        (2, "a", 2),
        (1, "b", 2),
        (1, "a", 3),
        (1, "a"),
        (1, "a2"),
        (1, "a", 2, 0),
    ]

    assert len({tuple(draw(*path)) for path in paths}) == len(paths)
    assert len({shared_random(*path).random() for path in paths}) == len(paths)


def test_a_seed_is_the_same_in_every_process():
    assert seed_of(1, "a") == 131921258436413157
