"""How a grid's file says what varies: `[variant.NAME]`, `[axes]` and `seeds`."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from jtcore.errors import JtError
from jtcore.grids.axes import SEED, VARIANT, Axes, Axis, Label, Level, digest, matches, same
from jtcore.near import did_you_mean
from jtcore.recipe import Recipe
from jtcore.structure import INTEGERS, NAME, name_problems
from jtcore.tables import Table

RULES = ("zip", "exclude")  # what [axes] says beside the axes
WORDS = "words"  # of a level that is a table, what stands in the recipe's texts
TABLES = tuple(field.name for field in attrs.fields(Recipe))


def take_axes(table: Table) -> tuple[Table, Axes | None]:
    """A grid's table without what varies, and that; None where nothing does: a recipe.

    Raises JtError with all problems.
    """
    table = dict(table)
    given = {key: table.pop(key) for key in ("variant", "axes", "seeds") if key in table}
    if not given:
        return table, None
    problems: list[str] = []
    axes = [*_variants(given.get("variant"), problems)]
    written, rules = _written(given.get("axes"), problems)
    if SEED in written and "seeds" in given:
        problems.append("axes.seed: the grid has seeds already; remove one")
    seeds = given.get("seeds", written.pop(SEED, None))
    axes += [axis for name, levels in written.items() for axis in _axis(name, levels, problems)]
    axes += _seeds(seeds, given.get("variant"), problems)
    if problems:
        raise JtError(problems)
    found = Axes(tuple(_qualified(axes)), *_rules(rules, axes, problems))
    problems += _words_without_use(table, found)
    if problems:
        raise JtError(problems)
    _refuse_useless_rules(found)
    return table, found


def _variants(overlays: object, problems: list[str]) -> Iterator[Axis]:
    if overlays is None:
        return
    if not isinstance(overlays, Mapping) or not overlays:
        problems.append("variant: expected tables [variant.NAME]")
        return
    problems += name_problems(overlays, "variant")
    for name, above in overlays.items():
        if not isinstance(above, Mapping):
            problems.append(f"variant.{name}: expected a table")
        elif not isinstance(above.get("base", {}), Mapping):
            problems.append(f"variant.{name}.base: can be named in the grid's file alone")
    yield Axis(VARIANT, tuple(Level(name, name, above) for name, above in overlays.items()))


def _seeds(seeds: object, variants: object, problems: list[str]) -> Iterator[Axis]:
    if seeds is None:
        return
    whole = isinstance(seeds, list) and all(type(s) is int and s in INTEGERS for s in seeds)
    if not whole or not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        problems.append(f"seeds: expected a list of different whole numbers from 0, got {seeds!r}")
        return
    for name, above in variants.items() if isinstance(variants, Mapping) else ():
        if isinstance(above, Mapping) and SEED in above:
            problems.append(f"variant.{name}.seed: the grid's seeds take its place; remove one")
    yield Axis(SEED, tuple(Level(s, f"seed{s}", {SEED: s}) for s in seeds))


def _written(axes: object, problems: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of `[axes]`: levels by the axis's name or path, and the rules."""
    if axes is None:
        return {}, {}
    if not isinstance(axes, Mapping) or not axes:
        problems.append("axes: expected a table of axes, such as subject = ['dog', 'cat']")
        return {}, {}
    rules = {key: axes[key] for key in RULES if key in axes}
    written: dict[str, Any] = {}
    for name, levels in axes.items():
        if name in RULES:
            continue
        if name.partition(".")[0] in TABLES and isinstance(levels, Mapping):
            written |= dict(_paths(name, levels))  # stage.joint.lr = [...] without quotes
        else:
            written[name] = levels
    return written, rules


