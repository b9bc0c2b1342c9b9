"""What `jt-sample` does: attach finished adapters to their backbone again, and generate; or, of a
recipe, generate with its backbone alone."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from jtcore.artifact import Artifact, load_weights, other_backbone
from jtcore.cache import Cache, cache_folder
from jtcore.check import (
    base_problems,
    placing_problems,
    precision_problems,
    schedule_problems,
    walk_problems,
)
from jtcore.composition import Source, folders_of, read_adapters, refuse_other_backbones
from jtcore.controls import control_problems
from jtcore.engine import Engine, memory_told
from jtcore.errors import JtError
from jtcore.files import write_text
from jtcore.inversion import load_reference, prior_problems
from jtcore.model import Model, attach_adapters, load_model
from jtcore.plugins import load_plugins
from jtcore.provenance import backbone_identity
from jtcore.reading import read, replaced_words
from jtcore.recipe import Sampling
from jtcore.references import embed_pictures, picture_problems
from jtcore.run import speaker, write_json
from jtcore.sample import LESS, generate, requests
from jtcore.settings import EngineSettings
from jtcore.signals import stop_on_signals
from jtcore.stream import embed_texts
from jtcore.structure import Component, component, structure, unstructure
from jtcore.tables import Table, change, find_recipe, read_table
from jtcore.trace import listening, write_trace

OPTIONS = (  # that override the recipe's
    *("steps", "scheduler", "guidance", "dynamic_guidance", "negative"),
    *("frames", "size", "fps", "batch"),
)


@frozen
class Generation:
    """What is sampled of what."""

    sample: Sampling
    backbone: Component = component("backbones")
    image_encoder: Component | None = component("image_encoders", default=None)
    adapter: Mapping[str, Component] = component("adapters", factory=dict)
    engine: EngineSettings = EngineSettings()


def sample(given: Namespace) -> None:
    """Generate what the command line asks for. Raises JtError, Interrupted."""
    say = speaker(given.quiet)
    recipe = _recipe(given.source)
    sources = [] if recipe else [Source.parse(source) for source in given.source]
    folders = recipe.get("plugins", {}).get("folders", []) if recipe else folders_of(sources)
    plugins = load_plugins([*folders, *given.plugin_folder])
    artifacts = read_adapters(sources, plugins)
    refuse_other_backbones(artifacts, _changed_backbone(given.set))
    table = _table(given, artifacts, _base_of(recipe) if recipe else made_for(artifacts))
    generation = structure(Generation, table, plugins)
    wanted = list(requests(generation.sample, _scales(given.scale, artifacts)))
    _refuse_existing(given.out, [request.file for request in wanted])
    model, reference = ready(generation, artifacts, say)
    settings, spec = generation.sample, generation.backbone.spec
    model, rows = listening(model) if given.trace else (model, [])
    with memory_told("sampling", LESS), stop_on_signals() as stop:
        samples = generate(wanted, given.out, settings, spec, model, stop.check, reference)
    write_json(given.out / "samples.json", samples)
    for entry in samples:
        if given.captions:
            write_text((given.out / entry["file"]).with_suffix(".txt"), f"{entry['prompt']}\n")
        say(f"{given.out / entry['file']}: {entry['prompt']}")
    if given.trace:
        say(f"{', '.join(str(path) for path in write_trace(rows, given.trace))}: what adapters say")


def ready(
    generation: Generation, artifacts: Sequence[Artifact], say: Callable[[str], None]
) -> tuple[Model, Tensor | None]:
    """The model with its trained adapters, which knows all captions, and the latents (C, F, H, W)
    of the noise prior's video. Raises JtError with all that cannot be asked of the backbone."""
    settings, spec, engine = generation.sample, generation.backbone.spec, Engine(generation.engine)
    adapters = generation.adapter
    replaced = replaced_words(adapters)
    if problems := list(_sampling_problems(generation, replaced)):
        raise JtError(problems)
    _tell_other_backbone(artifacts, backbone_identity(generation.backbone), say)
    _tell_other_bases(artifacts, generation.engine, say)
    cache = Cache(cache_folder())
    texts = embed_texts(settings.captions, spec, cache, engine.text_device, replaced)
    reference = load_reference(settings, spec, cache, engine.device, say)
    pictures = _pictures(generation, cache, engine.device)
    model = load_model(generation.backbone, adapters, texts, engine, 0, pictures)
    for artifact in artifacts:
        load_weights(artifact, model.adapters[artifact.name])
    model.train(False)
    return model, reference


