"""Which losses are looked into, as the command line says them."""

from collections.abc import Sequence

from attrs import NOTHING, fields, frozen

from jtcore.errors import JtError
from jtcore.frequency.subject import Subject
from jtcore.noise import AXES, PLAIN, Draws, SharedNoise
from jtcore.structure import structure_component
from jtcore.tables import literal
from jtcore.types import Loss


@frozen(eq=False)
class Asked:
    """A loss, and what it is given: noise may have a part that axes share."""

    loss: Loss
    draws: Draws = PLAIN


def askable(
    subject: Subject, said: Sequence[str], against: str, offset: Sequence[str]
) -> dict[str, Asked]:
    """The loss `against`, which is compared to, and others, each said by its kind or as an inline
    table of TOML with its options; where none is, all kinds that need neither masks, attention nor
    options. `offset` are axes that a part of the noise shares, for one more: `against` with that
    noise in latents and target alike. Raises JtError for an unknown kind, and for one that needs
    more than the prediction."""
    for axis in offset:
        if axis not in AXES:
            raise JtError(f"--offset {axis}: no axis of noise; there are {', '.join(AXES)}")
    name, first = _read("--against", against, subject)
    others = dict(_read("--losses", one, subject) for one in said) or _all(subject)
    asked = {each: Asked(loss) for each, loss in ({name: first} | others).items()}
    if offset:
        noise = Draws(offset=SharedNoise(1.0, tuple(offset)))
        asked[f"{name}, noise shifted"] = Asked(first, noise)
    return asked


def _read(option: str, said: str, subject: Subject) -> tuple[str, Loss]:
    """A loss, and what it is called: its kind, with the options that are said."""
    table = literal(said)
    table = table if isinstance(table, dict) else {"kind": said}
    try:
        made = structure_component("losses", table, subject.plugins)
    except JtError as error:
        raise JtError(f"{option} {said}: {problem}" for problem in error.problems) from error
    if _sees_more(made.spec):
        raise JtError(f"{option} {said}: it needs more than the prediction: a mask, or attention")
    options = [f"{key} = {value}" for key, value in table.items() if key != "kind"]
    return ", ".join([made.kind, *options]), made.spec


def _all(subject: Subject) -> dict[str, Loss]:
    kinds = sorted(subject.plugins.families["losses"].items())
    made = {kind: loss() for kind, loss in kinds if not _needs_options(loss)}
    return {kind: loss for kind, loss in made.items() if not _sees_more(loss)}


def _needs_options(loss: type) -> bool:
    return any(each.default is NOTHING for each in fields(loss))


def _sees_more(loss: Loss) -> bool:
    return getattr(loss, "needs_mask", False) or hasattr(loss, "attention")
