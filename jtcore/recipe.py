"""A recipe: what is trained, on what, by which stages, and what is sampled and measured."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from attrs import Attribute, Factory, field, frozen
from attrs.validators import and_, deep_iterable, ge, gt, le, lt, min_len, optional

from jtcore.data import Data
from jtcore.errors import JtError
from jtcore.near import did_you_mean
from jtcore.noise import SharedNoise, Times
from jtcore.plugins import Plugins
from jtcore.scales import ScaleSchedule
from jtcore.settings import EngineSettings
from jtcore.structure import Component, component, lines, structure, unstructure

On = Literal["image", "video", "all"]
Problems = Iterator[str]  # each with its path

_SIZE = deep_iterable(ge(1))


def _distinct(instance: object, attribute: Attribute, values: tuple[int, ...]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"expected different values, got {list(values)}")


@frozen
class LossTerm:
    """One term of a branch's loss: `weight` times the mean over the samples of the medium `on`."""

    loss: Component = component("losses", inline=True)
    on: On = "all"
    weight: float = field(default=1.0, validator=ge(0))


@frozen
class Branch:
    """One forward and one backward: which data, which adapters are on, which are trained

    when, unless: another branch of the stage: this one runs in the steps in which that does, or in
        all others
    noise_as: another branch with the same data, whose clips, times and noise this one sees too
    frame: "random" shows one frame of each noised clip, as a video of one
    """

    data: tuple[str, ...] = field(validator=min_len(1))
    adapters: tuple[str, ...] = field(validator=min_len(1))
    losses: Mapping[str, LossTerm] = field(validator=min_len(1))
    trains: tuple[str, ...] | None = None  # all that are on, unless said
    chance: float = field(default=1.0, validator=and_(gt(0), le(1)))  # of running in a step
    when: str | None = None
    unless: str | None = None
    times: Times = Times()
    noise: SharedNoise | None = None  # added to the noise, and so to what is to be predicted
    noise_as: str | None = None
    frame: Literal["all", "random"] = "all"
    drop_reference: float = field(default=0.0, validator=and_(ge(0), le(1)))  # of each sample
    drop_text: float = field(default=0.0, validator=and_(ge(0), le(1)))  # chance, for each sample

    def __attrs_post_init__(self) -> None:
        if self.when is not None and self.unless is not None:
            raise ValueError("expected when or unless, got both")
        if self.follows is not None and self.chance < 1:
            raise ValueError("expected chance, when or unless: another's steps leave no chance")
        if self.noise_as is not None and (self.times != Times() or self.noise is not None):
            raise ValueError("expected times and noise with the branch that noise_as names alone")

    @property
    def follows(self) -> str | None:
        """The branch that decides in which steps this one runs."""
        return self.unless if self.when is None else self.when

    def medium(self, data: Data) -> str:
        """What parts of `data` are to its losses."""
        return "image" if self.frame == "random" else data.medium

    @property
    def trained(self) -> tuple[str, ...]:
        return self.adapters if self.trains is None else self.trains


@frozen
class Stage:
    """Some steps with one optimizer. Stages run in file order."""

    steps: int = field(validator=ge(1))
    lr: float = field(validator=gt(0))
    branch: Mapping[str, Branch] = field(validator=min_len(1))
    select: Literal["all", "one"] = "all"  # every branch in each step, or one drawn
    betas: tuple[float, float] = field(
        default=(0.9, 0.999), validator=deep_iterable(and_(ge(0), lt(1)))
    )
    eps: float = field(default=1e-8, validator=gt(0))
    weight_decay: float = field(default=1e-4, validator=ge(0))
    warmup: int = field(default=0, validator=ge(0))  # steps of linear warm-up
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up, to 0
    clip: float = field(default=1.0, validator=ge(0))  # global gradient norm; 0 leaves gradients be
    accumulate: int = field(default=1, validator=ge(1))  # batches a step
    ema: float | None = field(default=None, validator=optional(and_(gt(0), lt(1))))

    @property
    def trained(self) -> tuple[str, ...]:
        """Adapters that some branch trains, in order of first mention."""
        return tuple(dict.fromkeys(name for b in self.branch.values() for name in b.trained))

    def shares_noise(self, name: str) -> str | None:
        """The branch whose noise the branch `name` and others see; None where it has its own."""
        if any(branch.noise_as == name for branch in self.branch.values()):
            return name
        return self.branch[name].noise_as


@frozen
class NoisePrior:
    """A video whose motion is in the noise that samples begin with, by DDIM inversion."""

    video: str  # its path, from where the command runs
    share: float = field(default=0.5, validator=and_(ge(0), le(1)))  # of the noise's variance
    steps: int = field(default=50, validator=ge(1))  # of the inversion
    prompt: str = ""  # of the inversion