def _paths(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _paths(f"{path}.{key}", value)
        else:
            yield f"{path}.{key}", value


def _axis(name: str, levels: object, problems: list[str]) -> Iterator[Axis]:
    place = f"axes.{name}"
    if name == VARIANT:
        problems.append(f"{place}: variants are tables [variant.NAME]")
    elif name.partition(".")[0] in TABLES:
        yield from _path_axis(name, levels, place, problems)
    elif not re.fullmatch(NAME, name):
        problems.append(
            f"{place}: expected the path of an option, such as stage.joint.lr, or a word of"
            " letters, digits, _ and -"
        )
    elif isinstance(levels, Mapping):
        yield from _named_axis(name, levels, place, problems)
    elif _is_list(levels, place, problems):
        odd = [level for level in levels if not isinstance(level, str | int | float)]
        problems += [f"{place}: expected texts or numbers, got {level!r}" for level in odd]
        if not odd:
            yield Axis(
                name,
                _told_apart([Level(v, _of_word(name, v), {}, {name: _text(v)}) for v in levels]),
            )


def _path_axis(name: str, levels: object, place: str, problems: list[str]) -> Iterator[Axis]:
    if not _is_list(levels, place, problems):
        return
    keys = name.split(".")
    made = []
    for value in levels:
        node: Any = value
        for key in reversed(keys):
            node = {key: node}
        label = value if isinstance(value, Label) else _text(value)
        made.append(Level(label, f"{keys[-1]}{_joint(keys[-1], value)}{_slug(_text(value))}", node))
    yield Axis(name, _told_apart(made))


def _named_axis(
    name: str, levels: Mapping[str, Any], place: str, problems: list[str]
) -> Iterator[Axis]:
    before = len(problems)
    problems += name_problems(levels, place)
    problems += [
        f"{place}.{label}: expected a table"
        for label, v in levels.items()
        if not isinstance(v, Mapping)
    ]
    if not levels:
        problems.append(f"{place}: expected tables [{place}.NAME]")
    if len(problems) == before:
        problems += _words_problems(levels, place)
    if len(problems) == before:
        yield Axis(name, tuple(_named_level(*each) for each in levels.items()))


def _named_level(label: str, table: Mapping[str, Any]) -> Level:
    change = {key: value for key, value in table.items() if key != WORDS}
    return Level(label, label, change, table.get(WORDS, {}))


def _words_problems(levels: Mapping[str, Mapping[str, Any]], place: str) -> Iterator[str]:
    """Levels of which one leaves a word as it stands in the recipe, or says none."""
    said = {label: table.get(WORDS, {}) for label, table in levels.items()}
    for label, words in said.items():
        if not isinstance(words, Mapping) or not all(isinstance(t, str) for t in words.values()):
            told = f"expected texts, such as words.kind = 'dog', got {words!r}"
            yield f"{place}.{label}.words: {told}"
            return
    for word in dict.fromkeys(word for words in said.values() for word in words):
        lacking = [label for label, words in said.items() if word not in words]
        yield from (
            f"{place}.{label}.words: lacks {word!r}, which other levels have" for label in lacking
        )


def _is_list(levels: object, place: str, problems: list[str]) -> bool:
    if not isinstance(levels, list) or not levels:
        problems.append(f"{place}: expected a list of levels, got {levels!r}")
        return False
    twice = [v for i, v in enumerate(levels) if any(same(v, w) for w in levels[:i])]
    problems += [f"{place}: {value!r} stands there twice" for value in twice]
    return not twice


def _qualified(axes: Sequence[Axis]) -> list[Axis]:
    """Where paths end in the same key, folders have the key before it too."""
    ends = Counter(axis.name.rpartition(".")[2] for axis in axes if "." in axis.name)
    qualified = []
    for axis in axes:
        *before, end = axis.name.split(".")
        if before and ends[end] > 1:
            levels = (attrs.evolve(lv, part=f"{before[-1]}_{lv.part}") for lv in axis.levels)
            axis = attrs.evolve(axis, levels=tuple(levels))
        qualified.append(axis)
    return qualified


def _told_apart(levels: Sequence[Level]) -> tuple[Level, ...]:
    """Levels whose names for folders would be one get a digest of what they are."""
    count = Counter(level.part.lower() for level in levels)
    return tuple(
        attrs.evolve(level, part=f"{level.part}_{digest(repr(level))}")
        if count[level.part.lower()] > 1
        else level
        for level in levels
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _of_word(name: str, value: Label) -> str:
    text = _slug(_text(value))
    return text if isinstance(value, str) else f"{name}{_joint(name, value)}{text}"


def _joint(key: str, value: Any) -> str:
    """Between a key and its value: nothing, where a reader sees where one ends."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if number and not key[-1].isdigit() else "_"


def _slug(text: str) -> str:
    """A name for folders, by which texts stay apart: what it cannot show is told by a digest."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lstrip(".")
    is_whole = plain == text or (plain == text.replace(" ", "_") and "_" not in text)
    return plain if is_whole and plain else f"{plain.strip('_') or 'level'}_{digest(text)}"


def _rules(
    rules: Mapping[str, Any], axes: Sequence[Axis], problems: list[str]
) -> tuple[tuple[tuple[str, ...], ...], tuple[Mapping[str, Any], ...]]:
    by_name = {axis.name: axis for axis in axes}
    zipped, exclude = rules.get("zip", []), rules.get("exclude", [])
    if not isinstance(zipped, list) or not all(_are_names(group) for group in zipped):
        problems.append(f"axes.zip: expected lists of axes, such as [['a', 'b']], got {zipped!r}")
        zipped = []
    if not isinstance(exclude, list) or not all(isinstance(r, Mapping) and r for r in exclude):
        problems.append(f"axes.exclude: expected tables of axis = level, got {exclude!r}")
        exclude = []
    named = [("zip", name) for group in zipped for name in group]
    named += [("exclude", name) for rule in exclude for name in rule]
    unknown = [(rule, name) for rule, name in named if name not in by_name]
    problems += [
        f"axes.{rule}: no axis is called {name!r}; {did_you_mean(name, by_name)}"
        for rule, name in dict.fromkeys(unknown)
    ]
    if not unknown:
        problems += [*_zip_problems(zipped, by_name), *_exclude_problems(exclude, by_name)]
    return tuple(tuple(group) for group in zipped), tuple(exclude)


def _are_names(group: object) -> bool:
    return isinstance(group, list) and len(group) > 1 and all(isinstance(n, str) for n in group)


def _zip_problems(zipped: Sequence[Sequence[str]], axes: Mapping[str, Axis]) -> Iterator[str]:
    counts = Counter(name for group in zipped for name in group)
    yield from (f"axes.zip: {name} stands there twice" for name, n in counts.items() if n > 1)
    for group in zipped:
        if len({len(axes[name].levels) for name in group}) > 1:
            sizes = ", ".join(f"{name} {len(axes[name].levels)}" for name in group)
            yield f"axes.zip: axes that move together have as many levels; these have {sizes}"


def _exclude_problems(
    exclude: Sequence[Mapping[str, Any]], axes: Mapping[str, Axis]
) -> Iterator[str]:
    for rule in exclude:
        for name, labels in rule.items():
            known = [level.label for level in axes[name].levels]
            for label in labels if isinstance(labels, list) else [labels]:
                if not any(same(label, each) for each in known):
                    told = ", ".join(str(each) for each in known)
                    yield f"axes.exclude: {name} has no level {label!r}; it has {told}"


def _refuse_useless_rules(axes: Axes) -> None:
    everything = attrs.evolve(axes, exclude=()).points()
    problems = [
        f"axes.exclude: nothing is {dict(rule)}"
        for rule in axes.exclude
        if not any(matches(point, rule) for point in everything)
    ]
    if not axes.points():
        problems.append("axes.exclude: leaves no run")
    if problems:
        raise JtError(problems)


def _words_without_use(table: Table, axes: Axes) -> Iterator[str]:
    """Words that no text has, or that two axes say."""
    strings = [
        *_strings(table),
        *(s for a in axes.axes for lv in a.levels for s in _strings(lv.change)),
    ]
    sayers: dict[str, str] = {}
    for axis in axes.axes:
        for word in axis.words:
            if (other := sayers.setdefault(word, axis.name)) != axis.name:
                yield f"axes.{axis.name}: axes.{other} says what {{{word}}} stands for already"
            elif not any(f"{{{word}}}" in string for string in strings):
                yield (
                    f"axes.{axis.name}: no text of the recipe has {{{word}}} in it; an option is"
                    " named by its whole path, such as stage.joint.lr"
                )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
