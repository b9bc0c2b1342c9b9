"""The check of a recipe: everything that can be known before anything is computed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

import torch

from jtcore.adapter import Adapter
from jtcore.artifact import initial_problems
from jtcore.checkpointing import OF_CHECKPOINTING, checkpointed
from jtcore.compiling import compile_problems
from jtcore.controls import control_problems
from jtcore.data import data_problems, known_captions, reference_files
from jtcore.engine import DTYPES, choose_device
from jtcore.engines import engine_problems, reduction_problems
from jtcore.errors import JtError
from jtcore.evaluation.references import metrics_of
from jtcore.inversion import prior_problems
from jtcore.kernels import kernel_problem
from jtcore.lowbit import low_bit_problem, lower
from jtcore.model import attach_adapters
from jtcore.optimizers import optimizer_problem
from jtcore.reading import read, replaced_words
from jtcore.recipe import Recipe, Sampling
from jtcore.references import reference_problems
from jtcore.settings import EngineSettings, Memory
from jtcore.streaming import memory_problems
from jtcore.types import Backbone, BackboneSpec
from jtcore.words import attention_problems

Problems = Iterator[str]  # each with its path


def check(recipe: Recipe) -> None:
    """Raises JtError with every problem of files, captions, sizes, masks, device and targets."""
    checks = (
        *(_data, _files, _masks, _frames, _sampling, reference_problems, _metrics, _prompts),
        *(_engine, _weights, _model),
    )
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


def _files(recipe: Recipe) -> Problems:
    """Adapters that have something for each file, on data of another number of files."""
    for branch in recipe.branches.values():
        for adapter, data in product(branch.adapters, branch.data):
            problems = getattr(recipe.adapter[adapter].spec, "files_problems", None)
            with suppress(JtError):  # of files that cannot be found: told with the data
                for problem in problems(f"data.{data}", _count(recipe, data)) if problems else ():
                    yield f"adapter.{adapter}.{problem}"


def _count(recipe: Recipe, data: str) -> int:
    return len(reference_files(recipe.data[data]))


def _masks(recipe: Recipe) -> Problems:
    """Losses that need masks, on data without."""
    for place, branch in recipe.branches.items():
        for name, term in branch.losses.items():
            bare = [
                data
                for data in branch.data
                if not recipe.data[data].has_masks
                and term.on in ("all", branch.medium(recipe.data[data]))
            ]
            if bare and getattr(term.loss.spec, "needs_mask", False):
                yield f"{place}.losses.{name}: needs masks, and data.{bare[0]} has none"


def _frames(recipe: Recipe) -> Problems:
    """Single frames of clips, of a codec that puts several into a latent one."""
    for place, branch in recipe.branches.items():
        for name in branch.data if branch.frame == "random" else ():
            data = recipe.data[name]
            try:
                found = recipe.backbone.spec.latent_shape(data.frames, *data.size)[1]
            except (ValueError, JtError):
                continue  # told with the data
            if found != data.frames:
                yield (
                    f"{place}.frame: this backbone makes {found} latent frames of {data.frames}, so"
                    f" none is a frame; give the branch a table of data.{name}'s source with"
                    f" frames = 1 and clips = {data.frames}, which draws single ones"
                )


def _sampling(recipe: Recipe) -> Problems:
    if recipe.sample:
        yield from sampled_shape_problems(recipe.sample, recipe.backbone.spec)
        if recipe.sample.noise_prior:
            problems = prior_problems(recipe.sample)
            yield from (f"sample.noise_prior.video: {problem}" for problem in problems)


def sampled_shape_problems(settings: Sampling, spec: BackboneSpec) -> Problems:
    """Frames and size that the backbone cannot sample."""
    try:
        spec.latent_shape(settings.frames, *settings.size)
    except ValueError as error:
        yield f"sample: {error}"


def _metrics(recipe: Recipe) -> Problems:
    """What metrics lack; said once of all that lack the same."""
    lacking: dict[str, list[str]] = {}
    for name, metric in metrics_of(recipe).items():
        for problem in getattr(metric.spec, "problems", list)():
            option, _, told = problem.partition(": ")
            lacking.setdefault(told, []).append(f"metric.{name}.{option}")
    for problem, places in lacking.items():
        yield f"{', '.join(places)}: {problem}"


def _prompts(recipe: Recipe) -> Problems:
    """Captions and prompts that the text encoder cannot take as it reads them."""
    replaced = replaced_words(recipe.adapter)
    for place, prompts in _asked(recipe).items():
        texts = dict.fromkeys(read(prompt, replaced).text for prompt in prompts)
        for problem in recipe.backbone.spec.prompt_problems(list(texts)):
            yield f"{place}: {problem}"


def _asked(recipe: Recipe) -> dict[str, Sequence[str]]:
    """All that is embedded, by its place."""
    asked = {
        f"data.{name}.prompt": known_captions([recipe.data[name]]) for name in recipe.used_data
    }
    if recipe.sample:
        asked["sample.prompts"] = recipe.sample.prompts
        asked["sample.negative"] = [recipe.sample.negative]
        if recipe.sample.noise_prior:
            asked["sample.noise_prior.prompt"] = [recipe.sample.noise_prior.prompt]
    return asked


def _engine(recipe: Recipe) -> Problems:
    device, memory = choose_device(recipe.engine), recipe.engine.memory
    yield from checkpointing_problems(recipe.engine)
    yield from engine_problems(recipe)
    yield from precision_problems(recipe.backbone.spec, recipe.engine)
    if problem := memory.optimizer and optimizer_problem(memory.optimizer, device):
        yield f"engine.memory.optimizer: {problem}"
    yield from base_problems(recipe.engine)
    yield from kernel_problems(recipe.engine)


def checkpointing_problems(settings: EngineSettings) -> Problems:
    """Options that say how it is done, where it is not."""
    for option in () if settings.gradient_checkpointing else OF_CHECKPOINTING:
        if getattr(settings.memory, option) != getattr(Memory(), option):
            yield f"engine.memory.{option}: needs engine.gradient_checkpointing = true"


def kernel_problems(settings: EngineSettings) -> Problems:
    """Why attention cannot be computed as it is asked to be."""
    name, device = settings.attention, choose_device(settings)
    dtype = DTYPES[settings.precision]
    if name != "auto" and (problem := kernel_problem(name, device, dtype)):
        yield f"engine.attention: {problem}"


def base_problems(settings: EngineSettings) -> Problems:
    """Why the denoiser cannot be stored as it is asked to be."""
    base = settings.memory.base
    if problem := base and low_bit_problem(base, choose_device(settings)):
        yield f"engine.memory.base: {problem}"


def precision_problems(spec: BackboneSpec, settings: EngineSettings) -> Problems:
    """Why backbone or device cannot compute as they are asked to."""
    asked, problem_of = settings.precision, getattr(spec, "precision_problem", lambda name: None)
    if problem := problem_of(asked):
        yield f"engine.precision: {problem}"
    elif asked == "bf16" and _emulates_bf16(device := choose_device(settings)):
        others = [f'"{name}"' for name in ("fp16", "fp32") if not problem_of(name)]
        name = torch.cuda.get_device_name(device)
        yield f"engine.precision: {name} does not compute in bf16; use {' or '.join(others)}"


def _emulates_bf16(device: torch.device) -> bool:
    """Whether a GPU is older than bf16, which it then does more slowly than float32."""
    return device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)


def _weights(recipe: Recipe) -> Problems:
    """Files of weights that are missing, or not whole."""
    yield from getattr(recipe.backbone.spec, "weights_problems", list)()


def _model(recipe: Recipe) -> Problems:
    """On the meta device the denoiser has names and shapes, and costs nothing."""
    try:
        backbone = recipe.backbone.spec.load(torch.device("meta"), torch.float32)
    except JtError as error:
        yield from (p if p.startswith("backbone") else f"backbone: {p}" for p in error.problems)
        return
    if recipe.engine.memory.base:
        try:
            lower(backbone, recipe.engine.memory.base, torch.device("meta"))
        except ImportError:  # told with the engine
            return
        except JtError as error:
            yield from (f"engine.memory.base: {p}" for p in error.problems)
    if recipe.engine.gradient_checkpointing:
        try:
            checkpointed(backbone)
        except JtError as error:
            yield from (f"engine.gradient_checkpointing: {p}" for p in error.problems)
    if recipe.sample:
        for option, problem in walk_problems(recipe.sample, backbone):
            yield f"sample.{option}: {problem}"
        replaced = replaced_words(recipe.adapter)
        for problem in control_problems(recipe.sample, recipe.backbone.spec, backbone, replaced):
            yield f"sample.{problem}"
    yield from attention_problems(recipe, backbone)
    attached = attach_adapters(recipe.adapter, backbone, recipe.seed)
    yield from placing_problems(recipe.engine.memory, backbone, attached)
    yield from reduction_problems(recipe, attached)
    if recipe.engine.compile:
        device = choose_device(recipe.engine)
        problems = compile_problems(recipe, backbone, attached, device)
        yield from (f"engine.compile: {problem}" for problem in problems)
    if recipe.sample:
        yield from (f"sample.{problem}" for problem in schedule_problems(recipe.sample, attached))
    for name, path in recipe.initial.items():
        yield from initial_problems(Path(path), recipe.adapter[name], attached[name], name)
    asked = list(dict.fromkeys(prompt for prompts in _asked(recipe).values() for prompt in prompts))
    for name, adapter in attached.items():
        learning = (branch for branch in recipe.branches.values() if name in branch.trained)
        streams = {data for branch in learning for data in branch.data}
        for problem in adapter.text_problems(
            known_captions(recipe.data[each] for each in sorted(streams)), asked
        ):
            yield f"adapter.{name}: {problem}"


def placing_problems(
    memory: Memory, backbone: Backbone, adapters: Mapping[str, Adapter]
) -> Problems:
    """Blocks, or the text encoder, that cannot be where they are asked to be."""
    for problem in memory_problems(memory, backbone, adapters):
        yield f"engine.memory.{problem}"
    for name, adapter in adapters.items() if memory.text_encoder == "host" else ():
        if adapter.reads_text:
            yield (
                f"engine.memory.text_encoder: with adapter.{name} the text encoder is on the device"
                ' beside the denoiser in each pass, and not on the "host"; take "device", or leave'
                " the adapter out"
            )


def schedule_problems(settings: Sampling, adapters: Mapping[str, Adapter]) -> Iterator[str]:
    """Schedules that the adapters cannot follow, each with its place in [sample]."""
    for name, schedule in settings.schedule.items():
        if schedule.on != "both" and not adapters[name].scales_samples:
            yield (
                f'schedule.{name}.on: expected "both", got {schedule.on!r}: this adapter has one'
                " scale for all of a batch, and both halves of guidance are in one"
            )


def described(recipe: Recipe) -> Iterator[str]:
    """What each adapter of a recipe without problems reaches, a line each."""
    backbone = recipe.backbone.spec.load(torch.device("meta"), torch.float32)
    for name, adapter in attach_adapters(recipe.adapter, backbone, recipe.seed).items():
        found = adapter.reach
        yield f"adapter.{name}: {found.modules:,} modules, {found.parameters:,} parameters"


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
