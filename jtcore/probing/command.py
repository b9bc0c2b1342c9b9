"""What `jt-probe` does: sample a run's model with and without its adapters, on prompts with and
without its subject and its motion, and say what they do to each other."""

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from jtcore.artifact import Artifact
from jtcore.composition import Source, read_adapters
from jtcore.engine import choose_device, memory_told
from jtcore.errors import Interrupted, JtError
from jtcore.evaluation import results, suites
from jtcore.evaluation.measuring import Video, Watch, measure_all
from jtcore.evaluation.progress import watching
from jtcore.evaluation.references import References, filled, trained_on
from jtcore.evaluation.results import Evaluation
from jtcore.files import sha256
from jtcore.plugins import Plugins, load_plugins
from jtcore.probing.crossed import ADAPTED, BASE, WITHOUT, Crossed, Found
from jtcore.probing.settings import KINDS, Kind, Probes, probe_table
from jtcore.probing.telling import write
from jtcore.proceed import inside
from jtcore.recipe import Recipe, build_recipe
from jtcore.regenerate import Generation, image_encoder_of, made_for, ready
from jtcore.run import read_json, speaker, write_json
from jtcore.sample import LESS, Request, generate
from jtcore.settings import EngineSettings
from jtcore.shared import Shared
from jtcore.signals import stop_on_signals
from jtcore.structure import Component, structure, unstructure
from jtcore.tables import change, parse_toml

FOLDER = "probes"  # of a run, unless another is named
ASKED = "asked.json"  # what the videos of a folder are made with
OF_MOTION = "_of_motion"  # what a metric's name ends in that is held against the motion's clips

Shot = tuple[str, str, int]  # a model, a prompt, a seed


@frozen(eq=False)
class Probing:
    """All that is to be sampled and measured of a run."""

    run: Path
    began: Path  # the folder in which its paths begin
    out: Path
    recipe: Recipe
    probes: Probes
    artifacts: Sequence[Artifact]
    generation: Generation
    metrics: Mapping[str, Component]
    references: References
    models: Mapping[str, Mapping[str, float]] = field(init=False)  # scales, by name of a model

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "models", _models(self.artifacts))

    @property
    def requests(self) -> dict[Shot, Request]:
        """Every prompt of every kind with every seed and model, each once."""
        found: dict[Shot, Request] = {}
        for model, scales in self.models.items():
            for kind, index, prompt, seed in self.asked():
                file = f"{model}/{kind}-{index:02d}-seed{seed}.mp4"
                found.setdefault((model, prompt, seed), Request(prompt, seed, file, scales))
        return found

    def asked(self) -> Iterator[tuple[Kind, int, str, int]]:
        """Kinds, indices, prompts and seeds."""
        for kind in KINDS:
            for index in range(self.probes.prompts.count):
                for seed in self.generation.sample.seeds:
                    yield kind, index, self.probes.prompts.of(kind, index), seed


def probe(given: Namespace) -> None:
    """Do what the command line asks for. Raises JtError, Interrupted."""
    say = speaker(given.quiet)
    probing = _read(given, say)
    requests = probing.requests
    _remember(probing)
    device = choose_device(EngineSettings(device=given.device))
    with stop_on_signals() as stop, watching(given.quiet, say) as watch:
        try:
            with inside(probing.began):
                _sample(probing, list(requests.values()), stop.check, say)
            evaluation = _measured(probing, requests, device, watch, stop.check)
        except Interrupted:
            say("stopped; the same command goes on from here")
            raise
    results.write(evaluation, probing.out, given.command)
    found = dict(zip(requests, (row.values for row in evaluation.rows), strict=True))
    crossed = Crossed(
        [
            Found(model, kind, index, seed, found[model, prompt, seed])
            for model in probing.models
            for kind, index, prompt, seed in probing.asked()
        ]
    )
    say(write(crossed, probing.probes, probing.models, probing.out))
    for name, why in evaluation.missing.items():
        say(f"missing: metric.{name}: {why}")


