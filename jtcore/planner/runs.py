"""The passes of a recipe: each run once, on as few blocks as tell of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from attrs import frozen

from jtcore.planner import networks
from jtcore.planner.ledger import GRADIENTS, KEPT, WORKING, Ledger, Segment, Work
from jtcore.planner.networks import Network
from jtcore.planner.passes import Machine, Shown, sample_pass, train_pass
from jtcore.recipe import Branch, Recipe, Stage
from jtcore.settings import Memory
from jtcore.structure import unstructure

FEW, MORE = (
    2,
    3,
)  # blocks of which all that are alike are reckoned: what one more costs is then known


@frozen
class Moment:
    """The highest moment of a segment of a pass, in bytes beside weights and optimizer"""

    kept: int  # for backward
    near: int  # of that, where no more than `MORE` blocks have their inputs on the device
    gradients: int
    working: int

    @property
    def total(self) -> int:
        return self.kept + self.gradients + self.working


@frozen
class Pass:
    """A forward, and a backward where something is trained

    `moments` are those of a step's first pass; where there are gradients already, those
    `over_gradients` are the highest of what is not gradients.
    """

    place: str
    medium: str  # "image", "video"
    latents: tuple[int, ...]  # B, C, F, H, W
    chance: float  # of being run in a step
    moments: Mapping[str, Moment]  # by segment
    over_gradients: Mapping[str, Moment]
    work: Work


class Runs:
    """Runs passes, and says of all blocks what it has seen of a few, where they are alike."""

    def __init__(
        self, recipe: Recipe, machine: Machine, whole: Network, text: tuple[int, int]
    ) -> None:
        self.recipe, self.machine, self.text = recipe, machine, text
        self.whole = whole
        self.count = len(whole.backbone.blocks())
        self.short = self.count > MORE and networks.alike(whole.backbone) and not _looks(recipe)
        self.known: dict[str, tuple[Branch, Shown, Ledger, Ledger]] = {}

    def training(self, name: str) -> Iterator[Pass]:
        """Of a stage: a pass for each table of data of each branch."""
        stage = self.recipe.stage[name]
        for branch_name, branch in stage.branch.items():
            for data in branch.data:
                place = f"stage.{name}.branch.{branch_name}"
                place += f" on {data}" if len(branch.data) > 1 else ""
                yield self._trained(place, branch, data, _chance(stage, branch))

    def sampling(self) -> Pass | None:
        """A forward of a batch, both halves of guidance together, with all adapters."""
        settings = self.recipe.sample
        if settings is None:
            return None
        halves = 1 if settings.guidance == 1 else 2
        shape = self.whole.spec.latent_shape(settings.frames, *settings.size)
        reference = self._reference() if settings.reference else None
        what = Shown(halves * settings.batch, shape, self.text, reference=reference)
        few, more = (
            sample_pass(self.machine, network, list(self.recipe.adapter), what)
            for network in self.networks
        )
        return self._pass("sample", what, 1.0, few, more)

    def block_keeps(self) -> int:
        """Bytes that a block which is not checkpointed keeps, beside its inputs, at the most: the
        last one, which of a network whose blocks differ is among the largest. 0 where it was not
        measured: such a network is run whole, and only if it is asked to keep some."""
        engine = self.recipe.engine
        if not engine.gradient_checkpointing or not (self.short or engine.memory.keep_blocks):
            return 0
        few = FEW if self.short else None
        network = networks.build(self.recipe, few, Memory(keep_blocks=1))
        found = [0]
        for branch, what, without, _ in self.known.values():
            one = train_pass(self.machine, network, branch, what).segments["loss"].highest[KEPT]
            found.append(one - without.segments["loss"].highest[KEPT])
        return max(found)

    @cached_property
    def networks(self) -> tuple[Network, Network]:
        """Of `FEW` and of `MORE` blocks; twice the whole where blocks are not alike."""
        if not self.short:
            return self.whole, self.whole
        return networks.build(self.recipe, FEW), networks.build(self.recipe, MORE)

    def _trained(self, place: str, branch: Branch, data: str, chance: float) -> Pass:
        table = self.recipe.data[data]
        shape = self.whole.spec.latent_shape(table.frames, *table.size)
        if branch.medium(table) == "image":
            shape = (shape[0], 1, *shape[2:])
        reference = self._reference() if table.reference else None
        what = Shown(table.batch, shape, self.text, table.has_masks, reference)
        key = f"{unstructure(branch)} {what}"
        if key not in self.known:
            few, more = self.networks
            first = train_pass(self.machine, few, branch, what)
            second = train_pass(self.machine, more, branch, what) if self.short else first
            self.known[key] = branch, what, first, second
        return self._pass(place, what, chance, *self.known[key][2:])

    def _pass(self, place: str, what: Shown, chance: float, few: Ledger, more: Ledger) -> Pass:
        """What two passes, of `FEW` and of `MORE` blocks, say of all."""
        times = self.count - MORE if self.short else 0
        shared = few.segments.keys() & more.segments.keys()
        moments = {name: _moment(few.segments[name], more.segments[name], times) for name in shared}
        over = {
            name: _moment(few.segments[name], more.segments[name], times, "highest_over_gradients")
            for name in shared
        }
        first, second = few.flops, more.flops
        work = Work(**{key: second[key] + times * (second[key] - first[key]) for key in second})
        medium = "image" if what.latents[1] == 1 else "video"
        return Pass(place, medium, (what.batch, *what.latents), chance, moments, over, work)

    def _reference(self) -> int | None:
        encoder = self.recipe.image_encoder
        if encoder is None:
            return None
        widths = (
            getattr(each.spec, "reference_width", None) for each in self.recipe.adapter.values()
        )
        return next(filter(None, widths), None)


def _moment(few: Segment, more: Segment, times: int, which: str = "highest") -> Moment:
    first, second = getattr(few, which), getattr(more, which)

    def all_of(cause: str) -> int:
        now, before = second.get(cause, 0), first.get(cause, 0)
        return now + times * (now - before)

    return Moment(all_of(KEPT), second.get(KEPT, 0), all_of(GRADIENTS), all_of(WORKING))


def _chance(stage: Stage, branch: Branch) -> float:
    """Of running in a step; of a branch that goes by another, as if it always did."""
    free = [each.chance for each in stage.branch.values() if each.follows is None]
    return branch.chance / sum(free) if stage.select == "one" else branch.chance


def _looks(recipe: Recipe) -> bool:
    """Whether a loss sees the attention of some blocks, and not of others."""
    terms: Iterable = (term for b in recipe.branches.values() for term in b.losses.values())
    return any(hasattr(term.loss.spec, "attention") for term in terms)
