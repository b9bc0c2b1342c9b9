"""An experiment from beginning to end: encode, train, validate, sample, measure, report.

Text encoder and codec are freed before the denoiser is loaded; only sampling has a codec beside it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import attrs
from attrs import frozen
from torch import Tensor

from jtcore.artifact import load_initial, other_backbone, save_adapter
from jtcore.cache import Cache, cache_folder
from jtcore.checkpoint import newest_checkpoint
from jtcore.curve import Curve
from jtcore.data import captions
from jtcore.engine import Engine, memory_told
from jtcore.engines import make_engine
from jtcore.evaluate import measure, summarise
from jtcore.evaluation.command import evaluate_run
from jtcore.evaluation.references import metrics_of
from jtcore.inversion import load_reference
from jtcore.model import Model, load_model
from jtcore.peaks import forget_peaks, peaks
from jtcore.plugins import Plugins
from jtcore.previews import Previews
from jtcore.reading import replaced_words
from jtcore.recipe import Recipe
from jtcore.references import embed_references
from jtcore.report import write_report
from jtcore.run import Run
from jtcore.sample import LESS, generate, requests
from jtcore.shared import Shared
from jtcore.signals import Stop
from jtcore.stream import Stream, embed_texts, load_stream
from jtcore.trainer import Trainer
from jtcore.validation import validate

# what to change where memory is too small, in the recipe's words
LESS_TO_ENCODE = "take a smaller size or fewer frames, or the backbone's tiling where it has it"
LESS_TO_TRAIN = (
    "set engine.gradient_checkpointing, take a 16-bit engine.precision, smaller batches, a smaller"
    " size, fewer frames or a lower rank, and continue with a new run"
)


def conduct(recipe: Recipe, run: Run, plugins: Plugins, stop: Stop) -> None:
    """Do all that the recipe says and is not done yet, telling the observers.

    Of several processes the first encodes before the others read, and alone writes, speaks,
    validates, samples and measures, when the others have gone.
    """
    if not run.processes.leads:
        _conduct(recipe, run, plugins, stop)
        return
    error: BaseException | None = None
    with _observed(run, recipe, plugins):
        plugins.hook.jt_run_started(run=run, recipe=recipe)
        try:
            began, host = perf_counter(), forget_peaks()
            _conduct(recipe, run, plugins, stop)
            write_report(run, recipe)
            seconds = round(perf_counter() - began, 3)
            run.write_json("result.json", {"seconds": seconds, "peak_bytes": peaks(host)})
        except BaseException as caught:
            error = caught
            raise
        finally:
            plugins.hook.jt_run_finished(run=run, error=error)


@contextmanager
def _observed(run: Run, recipe: Recipe, plugins: Plugins) -> Iterator[None]:
    """Make this run's observers, and let them hear the hooks until the block is left."""
    observers = [make(run, recipe) for makers in plugins.hook.jt_observers() for make in makers]
    for observer in observers:
        plugins.manager.register(observer)
    try:
        yield
    finally:
        for observer in observers:
            plugins.manager.unregister(observer)


def _conduct(recipe: Recipe, run: Run, plugins: Plugins, stop: Stop) -> None:
    engine = make_engine(recipe.engine, run.processes)
    with memory_told("encoding", LESS_TO_ENCODE), run.processes.leader_first():
        materials = prepare(recipe, engine, run, stop)
    with memory_told("training", LESS_TO_TRAIN):
        model = _load(recipe, engine, materials)
        shared = Shared.of(recipe, model, stop.check)
        _train(recipe, run, plugins, stop, model, materials, shared)
    if not run.processes.leads:
        return
    reaches = {name: attrs.asdict(adapter.reach) for name, adapter in model.adapters.items()}
    results: dict[str, Any] = {"adapters": reaches}
    scales = adapter_scales(recipe)
    if recipe.validation:
        stop.check()
        streams = materials.streams
        results["validation"] = validate(recipe.validation, model, scales, streams, shared)
    if recipe.sample:
        with memory_told("sampling", LESS):
            reference = materials.reference
            measured = sample_and_measure(recipe, run, model, scales, stop, reference, shared)
        results |= {"metrics": summarise(measured), "samples": measured}
    run.write_json("metrics.json", results)
    if recipe.metric:
        evaluate_run(run.folder, recipe, model.engine.device)


def _load(recipe: Recipe, engine: Engine, materials: "Materials") -> Model:
    texts, pictures = materials.texts, materials.pictures
    return load_model(recipe.backbone, recipe.adapter, texts, engine, recipe.seed, pictures)


