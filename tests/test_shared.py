"""What the backbone answers alone is asked once, and nobody can tell who asked."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from attrs import evolve, frozen

from jtcore import sample, shared, validation
from jtcore.cache import Cache, cache_folder, digest
from jtcore.claims import claimed
from jtcore.engine import Engine
from jtcore.inversion import load_reference
from jtcore.model import Model, load_model
from jtcore.reading import replaced_words
from jtcore.recipe import Recipe, build_recipe
from jtcore.sample import generate, requests
from jtcore.shared import FOLDER, Shared
from jtcore.stream import embed_texts, load_stream
from jtcore.structure import Component
from jtcore.validation import validate
from jtplugins.adapters.token import Token

CPU = torch.device("cpu")
OUTPUTS = ("adapters/*", "samples/**/*.*", "metrics.json", "validation.json", "evaluation/*.csv")


@pytest.fixture(autouse=True)
def use(tmp_path, monkeypatch) -> Callable[[str], Path]:
    """Take an empty cache of that name."""

    def cache(name: str) -> Path:
        monkeypatch.setenv("JT_CACHE", str(tmp_path / name))
        return tmp_path / name

    cache("cache")
    return cache


@pytest.fixture(autouse=True)
def whole(table) -> None:
    """Four videos, validated at the end and meanwhile."""
    table["sample"] |= {"prompts": ["a wug", "a dax"], "seeds": [0, 1]}
    table["validation"] = {"data": ["held_out"], "draws": 2, "every": 2}
    table["engine"] = {"device": "cpu"}


@pytest.fixture
def asked(monkeypatch) -> Counter:
    """How many videos and losses of which model were computed."""
    counts = Counter()
    denoise, losses = sample.denoise, validation.losses

    def denoised(batch, *others):
        counts.update(f"{request.model} video" for request in batch)
        return denoise(batch, *others)

    def lost(stream, seed, draws, model, scales):
        counts.update(["adapted losses" if scales else "base losses"])
        return losses(stream, seed, draws, model, scales)

    monkeypatch.setattr(sample, "denoise", denoised)
    monkeypatch.setattr(validation, "losses", lost)
    monkeypatch.setattr("jtcore.curve.losses", lost)
    return counts


def outputs(run: Path) -> dict[str, bytes]:
    found = {path for pattern in OUTPUTS for path in run.glob(pattern) if path.is_file()}
    return {str(path.relative_to(run)): path.read_bytes() for path in found}


def test_a_run_asks_nothing_that_one_of_another_seed_has_asked_and_makes_what_it_had_made_alone(
    table, jt_run, use, asked
):
    jt_run(table | {"seed": 9}, name="other")
    # the curve's losses are at quantiles, those of the end where they were drawn
    assert asked == {"base video": 4, "adapted video": 4, "base losses": 2, "adapted losses": 2}
    asked.clear()
    sharing = jt_run(table, name="sharing")
    assert asked == {"adapted video": 4, "adapted losses": 2}
    use("fresh")
    asked.clear()
    alone = jt_run(table, name="alone")

    assert (asked["base video"], asked["base losses"]) == (4, 2)
    assert len(outputs(alone)) > 12
    assert outputs(sharing) == outputs(alone)


# without the rest of a run


@frozen(eq=False)
class Made:
    """A recipe's model, and what it is asked."""

    recipe: Recipe
    model: Model
    reference: torch.Tensor | None

    def sample(
        self,
        folder: Path,
        models: Sequence[dict] = ({}, {"joint": 1.0}),
        between: Callable[[], None] = lambda: None,
        shared: Shared | None = None,
    ) -> None:
        settings, spec = self.recipe.sample, self.recipe.backbone.spec
        wanted = [request for scales in models for request in requests(settings, scales)]
        shared = shared or Shared.of(self.recipe, self.model, between)
        generate(wanted, folder, settings, spec, self.model, between, self.reference, shared)

    def validate(self, shared: Shared) -> None:
        data, spec = self.recipe.data["held_out"], self.recipe.backbone.spec
        stream = load_stream("held_out", data, spec, Cache(cache_folder()), CPU, print)
        settings, streams = self.recipe.validation, {"held_out": stream}
        validate(settings, self.model, {"joint": 1.0}, streams, shared)