@frozen
class SampledReference:
    """A picture that adapters with an image condition are shown

    strength: of the condition on the prompted half of guidance
    negative: what the negative half is shown: "none", and no bias of a condition either; "zero", an
        embedding of zeros at the same strength; or the "same"
    """

    picture: str  # its path, from where the command runs
    strength: float = 1.0
    negative: Literal["none", "zero", "same"] = "none"


@frozen
class Previews:
    """Samples of the weights as they are while training goes on

    every: so many steps of the run
    prompts: so many of the first ones, with the first seed
    """

    every: int = field(validator=ge(1))
    prompts: int = field(default=1, validator=ge(1))


@frozen
class Sampling:
    """What is generated, from the backbone alone and with the adapters."""

    prompts: tuple[str, ...] = lines(validator=min_len(1))
    frames: int = field(validator=ge(1))
    size: tuple[int, int] = field(validator=_SIZE)  # height, width
    steps: int = field(default=50, validator=ge(1))
    scheduler: str | None = None  # the backbone's own, unless said
    guidance: float = field(default=6.0, validator=ge(0))  # 1 is none
    dynamic_guidance: bool = False  # on CogVideoX's cosine
    negative: str = ""  # the prompt that guidance leads away from
    seeds: tuple[int, ...] = field(default=(0,), validator=[min_len(1), _distinct])
    fps: float = field(default=8.0, validator=ge(0.1))
    batch: int = field(default=1, validator=ge(1))  # videos at once
    scales: Mapping[str, float] = Factory(dict)  # by adapter; 1 unless said
    schedule: Mapping[str, ScaleSchedule] = Factory(dict)  # by adapter; of factors on those
    noise_prior: NoisePrior | None = None
    reference: SampledReference | None = None
    control: Mapping[str, Component] = component("controls", factory=dict)
    noise: SharedNoise | None = None  # added to the noise that samples begin with
    preview: Previews | None = None

    @property
    def captions(self) -> tuple[str, ...]:
        """All that the text encoder is asked for."""
        inverted = (self.noise_prior.prompt,) if self.noise_prior else ()
        return (*self.prompts, self.negative, *inverted)


@frozen
class Validation:
    """Losses on data that no branch trains on, with fixed noise, before and after training

    times: "drawn" once for all, or the middles of `draws` equal parts of the schedule
    every: so many steps of the run, at quantiles whatever the `times` of the end
    """

    data: tuple[str, ...] = field(validator=min_len(1))
    draws: int = field(default=8, validator=ge(1))  # of noise and time, for each file
    seed: int = 0
    times: Literal["drawn", "quantiles"] = "drawn"
    every: int | None = field(default=None, validator=optional(ge(1)))


@frozen
class Checkpoints:
    """How often the whole state is saved, and how many of them stay."""

    every: int = field(default=100, validator=ge(1))  # steps
    keep: int = field(default=2, validator=ge(1))


@frozen
class PluginFolders:
    """Folders of local plugins, besides those that the command names."""

    folders: tuple[str, ...] = ()


@frozen
class Recipe:
    """The whole of an experiment."""

    backbone: Component = component("backbones")
    title: str = ""
    seed: int = field(default=0, validator=ge(0))
    data: Mapping[str, Data] = Factory(dict)
    image_encoder: Component | None = component("image_encoders", default=None)
    adapter: Mapping[str, Component] = component("adapters", factory=dict)
    initial: Mapping[str, str] = Factory(dict)  # adapter files, by the adapter that begins so
    stage: Mapping[str, Stage] = Factory(dict)
    sample: Sampling | None = None
    metric: Mapping[str, Component] = component("metrics", factory=dict)
    validation: Validation | None = None
    engine: EngineSettings = EngineSettings()
    checkpoint: Checkpoints = Checkpoints()
    plugins: PluginFolders = PluginFolders()

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stage.values())

    @property
    def branches(self) -> dict[str, Branch]:
        """Every branch, by its place."""
        return {
            f"stage.{stage_name}.branch.{name}": branch
            for stage_name, stage in self.stage.items()
            for name, branch in stage.branch.items()
        }

    @property
    def drops_text(self) -> bool:
        """Whether some branch trains without captions at times."""
        return any(branch.drop_text for branch in self.branches.values())

    @property
    def used_data(self) -> dict[str, Data]:
        """What branches or validation draw from; a variant may leave some of its base's unused."""
        names = {name for branch in self.branches.values() for name in branch.data}
        names |= set(self.validation.data) if self.validation else set()
        return {name: data for name, data in self.data.items() if name in names}


