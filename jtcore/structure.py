"""Tables become frozen attrs classes: strictly, and with all problems at once."""

import math
from collections.abc import Iterable, Mapping, Sequence
from re import fullmatch
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import attrs
from attrs import frozen

from jtcore.errors import JtError
from jtcore.hints import SCALARS, is_one_or_several, is_optional, option_types, without_none
from jtcore.lines import read_lines
from jtcore.near import nearest
from jtcore.plugins import Plugins

NAME = r"[A-Za-z0-9_-]+"
INTEGERS = range(-(2**63), 2**63)  # that TOML promises to carry


@frozen(eq=False)
class Component:
    """A plugin's class chosen by `kind`, with its options."""

    kind: str
    spec: Any


def component(family: str, *, inline: bool = False, **options) -> Any:
    """An attrs field that holds a `Component` of a family (or a mapping of them).

    `inline` means that its keys stand in the table of the class that has the field.
    """
    return attrs.field(metadata={"family": family, "inline": inline}, **options)


def lines(**options) -> Any:
    """An attrs field of strings that may also be given as the path of a text file, one a line."""
    return attrs.field(metadata={"lines": True}, **options)


def structure(cls: type, table: Mapping[str, Any], plugins: Plugins | None) -> Any:
    """Build `cls` from a table; one without components needs no plugins. Raises JtError that lists
    every problem with its path."""
    problems: list[str] = []
    built = _Structuring(plugins, problems).attrs_class(cls, table, "")
    if problems:
        raise JtError(problems)
    return built


def structure_component(
    family: str, table: Mapping[str, Any], plugins: Plugins, place: str | None = None
) -> Component:
    """Build one component from its table, which stands at `place`. Raises JtError that lists every
    problem."""
    problems: list[str] = []
    built = _Structuring(plugins, problems).component(family, table, place or family)
    if problems:
        raise JtError(problems)
    return built


