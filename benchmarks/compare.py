"""Timing two things in turn, so that a noisy machine is noisy for both."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

from attrs import frozen


@frozen
class Row:
    """One line of the table."""

    what: str
    ours: float
    reference: float
    unit: str

    def __str__(self) -> str:
        ratio = self.ours / self.reference
        return (
            f"| {self.what} | {self.ours:.4g} {self.unit} | {self.reference:.4g} {self.unit}"
            f" | {ratio:.2f} |"
        )


def time_pair(
    what: str, ours: Callable[[], object], reference: Callable[[], object], rounds: int = 9
) -> Row:
    """The median seconds of each over alternating rounds, after one that warms up."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for work, taken in zip((ours, reference), times, strict=True):
            began = perf_counter()
            work()
            if number:
                taken.append(perf_counter() - began)
    return Row(what, median(times[0]), median(times[1]), "s")