@pytest.fixture
def make(table, plugins) -> Callable[..., Made]:
    """The model of the table with some options changed, each given by its path."""

    def build(**changes: object) -> Made:
        changed = json.loads(json.dumps(table))
        for path, value in changes.items():
            *above, last = path.split(".")
            within = changed
            for name in above:
                within = within.setdefault(name, {})
            within[last] = value
        recipe = build_recipe(changed, plugins)
        engine, spec = Engine(recipe.engine), recipe.backbone.spec
        captions = {*recipe.sample.captions, *(data.prompt or "" for data in recipe.data.values())}
        cache, replaced = Cache(cache_folder()), replaced_words(recipe.adapter)
        captions |= {path.read_text().strip() for path in held_out(recipe).glob("*.txt")}
        texts = embed_texts(sorted(captions), spec, cache, CPU, replaced)
        model = load_model(recipe.backbone, recipe.adapter, texts, engine, recipe.seed)
        model.train(False)
        reference = load_reference(recipe.sample, spec, cache, CPU, print)
        return Made(recipe, model, reference)

    return build


def held_out(recipe: Recipe) -> Path:
    return Path(recipe.data["held_out"].source)


@frozen(eq=False)
class Recorded(Shared):
    """Notes what is asked, and answers that another run has made it."""

    questions: tuple[set, set]

    def videos(self, key, files, make, wait=True) -> bool:
        self.questions[0].add(digest({**self.answerer, **self.controls, **key}))
        return True

    def tensors(self, key, make):
        self.questions[1].add(digest({**self.answerer, **key}))
        return make()


@pytest.fixture
def questions(make, tmp_path) -> Callable[..., tuple[set, set]]:
    """What is asked of the backbone alone: videos, and losses."""

    def ask(made: Made | None = None, **changes: object) -> tuple[set, set]:
        made = made or make(**changes)
        alone = Shared.of(made.recipe, made.model, lambda: None)
        recorded = Recorded(alone.answerer, alone.controls, alone.waiting, (set(), set()))
        made.sample(tmp_path / "nothing", [{}], shared=recorded)
        made.validate(recorded)
        return recorded.questions

    return ask


def test_what_only_adapters_know_of_is_nothing_to_the_base_model(questions):
    expected = questions()
    assert tuple(map(len, expected)) == (4, 1)
    changes = {
        "seed": 4,
        "title": "another",
        "stage.joint.lr": 0.02,
        "adapter.joint": {"kind": "lora", "targets": "visual", "rank": 3},
        "sample.scales.joint": 0.5,
        "sample.schedule.joint": {"scales": [0.0, 1.0], "at": [0.5], "unit": "fraction"},
        "sample.preview": {"every": 2},
    }
    assert all(questions(**{path: value}) == expected for path, value in changes.items())


@pytest.mark.parametrize(
    "path, value, videos, losses",
    [
        ("backbone.width", 7, 4, 1),
        ("engine.precision", "bf16", 4, 1),
        ("engine.threads", 2, 4, 1),
        ("engine.attention", "math", 4, 1),
        ("sample.steps", 3, 4, 0),
        ("sample.guidance", 3, 4, 0),
        ("sample.dynamic_guidance", True, 4, 0),
        ("sample.negative", "a blicket", 4, 0),
        ("sample.fps", 9.0, 4, 0),
        ("sample.frames", 4, 4, 0),
        ("sample.size", [24, 28], 4, 0),
        ("sample.noise", {"std": 0.5, "shared": ["frame"]}, 4, 0),
        ("sample.control.pan", {"kind": "latent_shift", "right": 8.0, "between": [0, 2]}, 4, 0),
        ("sample.batch", 2, 2, 0),
        ("sample.seeds", [0, 2], 2, 0),
        ("sample.prompts", ["a wug", "a fep"], 2, 0),
        ("validation.seed", 1, 0, 1),
        ("validation.draws", 3, 0, 1),
        ("validation.times", "quantiles", 0, 1),
    ],
)
def test_what_shapes_an_answer_of_the_base_model_is_asked_anew(
    path, value, videos, losses, questions
):
    threads = torch.get_num_threads()
    expected = questions()
    try:
        found = questions(**{path: value})
    finally:
        torch.set_num_threads(threads)
    assert (len(found[0] - expected[0]), len(found[1] - expected[1])) == (videos, losses)