def _recipe(sources: Sequence[str]) -> Table | None:
    """The table of the recipe that is named in the place of adapters, by path or shipped name."""
    if len(sources) > 1 or (Path(sources[0]).exists() and not sources[0].endswith(".toml")):
        return None
    try:
        path = find_recipe(sources[0])
    except JtError:
        return None
    return read_table(path)


def _base_of(recipe: Table) -> Table:
    """What a recipe's backbone is sampled with alone."""
    engine, sampling = recipe.get("engine", {}), recipe.get("sample", {})
    memory = engine.get("memory", {})
    stored = {"memory": {"base": memory["base"]}} if "base" in memory else {}
    return {
        "backbone": recipe.get("backbone", {}),
        "engine": {key: engine[key] for key in ("precision",) if key in engine} | stored,
        "sample": {key: sampling[key] for key in OPTIONS if key in sampling},
    }


def made_for(artifacts: Sequence[Artifact]) -> Table:
    """What adapters were trained on, and sampled with."""
    recorded = next((a.sample for a in artifacts if a.sample), None)
    return {
        "backbone": unstructure(artifacts[0].backbone),
        "engine": unstructure(artifacts[0].engine),
        "sample": {} if recorded is None else unstructure(recorded),
    }


def _table(given: Namespace, artifacts: Sequence[Artifact], made_for: Table) -> Table:
    """What is sampled with, as the command line changes it."""
    seeds = given.seed or list(range(1 if given.count is None else given.count))
    sampling = made_for["sample"] | {"prompts": given.prompt, "seeds": seeds, "scales": {}}
    sampling |= {key: value for key in OPTIONS if (value := getattr(given, key)) is not None}
    sampling["schedule"] = _schedules(given.schedule, artifacts)
    sampling["control"] = _controls(given.control, sampling.get("control", {}))
    sampling |= _noise_prior(given, sampling.pop("noise_prior", {}))
    if given.reference is not None:
        sampling["reference"] = sampling.get("reference", {}) | {"picture": given.reference}
    table = {
        "backbone": made_for["backbone"],
        "engine": made_for["engine"],
        "adapter": {artifact.name: unstructure(artifact.adapter) for artifact in artifacts},
        "sample": sampling,
        **image_encoder_of(artifacts),
    }
    for setting in given.set:
        if not setting.startswith(("backbone.", "engine.", "adapter.")):
            raise JtError(f"--set {setting}: only backbone, engine and adapter can be changed here")
    return change(table, given.set)


def _changed_backbone(settings: Sequence[str]) -> list[str]:
    """Options of the backbone that the command line gives."""
    paths = [setting.partition("=")[0] for setting in settings]
    return [path.removeprefix("backbone.") for path in paths if path.startswith("backbone.")]


def image_encoder_of(artifacts: Sequence[Artifact]) -> Table:
    """That of the adapters which have one. Raises JtError where they differ."""
    having = [artifact for artifact in artifacts if artifact.image_encoder]
    tables = [unstructure(artifact.image_encoder) for artifact in having]
    for other, table in zip(having, tables, strict=True):
        if table != tables[0]:
            raise JtError(f"{other.path} reads another image encoder than {having[0].path}")
    return {"image_encoder": tables[0]} if tables else {}


def _pictures(generation: Generation, cache: Cache, device: torch.device) -> dict[str, Tensor]:
    """What adapters are shown, by path."""
    shown = generation.sample.reference
    if shown is None:
        return {}
    return embed_pictures({shown.picture}, generation.image_encoder.spec, cache, device)


