"""What `jt-eval` does: measure the videos of runs or of a folder, compare, and write it down."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from attrs import evolve, field, frozen

from jtcore.engine import choose_device
from jtcore.errors import Interrupted, JtError
from jtcore.evaluation import results, suites, videos
from jtcore.evaluation.measuring import Unwatched, Video, Watch, measure_all
from jtcore.evaluation.progress import watching
from jtcore.evaluation.references import References, filled, trained_on
from jtcore.evaluation.results import Evaluation
from jtcore.evaluation.suites import Suite
from jtcore.evaluation.together import together
from jtcore.grids.grid import read_grid, run_folders
from jtcore.grids.page import PAGE
from jtcore.grids.results import write_results
from jtcore.grids.state import state_of
from jtcore.pages.results import write_evaluation_page, write_run_page
from jtcore.plugins import load_plugins
from jtcore.recipe import Recipe, build_recipe
from jtcore.run import free_folder, read_json, speaker
from jtcore.settings import EngineSettings
from jtcore.signals import stop_on_signals
from jtcore.tables import Table, parse_toml

OWN = videos.OWN_RESULTS  # the folder of results in that of a run or of videos
RESOLVED = "recipe.resolved.toml"


@frozen(eq=False)
class Subject:
    """What is evaluated: videos with what they are compared with, and by which metrics."""

    title: str
    videos: Sequence[Video]
    suite: Suite
    references: References
    out: Path
    recipe: str | None = None
    run: Path | None = None
    average: Mapping[str, float] = field(factory=dict)


def evaluate(given: Namespace) -> None:
    """Do what the command line asks for. Raises JtError, Interrupted."""
    subjects = list(_subjects(given))
    say = speaker(given.quiet)
    device = _device(given.device)
    with stop_on_signals() as stop, watching(given.quiet, say) as watch:
        try:
            found = [_measure(subject, device, watch, stop.check) for subject in subjects]
        except Interrupted:
            say("stopped; the same command goes on from here")
            raise
    missing = _missing(found)
    if missing and all(len(each.missing) == len(each.metrics) for each in found):
        raise JtError(missing)  # what is there from before stays
    for subject, evaluation in zip(subjects, found, strict=True):
        _write(subject, evaluation, say, shown=len(subjects) == 1)
    for folder in filter(read_grid, given.runs):
        write_results(folder)
        say(f"\n  {folder / PAGE}")
    if len(subjects) > 1:
        _write_together(subjects, found, given.out, say)
    if missing and given.strict:
        raise JtError(missing)


def _device(name: str) -> torch.device:
    try:
        return choose_device(EngineSettings(device=name))
    except JtError as error:
        raise JtError(p.replace("engine.device", "--device") for p in error.problems) from error


def evaluate_run(folder: Path, recipe: Recipe, device: torch.device) -> None:
    """Write what a run's own metrics say of its samples, as `jt-eval` does. Raises JtError."""
    subject = Subject(
        title=recipe.title or folder.name,
        videos=videos.of_run(folder),
        suite=Suite(metric=recipe.metric),
        references=trained_on(recipe),
        out=folder / OWN,
        recipe=str((folder / RESOLVED).absolute()),
        run=folder,
    )
    evaluation = _measure(subject, device, Unwatched(), lambda: None)
    results.write(evaluation, subject.out, _command())


def _subjects(given: Namespace) -> Iterator[Subject]:
    """Everything is read and checked before anything is measured."""
    own = References(_absolute(given.subject), _absolute(given.motion))
    own.check()
    if given.videos:
        yield _of_videos(given, own)
        return
    folders = [run for named in given.runs for run in _runs(named)]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise JtError("a run directory is named twice")
    problems = []
    for folder in folders:
        try:
            yield _of_run(folder, given, own)
        except JtError as error:
            problems += error.problems
    if problems:
        raise JtError(problems)


def _runs(named: Path) -> list[Path]:
    """A run, or those of a grid that are finished. Raises JtError where none is."""
    runs = run_folders(named) or [named]
    finished = [run for run in runs if run == named or state_of(run) == "finished"]
    if not finished:
        raise JtError(f"{named}: no run of this grid is finished")
    return finished


