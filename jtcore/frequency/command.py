"""What `jt-freq` does: each analysis writes its figures, and tells its numbers."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve

from jtcore.adapter import Adapter
from jtcore.errors import JtError
from jtcore.frequency import adapters, asked, inversion, losses, shift, trajectory
from jtcore.frequency.figures import Figure, write_figure, write_table
from jtcore.frequency.subject import Subject


def shifts(given: Namespace) -> None:
    """Raises JtError."""
    subject, settings = shift_subject(given)
    stream = subject.chosen(given.data, "video")
    clips = subject.latents(stream)
    of = f"{_named(subject)}, {len(clips)} clips of data.{stream}"
    found = shift.figures(clips, subject.schedule, settings, of)
    _tell([path for name, each in found.items() for path in write_figure(each, given.out, name)])


def inversions(given: Namespace) -> None:
    """Raises JtError."""
    subject, settings = shift_subject(given)
    stream = subject.chosen(given.data, "video")
    of = f"{_named(subject)}, data.{stream}"
    figures = _one_step(subject, stream, settings, of)
    if not given.one_step:
        figures |= _inverted(subject, stream, settings, given.steps, of)
    _tell([path for name, each in figures.items() for path in write_figure(each, given.out, name)])


def _one_step(
    subject: Subject, stream: str, settings: shift.Settings, of: str
) -> dict[str, Figure]:
    clips = subject.latents(stream)
    figure = inversion.one_step_figure(clips, subject.schedule, settings, of)
    pictures = inversion.pictures(subject, dict(inversion.one_step(subject, clips, settings)))
    title = "Clean latents that a shifted answer stands for: first, middle and last frame"
    frames = Figure(title, columns=len(settings.times), note=of, pictures=list(pictures))
    return {"one_step": figure, "one_step_frames": frames}


def _inverted(
    subject: Subject, stream: str, settings: shift.Settings, steps: int, of: str
) -> dict[str, Figure]:
    found = inversion.reconstructions(subject, stream, settings, steps)
    of = f"{of}, {steps} steps"
    title = "Reconstructed under shifts: first, middle and last frame"
    frames = Figure(title, note=of, pictures=list(inversion.pictures(subject, found)))
    return {"inversion": inversion.figure(found, settings, of), "inversion_frames": frames}


def loss(given: Namespace) -> None:
    """Raises JtError."""
    subject = _subject(given)
    stream = subject.chosen(given.data, "video")
    settings = losses.Settings(draws=given.draws, own=given.own, seed=given.seed)
    wanted = asked.askable(subject, given.losses, given.against, given.offset)
    against = next(iter(wanted))
    found = losses.gradients(subject, stream, wanted, settings)
    rows = losses.table(subject, stream, found, against, given.seed)
    of = f"{_named(subject)}, data.{stream}"
    written = write_figure(losses.figure(found, settings, of), given.out, "loss")
    table = given.out / "loss_weights.csv"
    write_table(table, [dict(_flat(row)) for row in rows])
    for line in _shown(rows, against):
        print(line)
    _tell([*written, table])


def run(given: Namespace) -> None:
    """Raises JtError."""
    subject = _subject(given, finished=True)
    figure = trajectory.figure(subject, given.prompts, given.seeds, _named(subject))
    written = write_figure(figure, given.out, "denoising")
    if found := trajectory.previews(subject.run):
        figure = trajectory.training_figure(found, subject.sampling.fps, _named(subject))
        written += write_figure(figure, given.out, "training")
    else:
        print("this run has no previews (sample.preview), so nothing is told of its training")
    _tell(written)


def adapter(given: Namespace) -> None:
    """Raises JtError."""
    subject = _subject(given, finished=True)
    known, of = low_rank(subject), _named(subject)
    if given.beside:
        other = _subject(Namespace(**{**vars(given), "source": given.beside}), finished=True)
        beside = other.run.name  # figures are shown where no such path is
        known |= {f"{name} of {beside}": each for name, each in low_rank(other).items()}
    written = []
    if known:
        written += write_figure(adapters.rank_figure(known, of), given.out, "adapter_ranks")
    pairs = {
        f"{one}, {other}": adapters.overlaps(known[one], known[other])
        for one, other in combinations(known, 2)
    }
    pairs = {pair: found for pair, found in pairs.items() if found}
    if pairs:
        figure = adapters.overlap_figure(pairs, of)
        written += write_figure(figure, given.out, "adapter_overlaps")
    streams = [name for name in subject.recipe.used_data if name in _trained(subject)]
    strengths = list(adapters.strengths(subject, streams, given.times))
    if strengths:
        figure = adapters.strength_figure(strengths, of)
        written += write_figure(figure, given.out, "adapter_strengths")
        written.append(given.out / "adapter_strengths_each.csv")
        write_table(written[-1], adapters.strength_rows(strengths))
    else:
        print("none of these adapters has strengths of its own to tell")
    _tell(written)


def low_rank(subject: Subject) -> dict[str, Adapter]:
    """The adapters whose updates are of low rank; of the others it is said that they are not."""
    found = {}
    for name, each in subject.model.adapters.items():
        try:
            each.factors()
        except JtError as error:
            print(f"adapter.{name}: {error}; so nothing is told of its rank")
        else:
            found[name] = each
    return found


ANALYSES: Mapping[str, Callable[[Namespace], None]] = {
    "shift": shifts,
    "inversion": inversions,
    "loss": loss,
    "run": run,
    "adapter": adapter,
}


def _subject(given: Namespace, finished: bool = False) -> Subject:
    if finished and not Path(given.source).is_dir():
        raise JtError(f"{given.source}: is no folder of a run; name one, such as runs/RECIPE-001")
    return Subject(given.source, given.set, given.plugin_folder)


def _trained(subject: Subject) -> set[str]:
    return {name for branch in subject.recipe.branches.values() for name in branch.data}


def _named(subject: Subject) -> str:
    """Which weights all this is of; drawn ones are called so, and trained ones by their run."""
    backbone = subject.recipe.backbone
    weights = getattr(backbone.spec, "weights", None)
    drawn = " with random weights" if weights == "random" else ""
    of_run = f", {subject.run.name}" if subject.run else ""
    return f"{backbone.kind}{drawn}{of_run}"


def shift_subject(given: Namespace) -> tuple[Subject, shift.Settings]:
    """What is shifted, and how. Raises JtError."""
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
