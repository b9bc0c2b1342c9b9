"""What `jt-freq` does: each analysis writes its figures, and tells its numbers."""

import csv
import io
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve

from jtcore.errors import JtError
from jtcore.files import write_text
from jtcore.frequency import adapters, inversion, losses, shift, trajectory
from jtcore.frequency.figures import Figure, write_figure
from jtcore.frequency.subject import Subject


def shifts(given: Namespace) -> None:
    """Raises JtError."""
    subject, settings = _shift_subject(given)
    stream = subject.chosen(given.data, "video")
    clips = subject.latents(stream)
    of = f"{_named(subject)}, {len(clips)} clips of data.{stream}"
    _tell(write_figure(shift.figure(clips, subject.schedule, settings, of), given.out, "shift"))


def inversions(given: Namespace) -> None:
    """Raises JtError."""
    subject, settings = _shift_subject(given)
    stream = subject.chosen(given.data, "video")
    found = inversion.reconstructions(subject, stream, settings, given.steps)
    of = f"{_named(subject)}, data.{stream}, {given.steps} steps"
    written = write_figure(inversion.figure(found, settings, of), given.out, "inversion")
    shown = Figure(
        "Reconstructed under shifts: first, middle and last frame",
        (),
        2,
        of,
        list(inversion.pictures(subject, found)),
    )
    written += write_figure(shown, given.out, "inversion_frames")
    one_step = dict(inversion.one_step(subject, found["clip"], settings))
    at_once = Figure(
        "Clean latents that shifted noise stands for",
        (),
        len(settings.times),
        f"{_named(subject)}, data.{stream}",
        list(inversion.pictures(subject, one_step)),
    )
    _tell([*written, *write_figure(at_once, given.out, "one_step_frames")])


def loss(given: Namespace) -> None:
    """Raises JtError."""
    subject = _subject(given)
    stream = subject.chosen(given.data, "video")
    settings = losses.Settings(draws=given.draws, own=given.own, seed=given.seed)
    kinds = list(dict.fromkeys([given.against, *given.losses])) if given.losses else []
    asked = losses.askable(subject, kinds, given.against, given.offset)
    found = losses.gradients(subject, stream, asked, settings)
    rows = losses.table(subject, found, given.against, given.seed)
    of = f"{_named(subject)}, data.{stream}"
    written = write_figure(losses.figure(found, settings, of), given.out, "loss")
    table = given.out / "loss_weights.csv"
    write_text(table, _csv(rows))
    for line in _shown(rows, given.against):
        print(line)
    _tell([*written, table])


def run(given: Namespace) -> None:
    """Raises JtError."""
    subject = _subject(given, finished=True)
    figure = trajectory.figure(subject, given.prompts, given.seeds, _named(subject))
    written = write_figure(figure, given.out, "denoising")
    if found := trajectory.previews(subject.run):
        figure = trajectory.training_figure(found, _named(subject))
        written += write_figure(figure, given.out, "training")
    else:
        print("this run has no previews (sample.preview), so nothing is told of its training")
    _tell(written)


def adapter(given: Namespace) -> None:
    """Raises JtError."""
    subject = _subject(given, finished=True)
    of = _named(subject)
    known = dict(subject.model.adapters)
    if given.beside:
        beside = Path(given.beside).resolve().name  # figures are shown where no such path is
        other = _subject(Namespace(**{**vars(given), "source": given.beside}), finished=True)
        known |= {f"{name} of {beside}": a for name, a in other.model.adapters.items()}
    written = write_figure(adapters.rank_figure(known, of), given.out, "adapter_ranks")
    pairs = {
        f"{one}, {other}": adapters.overlaps(known[one], known[other])
        for one, other in combinations(known, 2)
    }
    pairs = {pair: found for pair, found in pairs.items() if found}
    if pairs:
        figure = adapters.overlap_figure(pairs, of)
        written += write_figure(figure, given.out, "adapter_overlaps")
    streams = [name for name in subject.recipe.used_data if name in _trained(subject)]
    rows = list(adapters.strengths(subject, streams, given.times))
    if rows:
        figure = adapters.strength_figure(rows, of)
        written += write_figure(figure, given.out, "adapter_strengths")
    else:
        print("none of these adapters has strengths of its own to tell")
    _tell(written)


ANALYSES: Mapping[str, Callable[[Namespace], None]] = {
    "shift": shifts,
    "inversion": inversions,
    "loss": loss,
    "run": run,
    "adapter": adapter,
}


def _subject(given: Namespace, finished: bool = False) -> Subject:
    subject = Subject(given.source, given.set, given.plugin_folder)
    if finished and subject.run is None:
        raise JtError(f"{given.source}: is no folder of a run; name one, such as runs/RECIPE-000")
    return subject


def _trained(subject: Subject) -> set[str]:
    return {name for branch in subject.recipe.branches.values() for name in branch.data}


def _named(subject: Subject) -> str:
    """Which weights all this is of; drawn ones are called so."""
    backbone = subject.recipe.backbone
    weights = getattr(backbone.spec, "weights", None)
    drawn = " with random weights" if weights == "random" else ""
    return f"{backbone.kind}{drawn}"


def _shift_subject(given: Namespace) -> tuple[Subject, shift.Settings]:
    subject = _subject(given)
    settings = shift.Settings(
        std=given.std,
        shifted=given.of,
        draws=given.draws,
        bands=given.bands,
        window=given.window,
        seed=given.seed,
    )
    said = {key: tuple(getattr(given, key)) for key in ("times", "shifts") if getattr(given, key)}
    settings = evolve(settings, **said)
    if problems := list(shift.problems(settings, subject.schedule)):
        raise JtError(problems)
    return subject, settings


def _tell(written: Sequence[Path]) -> None:
    for path in written:
        print(path)


def _csv(rows: Sequence[losses.Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    flat = [dict(_flat(row)) for row in rows]
    writer.writerow(flat[0])
    writer.writerows(
        [f"{v:.6g}" if isinstance(v, float) else v for v in row.values()] for row in flat
    )
    return text.getvalue()


def _flat(row: losses.Row) -> Iterator[tuple[str, Any]]:
    for key, value in attrs.asdict(row, recurse=False).items():
        if isinstance(value, losses.Estimate):
            yield from ((key, value.value), (f"{key}_low", value.low), (f"{key}_high", value.high))
        else:
            yield key, value


def _shown(rows: Sequence[losses.Row], against: str) -> Iterator[str]:
    yield (f"| loss | weights | bias beside {against} | cosine | own variance | signal to noise |")
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        bias, cosine = (
            f"{each.value:.3g} [{each.low:.3g}, {each.high:.3g}]" for each in (row.bias, row.cosine)
        )
        yield (
            f"| {row.loss} | {row.role} | {bias} | {cosine} | {row.own_variance:.3g}"
            f" | {row.snr:.3g} |"
        )