def _of_videos(given: Namespace, references: References) -> Subject:
    found = videos.of_folder(given.videos, given.prompts)
    suite = _suite(given, suites.read_suite(given.suite or "general"), given.plugin_folder)
    out, title = given.out or given.videos / OWN, given.videos.resolve().name
    return Subject(title, found, suite, references, out, average=_average(given, suite))


def _of_run(folder: Path, given: Namespace, references: References) -> Subject:
    """Of a run its samples, and its own metrics unless a suite is named."""
    found = videos.of_run(folder)
    resolved = folder / RESOLVED
    table = parse_toml(resolved)
    began = Path(read_json(folder / "run.json")["directory"])
    folders = [*table.get("plugins", {}).get("folders", []), *given.plugin_folder]
    recipe = build_recipe(table, load_plugins(folders))
    measured = suites.read_suite(given.suite) if given.suite else suites.of_run(table, began)
    suite = _suite(given, measured, folders)
    trained = trained_on(recipe)
    known = References(*(_from(began, place) for place in (trained.subject, trained.motion)))
    alone = len(given.runs) == 1 and not run_folders(given.runs[0])
    out = given.out if given.out and alone else folder / OWN
    title, average = recipe.title or folder.name, _average(given, suite)
    told = str(resolved.absolute())
    return Subject(title, found, suite, references.over(known), out, told, folder, average)


def _suite(given: Namespace, table: Table, folders: Sequence[str]) -> Suite:
    suite = suites.build_suite(table, given.set, given.only, load_plugins(folders))
    if given.models:
        suite = evolve(suite, metric=suites.with_models(suite.metric, given.models))
    return suite


def _average(given: Namespace, suite: Suite) -> Mapping[str, float]:
    """Of which numbers the Average-Score is, where it is asked for. Raises JtError."""
    if given.average_score and not suite.average_score:
        raise JtError(
            "--average-score: this suite has no [average_score], which names its numbers and their"
            " factors; the shipped suite jointtuner has"
        )
    return suite.average_of if given.average_score else {}


def _measure(
    subject: Subject, device: torch.device, watch: Watch, between: Callable[[], None]
) -> Evaluation:
    metrics = filled(subject.suite.metric, subject.references)
    return Evaluation(
        title=subject.title,
        videos=subject.videos,
        metrics=measure_all(subject.videos, metrics, device, watch, between),
        references=subject.references.files(),
        recipe=subject.recipe,
        average_of=subject.average,
    )


def _write(
    subject: Subject, evaluation: Evaluation, say: Callable[[str], None], shown: bool
) -> None:
    table = results.write(evaluation, subject.out, _command())
    if subject.run and subject.out == subject.run / OWN:
        page = write_run_page(subject.run)
    else:
        runs = {subject.run.name: subject.run} if subject.run else {}
        page = write_evaluation_page(subject.out / results.NAME, runs)
    if shown:
        say("\n".join(["", *results.told(table)]))
        say(f"\n  {subject.out / results.NAME}\n  {page}")


def _write_together(
    subjects: Sequence[Subject],
    found: Sequence[Evaluation],
    out: Path | None,
    say: Callable[[str], None],
) -> None:
    """What runs have to say side by side."""
    folders = [subject.run for subject in subjects]
    names = _names(folders)
    out = out or free_folder(folders[0].absolute().parent, "comparison")
    evaluation = together(dict(zip(names, found, strict=True)), ", ".join(names))
    table = results.write(evaluation, out, _command())
    page = write_evaluation_page(out / results.NAME, dict(zip(names, folders, strict=True)))
    say("\n".join(["", *results.told(table)]))
    say(f"\n  {_near(out / results.NAME)}\n  {_near(page)}")


def _near(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _names(folders: Sequence[Path]) -> list[str]:
    """What runs are called: their folders' names, with those above where two have one."""
    paths = [folder.resolve() for folder in folders]
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different names")


def _missing(found: Sequence[Evaluation]) -> list[str]:
    """Which metrics lack something, and what, each once."""
    missing = {name: why for evaluation in found for name, why in evaluation.missing.items()}
    return [f"metric.{name}: {why}" for name, why in missing.items()]


def _command() -> list[str]:
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _absolute(place: str | None) -> str | None:
    return place and str(Path(place).absolute())


def _from(folder: Path, place: str | None) -> str | None:
    return place and str(folder / place)
