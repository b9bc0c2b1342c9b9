"""The check of a recipe: everything that can be known before anything is computed."""

from collections.abc import Iterator, Sequence

import torch

from jtcore.data import captions, data_problems
from jtcore.engine import choose_device
from jtcore.errors import JtError
from jtcore.inversion import prior_problems
from jtcore.model import attach_adapters
from jtcore.recipe import EngineSettings, Recipe, Sampling
from jtcore.types import Backbone, BackboneSpec

Problems = Iterator[str]  # each with its path


def check(recipe: Recipe) -> None:
    """Raises JtError with every problem of files, captions, sizes, masks, device and targets."""
    checks = (_data, _masks, _sampling, _metrics, _prompts, _engine, _model)
    problems = [problem for part in checks for problem in _caught(part, recipe)]
    if problems:
        raise JtError(dict.fromkeys(problems))  # what several checks meet is told once


def _caught(part, recipe: Recipe) -> Problems:
    try:
        yield from part(recipe)
    except JtError as error:
        yield from error.problems


def _data(recipe: Recipe) -> Problems:
    for name, data in recipe.used_data.items():
        yield from data_problems(name, data, recipe.backbone.spec)


def _masks(recipe: Recipe) -> Problems:
    """Losses that need masks, on data without."""
    for stage_name, stage in recipe.stage.items():
        for branch_name, branch in stage.branch.items():
            for name, term in branch.losses.items():
                bare = [
                    data
                    for data in branch.data
                    if recipe.data[data].masks is None
                    and term.on in ("all", recipe.data[data].medium)
                ]
                if bare and getattr(term.loss.spec, "needs_mask", False):
                    place = f"stage.{stage_name}.branch.{branch_name}.losses.{name}"
                    yield f"{place}: needs masks, and data.{bare[0]} has none"


def _sampling(recipe: Recipe) -> Problems:
    if recipe.sample:
        try:
            recipe.backbone.spec.latent_shape(recipe.sample.frames, *recipe.sample.size)
        except ValueError as error:
            yield f"sample: {error}"
        if recipe.sample.noise_prior:
            problems = prior_problems(recipe.sample)
            yield from (f"sample.noise_prior.video: {problem}" for problem in problems)


def _metrics(recipe: Recipe) -> Problems:
    """What metrics lack; said once of all that lack the same."""
    lacking: dict[str, list[str]] = {}
    for name, metric in recipe.metric.items():
        for problem in getattr(metric.spec, "problems", list)():
            option, _, told = problem.partition(": ")
            lacking.setdefault(told, []).append(f"metric.{name}.{option}")
    for problem, places in lacking.items():
        yield f"{', '.join(places)}: {problem}"


def _prompts(recipe: Recipe) -> Problems:
    """Captions and prompts that the text encoder cannot take as they stand."""
    asked: dict[str, Sequence[str]] = {}
    for name, data in recipe.used_data.items():
        try:
            asked[f"data.{name}.prompt"] = captions(data)
        except JtError:
            continue  # told with the data
    if recipe.sample:
        asked["sample.prompts"] = recipe.sample.prompts
        asked["sample.negative"] = [recipe.sample.negative]
        if recipe.sample.noise_prior:
            asked["sample.noise_prior.prompt"] = [recipe.sample.noise_prior.prompt]
    for place, prompts in asked.items():
        for problem in recipe.backbone.spec.prompt_problems(list(dict.fromkeys(prompts))):
            yield f"{place}: {problem}"


def _engine(recipe: Recipe) -> Problems:
    choose_device(recipe.engine)
    yield from precision_problems(recipe.backbone.spec, recipe.engine)


def precision_problems(spec: BackboneSpec, settings: EngineSettings) -> Problems:
    """Why the backbone cannot compute as it is asked to."""
    problem_of = getattr(spec, "precision_problem", lambda precision: None)
    if problem := problem_of(settings.precision):
        yield f"engine.precision: {problem}"


def _model(recipe: Recipe) -> Problems:
    """On the meta device the denoiser has names and shapes, and costs nothing."""
    try:
        backbone = recipe.backbone.spec.load(torch.device("meta"), torch.float32)
    except JtError as error:
        yield from (p if p.startswith("backbone") else f"backbone: {p}" for p in error.problems)
        return
    if recipe.engine.gradient_checkpointing:
        try:
            backbone.checkpoint_gradients()
        except JtError as error:
            yield from (f"engine.gradient_checkpointing: {p}" for p in error.problems)
    if recipe.sample:
        for option, problem in walk_problems(recipe.sample, backbone):
            yield f"sample.{option}: {problem}"
    attach_adapters(recipe.adapter, backbone, recipe.seed)


def walk_problems(settings: Sampling, backbone: Backbone) -> Iterator[tuple[str, str]]:
    """Steps and schedulers that the backbone does not have: each with its option."""
    steps = _refusal(backbone, settings.steps)
    yield from (("steps", problem) for problem in steps)
    if settings.scheduler is not None:
        problems = _refusal(backbone, settings.steps, settings.scheduler)
        yield from (("scheduler", problem) for problem in problems if problem not in steps)
    if settings.noise_prior:
        problems = _refusal(backbone, settings.noise_prior.steps)
        yield from (("noise_prior.steps", problem) for problem in problems)


def _refusal(backbone: Backbone, steps: int, scheduler: str | None = None) -> Sequence[str]:
    try:
        backbone.sampler(steps, scheduler)
    except JtError as error:
        return error.problems
    return ()