def test_a_video_that_the_noise_begins_with_shapes_it(questions, data):
    first, second = sorted((data / "motion").glob("*.mp4"))
    videos, _ = questions(**{"sample.noise_prior": {"video": str(first), "steps": 2}})
    others, _ = questions(**{"sample.noise_prior": {"video": str(second), "steps": 2}})
    assert len(videos | others) == 8


def test_words_that_are_read_otherwise_count_where_a_control_looks_for_them(make):
    pan = {"pan": {"kind": "latent_shift", "right": 8.0, "between": [0.0, 2.0]}}
    for control, alike in (({}, True), (pan, False)):
        made = make(**{"sample.control": control})
        token = Component("token", Token("wug", "dax"))
        read = evolve(made.recipe, adapter={**made.recipe.adapter, "word": token})
        one, other = (Shared.of(each, made.model, lambda: None) for each in (made.recipe, read))
        assert one.answerer == other.answerer
        assert (one.controls == other.controls) is alike


def test_captions_that_are_embedded_otherwise_are_others(questions, make):
    expected, made = questions(), make()
    made.model.texts["a wug"][0] += 1
    videos, _ = questions(made)
    assert len(videos - expected[0]) == 2


def test_what_other_code_has_made_is_not_taken(questions, monkeypatch):
    expected = questions()
    monkeypatch.setattr(shared, "SOURCES", "as they were last week")
    assert [one & other for one, other in zip(expected, questions(), strict=True)] == [set()] * 2


def test_the_digest_of_the_sources_is_of_every_module(tmp_path):
    found = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("deep/b.py", "3"), ("deep/c.txt", "4")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        found.add(shared.sources(tmp_path))
    assert len(found) == 3


def test_a_damaged_video_is_made_again(make, use, asked, tmp_path):
    kept = use("cache") / FOLDER
    make().sample(tmp_path / "first")
    video = sorted(kept.glob("*.mp4"))[1]
    before = video.read_bytes()
    video.write_bytes(before[:-1])
    asked.clear()

    make().sample(tmp_path / "second")
    assert asked == {"base video": 1, "adapted video": 4}
    assert video.read_bytes() == before
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.mp4")}
        for folder in (tmp_path / "first", tmp_path / "second")
    )
    assert len(first) == 8
    assert first == second


def test_what_another_run_is_making_is_left_to_it_while_there_is_something_else_to_do(
    make, use, asked, tmp_path
):
    made, kept = make(), use("cache") / FOLDER
    made.sample(tmp_path / "first")
    entry = sorted(kept.glob("*.json"))[1]
    for path in [*kept.iterdir()]:
        path.unlink()
    held = claimed(kept / f".{entry.stem}.lock")
    assert held.__enter__()
    there, waits = [], Counter()

    def between() -> None:
        waits["waited"] += 1
        assert waits["waited"] < 100, "for what is not done meanwhile"
        if len(asked) == 2 and sum(asked.values()) == 7 and not there:
            there.append(len([*(tmp_path / "second").rglob("*.mp4")]))
            held.__exit__(None, None, None)

    asked.clear()
    made.sample(tmp_path / "second", between=between)
    assert there == [7]
    assert asked == {"base video": 4, "adapted video": 4}
