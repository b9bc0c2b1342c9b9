"""What `jt-sample` does: attach finished adapters to their backbone again, and generate."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from jtcore.artifact import Artifact, load_weights, plugin_folders_of, read_adapter
from jtcore.cache import Cache, cache_folder
from jtcore.check import precision_problems, walk_problems
from jtcore.engine import Engine
from jtcore.errors import JtError
from jtcore.inversion import load_reference, prior_problems
from jtcore.model import load_model
from jtcore.plugins import Plugins, load_plugins
from jtcore.provenance import backbone_identity
from jtcore.recipe import EngineSettings, Sampling
from jtcore.run import speaker, write_json
from jtcore.sample import generate, requests
from jtcore.signals import stop_on_signals
from jtcore.stream import embed_texts
from jtcore.structure import Component, component, structure, unstructure
from jtcore.tables import Table, change

OPTIONS = (  # that override the recipe's
    *("steps", "scheduler", "guidance", "dynamic_guidance", "negative"),
    *("frames", "size", "fps", "batch"),
)


@frozen
class Generation:
    """What is sampled of what."""

    sample: Sampling
    backbone: Component = component("backbones")
    engine: EngineSettings = EngineSettings()


def sample(given: Namespace) -> None:
    """Generate what the command line asks for. Raises JtError, Interrupted."""
    say = speaker(given.quiet)
    plugins = load_plugins([*plugin_folders_of(given.source[0]), *given.plugin_folder])
    artifacts = _artifacts(given.source, plugins)
    generation = structure(Generation, _table(given, artifacts), plugins)
    wanted = list(requests(generation.sample, _scales(given.scale, artifacts)))
    _refuse_existing(given.out, [request.file for request in wanted])
    settings, spec, engine = generation.sample, generation.backbone.spec, Engine(generation.engine)
    if problems := list(_sampling_problems(generation)):
        raise JtError(problems)
    _tell_other_backbone(artifacts, backbone_identity(generation.backbone), say)
    cache = Cache(cache_folder())
    texts = embed_texts(settings.captions, spec, cache, engine.device)
    reference = load_reference(settings, spec, cache, engine.device, say)
    adapters = {artifact.name: artifact.adapter for artifact in artifacts}
    model = load_model(generation.backbone, adapters, texts, engine, seed=0)
    for artifact in artifacts:
        load_weights(artifact, model.adapters[artifact.name])
    model.train(False)
    with stop_on_signals() as stop:
        samples = generate(wanted, given.out, settings, spec, model, stop.check, reference)
    write_json(given.out / "samples.json", samples)
    for entry in samples:
        say(f"{given.out / entry['file']}: {entry['prompt']}")


def _artifacts(sources: Sequence[Path], plugins: Plugins) -> list[Artifact]:
    """The adapters of a run directory, or those of files."""
    files = list(sources)
    if sources[0].is_dir():
        if len(sources) > 1:
            raise JtError("expected one run directory, or adapter files")
        files = sorted((sources[0] / "adapters").glob("*.safetensors"))
        if not files:
            raise JtError(f"{sources[0]}: no adapters in it; is it a run that has been trained?")
    artifacts = [read_adapter(path, plugins) for path in files]
    names = [artifact.name for artifact in artifacts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise JtError(f"two files hold an adapter named {twice[0]!r}; each name can be on once")
    first = artifacts[0]
    for other in artifacts[1:]:
        if unstructure(other.backbone) != unstructure(first.backbone):
            raise JtError(f"{other.path} was trained on another backbone than {first.path}")
    return artifacts


def _table(given: Namespace, artifacts: Sequence[Artifact]) -> Table:
    """What the adapters were made for, as the command line changes it."""
    recorded = next((a.sample for a in artifacts if a.sample), None)
    sampling = {} if recorded is None else unstructure(recorded)
    sampling |= {"prompts": given.prompt, "seeds": given.seed or [0], "scales": {}}
    sampling |= {key: value for key in OPTIONS if (value := getattr(given, key)) is not None}
    sampling["schedule"] = _schedules(given.schedule, artifacts)
    sampling |= _noise_prior(given, sampling.pop("noise_prior", {}))
    first = artifacts[0]
    table = {
        "backbone": unstructure(first.backbone),
        "engine": unstructure(first.engine),
        "sample": sampling,
    }
    for setting in given.set:
        if not setting.startswith(("backbone.", "engine.")):
            raise JtError(f"--set {setting}: only backbone and engine can be changed here")
    return change(table, given.set)


def _sampling_problems(generation: Generation) -> Iterator[str]:
    """What is asked that the backbone cannot do."""
    settings, spec = generation.sample, generation.backbone.spec
    yield from precision_problems(spec, generation.engine)
    try:
        spec.latent_shape(settings.frames, *settings.size)
    except ValueError as error:
        yield f"--frames, --size: {error}"
    asked = {"--prompt": settings.prompts, "--negative": [settings.negative]}
    if settings.noise_prior:
        yield from (f"--noise-prior: {problem}" for problem in prior_problems(settings))
        asked["--noise-prior"] = [settings.noise_prior.prompt]
    for option, prompts in asked.items():
        for problem in spec.prompt_problems(list(dict.fromkeys(prompts))):
            yield f"{option}: {problem}"
    backbone = spec.load(torch.device("meta"), torch.float32)
    places = {"steps": "--steps", "scheduler": "--scheduler", "noise_prior.steps": "--noise-prior"}
    for option, problem in walk_problems(settings, backbone):
        yield f"{places[option]}: {problem}"


def _tell_other_backbone(
    artifacts: Sequence[Artifact], now: Mapping[str, str], say: Callable[[str], None]
) -> None:
    for artifact in artifacts:
        odd = [part for part in now if artifact.identity.get(part) != now[part]]
        if odd:
            say(f"{artifact.path}: was trained on another {', '.join(odd)} of the backbone")


def _scales(settings: Sequence[str], artifacts: Sequence[Artifact]) -> dict[str, float]:
    """`joint=0.5` and the like; adapters are on at their recipe's scales unless said."""
    scales = {a.name: a.sample.scales.get(a.name, 1.0) if a.sample else 1.0 for a in artifacts}
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
        artifact.name: unstructure(artifact.sample.schedule[artifact.name])
        for artifact in artifacts
        if artifact.sample and artifact.name in artifact.sample.schedule
    }
    for setting in settings:
        name, _, value = setting.partition("=")
        known = sorted(artifact.name for artifact in artifacts)
        if name not in known:
            raise JtError(f"--schedule {setting}: no adapter {name!r}; there are {known}")
        schedules[name] = change({}, [f"schedule={value}"])["schedule"]
    return {name: schedule for name, schedule in schedules.items() if schedule is not False}


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
