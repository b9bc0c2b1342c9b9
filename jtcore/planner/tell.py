"""A plan in words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from jtcore.planner.estimate import FRAGMENTS, Phase
from jtcore.planner.plan import Plan
from jtcore.planner.search import Proposal

GIB = 2**30
ORDER = ("weights", "adapters", "optimizer", "gradients", "checkpoints", "working")


def told(plan: Plan, name: str) -> Iterator[str]:
    """Lines."""
    yield f"{name}: GB are 2^30 bytes"
    yield ""
    yield from _parts(plan)
    yield ""
    yield from _memory(plan)
    yield ""
    yield from _steps(plan)
    yield ""
    yield f"host memory, beside the process itself: {_sizes(plan.estimate.host) or 'none'}"
    yield f"disk, about: {_sizes(plan.disk)}"
    yield ""
    yield from _verdict(plan)


def _parts(plan: Plan) -> Iterator[str]:
    rows = [(part, _count(one.parameters), _gb(one.bytes)) for part, one in plan.parts.items()]
    rows += [
        (f"adapter.{adapter}", _count(one.parameters), _gb(one.bytes))
        for adapter, one in plan.adapters.items()
    ]
    yield from table_lines(("part", "parameters", "GB"), rows)
    for stage, count in plan.trained.items():
        yield f"stage.{stage} trains {_count(count)}"


def _memory(plan: Plan) -> Iterator[str]:
    found = {cause for phase in plan.estimate.phases for cause in phase.causes}
    causes = [*(c for c in ORDER if c in found), *sorted(found - set(ORDER))]
    header = ("device memory, GB", *causes, "allocated", "+ allowance", "needed")
    worst = plan.estimate.worst
    yield from table_lines(header, [_row(phase, causes, worst) for phase in plan.estimate.phases])
    yield (
        "allocated is what torch counts; the allowance is 0.75 GB for CUDA and its libraries and"
        f" {FRAGMENTS:.0%} of what comes and goes"
    )


def _row(phase: Phase, causes: Sequence[str], worst: Phase) -> tuple[str, ...]:
    found = [_gb(phase.causes[c]) if c in phase.causes else "" for c in causes]
    mark = " <" if phase is worst else ""
    total = (_gb(phase.allocated), _gb(phase.allowance), _gb(phase.needed) + mark)
    return (phase.name, *found, *total)


def _steps(plan: Plan) -> Iterator[str]:
    rows = [
        (
            step.place,
            "x".join(map(str, step.latents)),
            *(f"{each / 1e12:.1f}" for each in (step.forward, step.recompute, step.backward)),
            f"{(step.forward + step.recompute + step.backward) / 1e12:.1f}",
            f"{step.seconds:.2f}",
        )
        for step in (*plan.steps, *([plan.sampling] if plan.sampling else []))
    ]
    header = ("TFLOP a pass", "latents", "forward", "recompute", "backward", "all")
    yield from table_lines((*header, f"s at {plan.tflops:g} TFLOP/s"), rows)


def _verdict(plan: Plan) -> Iterator[str]:
    worst = plan.estimate.worst
    if plan.room is None:
        yield f"needs {_gb(worst.needed)} GB ({worst.name}); --gpu 24GB says whether it fits"
        return
    room, margin = _gb(plan.room), abs(plan.room - worst.needed)
    if plan.fits:
        yield f"fits: {_gb(worst.needed)} of {room} GB, {_gb(margin)} to spare ({worst.name})"
        yield from (f"faster with {_proposed(one)}" for one in plan.proposals)
        return
    yield f"does not fit: {_gb(worst.needed)} of {room} GB, {_gb(margin)} too much ({worst.name})"
    yield from (f"fits with {_proposed(one)}" for one in plan.proposals)
    if not plan.proposals:
        yield "no option of memory helps: take a smaller size, fewer frames or a lower rank"


def _proposed(one: Proposal) -> str:
    kind = "exact" if one.exact else "approximate"
    cost = f"{one.slower:.2f} times as long" if abs(one.slower - 1) > 0.005 else "no loss of speed"
    return f"{', '.join(one.settings)}: {_gb(one.needed)} GB, {kind}, about {cost}"


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        first, *others = row
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()


def _sizes(found: Mapping[str, int]) -> str:
    return ", ".join(f"{what} {_gb(size)} GB" for what, size in found.items())


def _gb(size: int) -> str:
    return f"{size / GIB:.2f}"


def _count(number: int) -> str:
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.4g} {name}"
    return str(number)