def _train(
    recipe: Recipe,
    run: Run,
    plugins: Plugins,
    stop: Stop,
    model: Model,
    materials: "Materials",
    shared: Shared,
) -> None:
    """Do whatever of its training was not done yet; then dropout is off."""
    checkpoint = newest_checkpoint(run.checkpoints, run.say)
    if checkpoint:
        run.say(f"continuing at step {checkpoint.position.number} of {recipe.steps}")
        _tell_processes(checkpoint.values.get("processes", 1), run)
    _begin(recipe, run, model)
    streams, curve = materials.streams, None
    if recipe.validation and recipe.validation.every:
        done = checkpoint.position.number if checkpoint else 0
        scales = adapter_scales(recipe)
        curve = Curve.begin(recipe, run, model, streams, scales, done, shared)
    with _previewing(recipe, run, plugins, model, materials) as previews:
        trainer = Trainer(recipe, plugins.hook, run, model, streams, stop, previews, curve)
        trainer.train(checkpoint)
    model.train(False)


def _tell_processes(before: int, run: Run) -> None:
    """Batches are another share of a step's where there are more or fewer processes."""
    if before != (now := run.processes.size):
        run.say(
            f"this run has had {before} process{'es' * (before > 1)}, and has {now} now: it goes on"
            " from the same weights, but a step has other batches, and as many times fewer or more"
        )


@contextmanager
def _previewing(
    recipe: Recipe, run: Run, plugins: Plugins, model: Model, materials: "Materials"
) -> Iterator[Previews | None]:
    """What makes previews, where the recipe has any; after training, all are decoded."""
    if recipe.sample is None or recipe.sample.preview is None:
        yield None
        return

    def tell(number: int, preview: Mapping[str, Any]) -> None:
        plugins.hook.jt_preview_decoded(run=run, number=number, preview=preview)

    previews = Previews(recipe, run, model, adapter_scales(recipe), materials.reference, tell)
    try:
        yield previews
        if run.processes.leads:
            previews.finish()
    finally:
        previews.stop()


def _begin(recipe: Recipe, run: Run, model: Model) -> None:
    """Adapters that begin as others were: those that are not trained are saved as they are."""
    trained = {name for stage in recipe.stage.values() for name in stage.trained}
    for name, path in recipe.initial.items():
        identity = load_initial(Path(path), model.adapters[name])
        if told := other_backbone(identity, run.read_json("run.json")["backbone"]):
            run.say(f"initial.{name}: {path}: {told}")
        if name not in trained and run.processes.leads:
            save_adapter(run.adapter_file(name), name, recipe, model.adapters[name])


@frozen(eq=False)
class Materials:
    """What training and sampling need of data and captions, encoded."""

    streams: Mapping[str, Stream]
    texts: Mapping[str, Tensor]  # caption -> (L, D)
    reference: Tensor | None  # (C, F, H, W), the noise prior's video
    pictures: Mapping[str, Tensor]  # path -> (E,), of what adapters are shown where they sample


def prepare(recipe: Recipe, engine: Engine, run: Run, stop: Stop) -> Materials:
    """Embed every caption and encode every clip that the cache does not have."""
    cache = Cache(cache_folder(), stop.check)
    spec = recipe.backbone.spec
    needed = {caption for data in recipe.used_data.values() for caption in captions(data)}
    needed |= {""} if recipe.drops_text else set()
    if recipe.sample:
        needed |= {*recipe.sample.captions}
    stop.check()
    replaced = replaced_words(recipe.adapter)
    texts = embed_texts(sorted(needed), spec, cache, engine.text_device, replaced)
    streams = {}
    for name, data in recipe.used_data.items():
        stop.check()
        streams[name] = load_stream(name, data, spec, cache, engine.device, run.say)
    reference = None
    if recipe.sample:
        reference = load_reference(recipe.sample, spec, cache, engine.device, run.say)
    streams, pictures = embed_references(recipe, streams, cache, engine.device)
    return Materials(streams, texts, reference, pictures)


def adapter_scales(recipe: Recipe) -> dict[str, float]:
    """At which scales the adapters are on when the result is sampled or validated."""
    said = recipe.sample.scales if recipe.sample else {}
    return {name: said.get(name, 1.0) for name in recipe.adapter}


def sample_and_measure(
    recipe: Recipe,
    run: Run,
    model: Model,
    scales: Mapping[str, float],
    stop: Stop,
    reference: Tensor | None,
    shared: Shared,
) -> list[dict[str, Any]]:
    """Videos of the backbone alone and with adapters, and what the metrics say of each; `reference`
    (C, F, H, W) is the noise prior's video."""
    wanted = list(requests(recipe.sample, {}))
    if scales:
        wanted += requests(recipe.sample, scales)
    run.say(f"sampling {len(wanted)} videos")
    settings, spec, check = recipe.sample, recipe.backbone.spec, stop.check
    samples = generate(wanted, run.samples, settings, spec, model, check, reference, shared)
    return measure(samples, run.samples, metrics_of(recipe), model.engine.device)