def _sampling_problems(generation: Generation, replaced: Mapping[str, str]) -> Iterator[str]:
    """What is asked that the backbone cannot do."""
    settings, spec = generation.sample, generation.backbone.spec
    yield from precision_problems(spec, generation.engine)
    yield from base_problems(generation.engine)
    try:
        spec.latent_shape(settings.frames, *settings.size)
    except ValueError as error:
        yield f"--frames, --size: {error}"
    asked = {"--prompt": settings.prompts, "--negative": [settings.negative]}
    if settings.noise_prior:
        yield from (f"--noise-prior: {problem}" for problem in prior_problems(settings))
        asked["--noise-prior"] = [settings.noise_prior.prompt]
    if settings.reference:
        problems = picture_problems(settings.reference.picture)
        if generation.image_encoder is None:
            problems.append("no adapter has an image condition")
        yield from (f"--reference: {problem}" for problem in problems)
    for option, prompts in asked.items():
        texts = dict.fromkeys(read(prompt, replaced).text for prompt in prompts)
        for problem in spec.prompt_problems(list(texts)):
            yield f"{option}: {problem}"
    backbone = spec.load(torch.device("meta"), torch.float32)
    attached = attach_adapters(generation.adapter, backbone, seed=0)
    yield from placing_problems(generation.engine.memory, backbone, attached)
    yield from (f"--{problem}" for problem in schedule_problems(settings, attached))
    places = {"steps": "--steps", "scheduler": "--scheduler", "noise_prior.steps": "--noise-prior"}
    for option, problem in walk_problems(settings, backbone):
        yield f"{places[option]}: {problem}"
    for problem in control_problems(settings, spec, backbone, replaced):
        yield f"--{problem}"


def _tell_other_backbone(
    artifacts: Sequence[Artifact], now: Mapping[str, str], say: Callable[[str], None]
) -> None:
    for artifact in artifacts:
        if told := other_backbone(artifact.identity, now):
            say(f"{artifact.path}: {told}")


def _tell_other_bases(
    artifacts: Sequence[Artifact], engine: EngineSettings, say: Callable[[str], None]
) -> None:
    now = engine.memory.base
    for artifact in artifacts:
        if (then := artifact.engine.memory.base) != now:
            told = f"{artifact.path}: was trained on {then or 'full'} weights of the backbone"
            say(f"{told}, and is sampled on {now or 'full'} ones")


def _scales(settings: Sequence[str], artifacts: Sequence[Artifact]) -> dict[str, float]:
    """`joint=0.5` and the like; adapters are on at their recipe's scales unless said."""
    scales = {artifact.name: artifact.scale for artifact in artifacts}
    for setting in settings:
        name, _, number = setting.partition("=")
        if name not in scales:
            raise JtError(f"--scale {setting}: no adapter {name!r}; there are {sorted(scales)}")
        try:
            scales[name] = float(number)
        except ValueError:
            scales[name] = nan
        if not isfinite(scales[name]):
            raise JtError(f"--scale {setting}: expected ADAPTER=NUMBER")
    return scales


def _schedules(settings: Sequence[str], artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Those of the recipes, unless `joint={...}` names another or `joint=false` takes it away."""
    schedules = {
        artifact.name: unstructure(artifact.schedule) for artifact in artifacts if artifact.schedule
    }
    for setting in settings:
        name, _, value = setting.partition("=")
        known = sorted(artifact.name for artifact in artifacts)
        if name not in known:
            raise JtError(f"--schedule {setting}: no adapter {name!r}; there are {known}")
        schedules[name] = change({}, [f"schedule={value}"])["schedule"]
    return {name: schedule for name, schedule in schedules.items() if schedule is not False}


def _controls(settings: Sequence[str], recorded: Table) -> Table:
    """Those of the recipe, unless `camera={...}` names another or `camera=false` takes it away."""
    controls = dict(recorded)
    for setting in settings:
        name, _, value = setting.partition("=")
        controls[name] = change({}, [f"control={value}"])["control"]
    return {name: control for name, control in controls.items() if control is not False}


def _noise_prior(given: Namespace, recorded: Table) -> Table:
    """The recipe's, as the command line changes it; with no share it is none. Raises JtError."""
    asked = {"video": given.noise_prior, "share": given.noise_share}
    prior = recorded | {key: value for key, value in asked.items() if value is not None}
    if not prior or prior.get("share") == 0:
        return {}
    if "video" not in prior:
        raise JtError("--noise-share: of no video; name one with --noise-prior FILE")
    return {"noise_prior": prior}


def _refuse_existing(out: Path, files: Sequence[str]) -> None:
    there = [file for file in files if (out / file).exists()]
    if there:
        raise JtError(f"{out / there[0]} exists; name another folder with --out")