def _read(given: Namespace, say: Callable[[str], None]) -> Probing:
    """Everything is read and checked before anything is sampled."""
    run, probes = given.run.absolute(), given.probes and given.probes.absolute()
    circumstances = read_json(run / "run.json")
    if circumstances is None:
        raise JtError(f"{given.run}: not a run directory: it has no run.json")
    began, table = Path(circumstances["directory"]), parse_toml(run / "recipe.resolved.toml")
    own = suites.read_suite(given.suite) if given.suite else suites.of_run(table, began)
    models = given.models and given.models.absolute()
    out = (given.out or run / FOLDER).absolute()
    plugins = load_plugins([*table["plugins"]["folders"], *given.plugin_folder])
    recipe = build_recipe(table, plugins)
    with inside(began):
        asked, where = probe_table(recipe, began, probes)
    say(where)
    built = structure(Probes, asked, plugins)
    artifacts = read_adapters([Source(run)], plugins)
    generation = _generation(recipe, artifacts, built, given, plugins)
    trained = attrs.asdict(trained_on(recipe))
    references = References(**{k: v and str(began / v) for k, v in trained.items()})
    suite = {"metric": own.get("metric", {}) | asked.get("metric", {})}
    metrics = suites.build_suite(suite, [], given.only, plugins).metric
    metrics = _of_both(filled(metrics, references), references)
    metrics = suites.with_models(metrics, models) if models else metrics
    for problem in _problems(metrics):
        say(f"will be missing: {problem}")
    return Probing(run, began, out, recipe, built, artifacts, generation, metrics, references)


def _generation(
    recipe: Recipe,
    artifacts: Sequence[Artifact],
    probes: Probes,
    given: Namespace,
    plugins: Plugins,
) -> Generation:
    """How the run sampled, but for prompts and seeds. Raises JtError."""
    table = made_for(artifacts)
    prompts = dict.fromkeys(text for kind in KINDS for text in getattr(probes.prompts, kind))
    table["sample"] |= {"prompts": list(prompts), "scales": {}}
    if probes.seeds:
        table["sample"]["seeds"] = list(probes.seeds)
    if recipe.engine.threads:
        table["engine"]["threads"] = recipe.engine.threads
    table["adapter"] = {artifact.name: unstructure(artifact.adapter) for artifact in artifacts}
    table |= image_encoder_of(artifacts)
    return structure(Generation, change(table, given.set), plugins)


def _problems(metrics: Mapping[str, Component]) -> Iterator[str]:
    """What keeps metrics from being loaded, told before any video is made."""
    for name, metric in metrics.items():
        for problem in getattr(metric.spec, "problems", list)():
            yield f"metric.{name}: {problem}"


def _of_both(metrics: Mapping[str, Component], references: References) -> dict[str, Component]:
    """The metrics, and those that compare with the subject, comparing with the motion's clips."""
    found = {}
    for name, metric in metrics.items():
        found[name] = metric
        if references.motion and "subject" in attrs.fields_dict(type(metric.spec)):
            spec = attrs.evolve(metric.spec, subject=references.motion)
            found[f"{name}{OF_MOTION}"] = Component(metric.kind, spec)
    return found


def _models(artifacts: Sequence[Artifact]) -> dict[str, dict[str, float]]:
    """Base, all adapters, and, of several, all but one in turn."""
    scales = {artifact.name: artifact.scale for artifact in artifacts}
    found: dict[str, dict[str, float]] = {BASE: {}, ADAPTED: scales}
    if len(scales) > 1:
        for name in scales:
            found[f"{WITHOUT}{name}"] = {k: scale for k, scale in scales.items() if k != name}
    return found


def _remember(probing: Probing) -> None:
    """Videos that are there already are of the same probes. Raises JtError where they are not."""
    asked = {
        "generation": unstructure(probing.generation),
        "adapters": {artifact.name: sha256(artifact.path) for artifact in probing.artifacts},
        "prompts": unstructure(probing.probes.prompts),
    }
    file = probing.out / ASKED
    there = read_json(file)
    if there is not None and there != asked:
        raise JtError(f"{probing.out}: holds videos of other probes; name another with --out")
    probing.out.mkdir(parents=True, exist_ok=True)
    write_json(file, asked)


def _sample(
    probing: Probing,
    requests: Sequence[Request],
    between: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Those that are not there yet."""
    if all((probing.out / request.file).is_file() for request in requests):
        return
    say(f"sampling {len(requests)} videos")
    generation = probing.generation
    model, reference = ready(generation, probing.artifacts, say)
    settings, spec = generation.sample, generation.backbone.spec
    shared = Shared.of(generation, model, between)
    with memory_told("sampling", LESS):
        generate(requests, probing.out, settings, spec, model, between, reference, shared)


def _measured(
    probing: Probing,
    requests: Mapping[Shot, Request],
    device: Any,
    watch: Watch,
    between: Callable[[], None],
) -> Evaluation:
    videos = [
        Video(probing.out / request.file, model, prompt, seed)
        for (model, prompt, seed), request in requests.items()
    ]
    return Evaluation(
        title=f"Probes of {probing.recipe.title or probing.run.name}",
        videos=videos,
        metrics=measure_all(videos, probing.metrics, device, watch, between),
        references=probing.references.files(),
        recipe=str(probing.run / "recipe.resolved.toml"),
    )