def build_recipe(table: Mapping[str, Any], plugins: Plugins) -> Recipe:
    """Structure a table and check the names in it. Raises JtError with every problem."""
    recipe = structure(Recipe, table, plugins)
    problems = list(_name_problems(recipe))
    if problems:
        raise JtError(problems)
    return recipe


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """The resolved table: every default spelled out."""
    return unstructure(recipe)


def _name_problems(recipe: Recipe) -> Problems:
    """Names that mean nothing, and names that are never used."""
    for stage_name, stage in recipe.stage.items():
        for name, branch in stage.branch.items():
            path = f"stage.{stage_name}.branch.{name}"
            yield from _branch_problems(recipe, branch, path)
            yield from _tie_problems(stage, name, path)
    trained = {name for stage in recipe.stage.values() for name in stage.trained}
    for name in recipe.adapter:
        if name not in trained and name not in recipe.initial:
            yield f"adapter.{name}: no branch of any stage trains it"
    yield from _unknown(recipe.initial, recipe.adapter, "initial", "adapter")
    if recipe.sample:
        for key in ("scales", "schedule"):
            named = getattr(recipe.sample, key)
            yield from _unknown(named, recipe.adapter, f"sample.{key}", "adapter")
    if recipe.validation:
        yield from _unknown(recipe.validation.data, recipe.data, "validation.data", "data")
        learnt = {n for s in recipe.stage.values() for b in s.branch.values() for n in b.data}
        for name in recipe.validation.data:
            if name in recipe.data and recipe.data[name].zoom:
                yield f"validation.data: {name!r} is zoomed; files are validated as they are"
        for name in sorted(learnt.intersection(recipe.validation.data)):
            yield f"validation.data: {name!r} is trained on; name data that no branch uses"
    if recipe.metric and not recipe.sample:
        yield "metric: there is no [sample] to measure"


def _branch_problems(recipe: Recipe, branch: Branch, path: str) -> Problems:
    yield from _unknown(branch.data, recipe.data, f"{path}.data", "data")
    yield from _unknown(branch.adapters, recipe.adapter, f"{path}.adapters", "adapter")
    yield from _unknown(branch.trained, branch.adapters, f"{path}.trains", "adapter of the branch")
    if not branch.trained:
        yield f"{path}.trains: expected at least one adapter"
    for what in ("data", "adapters"):
        for name in {n for n in getattr(branch, what) if getattr(branch, what).count(n) > 1}:
            yield f"{path}.{what}: {name!r} is named twice"
    yield from _medium_problems(recipe, branch, path)


def _medium_problems(recipe: Recipe, branch: Branch, path: str) -> Problems:
    """Data without a loss, and losses without data."""
    media = {n: branch.medium(recipe.data[n]) for n in branch.data if n in recipe.data}
    known = all(name in recipe.data for name in branch.data)
    wanted = {term.on for term in branch.losses.values()}
    for name, medium in media.items():
        if not wanted & {medium, "all"}:
            yield f"{path}.losses: none is on {medium!r}, which data {name!r} is"
    for name, term in branch.losses.items():
        if known and term.on not in {*media.values(), "all"}:
            yield f"{path}.losses.{name}.on: no data of the branch is {term.on!r}"


def _tie_problems(stage: Stage, name: str, path: str) -> Problems:
    """Branches of a stage that go by each other."""
    branch = stage.branch[name]
    for key in ("when", "unless", "noise_as"):
        if (other := getattr(branch, key)) is not None:
            yield from _unknown([other], stage.branch, f"{path}.{key}", "branch of the stage")
    followed = _followed(stage, name)
    if followed[-1:] == [name]:
        key = "unless" if branch.when is None else "when"
        yield f"{path}.{key}: goes in a circle: {' -> '.join([name, *followed])}"
    leader = stage.branch.get(branch.noise_as)
    if leader is None:
        return
    if leader.noise_as is not None:
        yield f"{path}.noise_as: {branch.noise_as!r} has the noise of another itself"
    elif leader.data != branch.data:
        yield f"{path}.data: expected {list(leader.data)} as {branch.noise_as!r} has, for its noise"


def _followed(stage: Stage, name: str) -> list[str]:
    """The branches that decide when another runs, each by the next, up to the first met again."""
    path = [name]
    while (branch := stage.branch.get(path[-1])) and branch.follows and len(set(path)) == len(path):
        path.append(branch.follows)
    return path[1:]


def _unknown(names: Iterable[str], known: Collection[str], path: str, what: str) -> Problems:
    for name in names:
        if name not in known:
            yield f"{path}: unknown {what} {name!r}; {did_you_mean(name, known)}"