def unstructure(value: Any) -> Any:
    """The table from which `structure` builds an equal value; unset options are left out."""
    if isinstance(value, Component):
        return {"kind": value.kind} | unstructure(value.spec)
    if attrs.has(type(value)):
        table: dict[str, Any] = {}
        for field in attrs.fields(type(value)):
            item = unstructure(getattr(value, field.name))
            if field.metadata.get("inline"):
                table |= item
            elif item is not None:
                table[field.name] = item
        return table
    if isinstance(value, Mapping):
        return {key: unstructure(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [unstructure(item) for item in value]
    return value


def name_problems(names: Iterable[str], path: str) -> list[str]:
    """Of names that people give: they become names of files and TensorBoard tags."""
    return [
        f"{path}: the name {name!r} may only have letters, digits, _ and -"
        for name in names
        if not fullmatch(NAME, name)
    ]


class _Broken:
    """Stands for a value whose problem has been noted."""


_BROKEN = _Broken()


class _Structuring:
    """One pass over a table; problems are collected, never raised."""

    def __init__(self, plugins: Plugins | None, problems: list[str]):
        self.plugins = plugins
        self.problems = problems

    def attrs_class(self, cls: type, table: Any, path: str, beside: Sequence[str] = ()) -> Any:
        if not isinstance(table, Mapping):
            return self._problem(path, f"expected a table, got {_shown(table)}")
        table = dict(table)
        hints = option_types(cls)
        fields = [field for field in attrs.fields(cls) if field.init]
        own = [field.name for field in fields]
        values = {
            f.name: self._field(f, hints[f.name], table, path, own) for f in _inline_last(fields)
        }
        self._unknown_keys(table, [*own, *beside], path)
        before = len(self.problems)
        self._validate(fields, values, path)
        if _BROKEN in values.values() or len(self.problems) > before:
            return _BROKEN
        try:
            return cls(
                **{name: value for name, value in values.items() if value is not attrs.NOTHING}
            )
        except (ValueError, TypeError) as error:  # what a class checks across its fields
            return self._problem(path, str(error.args[0]))

    def _validate(self, fields: list[attrs.Attribute], values: dict, path: str) -> None:
        """Run the validators of all fields that have a value, though others may be broken."""
        instance = SimpleNamespace(**{f.name: _or_default(f, values[f.name]) for f in fields})
        for field in fields:
            value = values[field.name]
            if field.validator is None or value is _BROKEN or value is attrs.NOTHING:
                continue
            try:
                field.validator(instance, field, value)
            except (ValueError, TypeError) as error:
                message = str(error.args[0]).removeprefix(f"'{field.name}' ")
                self._problem(_join(path, field.name), message)

    def component(self, family: str, table: Any, path: str, beside: Sequence[str] = ()) -> Any:
        """A component; its keys stand in one table with those `beside` it."""
        if not isinstance(table, Mapping):
            return self._problem(path, f"expected a table with a kind, got {_shown(table)}")
        kind = table.get("kind")
        if not isinstance(kind, str):
            found = "missing" if kind is None else f"expected str, got {_shown(kind)}"
            return self._problem(_join(path, "kind"), found)
        try:
            cls = self.plugins.find(family, kind)
        except JtError as error:
            return self._problem(_join(path, "kind"), str(error))
        options = {key: value for key, value in table.items() if key != "kind"}
        spec = self.attrs_class(cls, options, path, beside)
        return _BROKEN if spec is _BROKEN else Component(kind, spec)

    def _field(
        self, field: attrs.Attribute, hint: Any, table: dict, path: str, beside: Sequence[str]
    ) -> Any:
        """One field's value out of `table`, which loses the keys that were used."""
        family = field.metadata.get("family")
        if field.metadata.get("inline"):
            rest = dict(table)
            table.clear()
            others = [name for name in beside if name != field.name]
            return self.component(family, rest, path, others)
        place = _join(path, field.name)
        if field.name not in table:
            missing = field.default is attrs.NOTHING
            return self._problem(place, "missing") if missing else attrs.NOTHING
        value = table.pop(field.name)
        if field.metadata.get("lines") and isinstance(value, str):
            try:
                value = read_lines(value)
            except JtError as error:
                return self._problem(place, str(error))
        return self._value(hint, value, place, family)

    def _value(self, hint: Any, value: Any, path: str, family: str | None = None) -> Any:
        """A value of the hinted type, without coercion but for int to float."""
        origin = get_origin(hint)
        if hint is Component:
            return self.component(family, value, path)
        if attrs.has(hint):
            return self.attrs_class(hint, value, path)
        if is_optional(hint):
            return self._value(without_none(hint), value, path, family)
        if is_one_or_several(hint):
            one, several = get_args(hint)
            given = several if isinstance(value, list | tuple) else one
            return self._value(given, value, path, family)
        if hint is Any:
            return self._anything(value, path)
        if origin is Literal:
            return self._literal(get_args(hint), value, path)
        if origin is tuple:
            return self._tuple(get_args(hint), value, path)
        if origin is not None and issubclass(origin, Mapping):
            return self._mapping(get_args(hint)[1], value, path, family)
        return self._scalar(hint, value, path)

    def _scalar(self, hint: type, value: Any, path: str) -> Any:
        if type(value) is int and value not in INTEGERS:
            return self._problem(path, f"expected a number of at most 64 bits, got {_shown(value)}")
        if hint is float and type(value) is int:
            value = float(value)
        if type(value) is not hint:
            return self._problem(path, f"expected {hint.__name__}, got {_shown(value)}")
        if hint is float and not math.isfinite(value):
            return self._problem(path, f"expected a finite number, got {value}")
        return value

    def _anything(self, value: Any, path: str) -> Any:
        """A value of whatever type it has."""
        if isinstance(value, Mapping):
            built = {key: self._anything(item, _join(path, key)) for key, item in value.items()}
            return _BROKEN if _BROKEN in built.values() else built
        if isinstance(value, list | tuple):
            return self._tuple((Any, ...), value, path)
        if type(value) not in SCALARS:
            return self._problem(
                path, f"expected a number, text, list or table, got {_shown(value)}"
            )
        return self._scalar(type(value), value, path)

    def _literal(self, choices: tuple, value: Any, path: str) -> Any:
        if value in choices and type(value) in {type(choice) for choice in choices}:
            return value
        return self._problem(
            path, f"expected {_listed(choices)}, got {_shown(value)}{_near(value, choices)}"
        )

    def _tuple(self, hints: tuple, value: Any, path: str) -> Any:
        if not isinstance(value, list | tuple):
            return self._problem(path, f"expected a list, got {_shown(value)}")
        if hints[-1] is Ellipsis:
            hints = (hints[0],) * len(value)
        if len(value) != len(hints):
            return self._problem(path, f"expected {len(hints)} values, got {len(value)}")
        built = [
            self._value(h, v, f"{path}[{i}]")
            for i, (h, v) in enumerate(zip(hints, value, strict=True))
        ]
        return _BROKEN if _BROKEN in built else tuple(built)

    def _mapping(self, hint: Any, value: Any, path: str, family: str | None) -> Any:
        if not isinstance(value, Mapping):
            return self._problem(path, f"expected a table, got {_shown(value)}")
        self.problems += name_problems(value, path)
        built = {
            name: self._value(hint, item, _join(path, name), family) for name, item in value.items()
        }
        return _BROKEN if _BROKEN in built.values() else built

    def _unknown_keys(self, rest: Mapping[str, Any], known: list[str], path: str) -> None:
        for key in rest:
            self._problem(_join(path, key), f"unknown key{_near(key, known)}")

    def _problem(self, path: str, message: str) -> _Broken:
        self.problems.append(f"{path or 'recipe'}: {message}")
        return _BROKEN


def _inline_last(fields: list[attrs.Attribute]) -> list[attrs.Attribute]:
    return sorted(fields, key=lambda field: bool(field.metadata.get("inline")))


def _or_default(field: attrs.Attribute, value: Any) -> Any:
    """A value as a validator of another field may see it."""
    if value is _BROKEN:
        return None
    if value is not attrs.NOTHING:
        return value
    return field.default.factory() if isinstance(field.default, attrs.Factory) else field.default


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    shown = hex(value) if isinstance(value, int) and value not in INTEGERS else repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__})"


def _listed(choices: tuple) -> str:
    return " or ".join(repr(choice) for choice in choices)


def _near(word: Any, known) -> str:
    hint = nearest(str(word), map(str, known))
    return f"; {hint}" if hint else ""
