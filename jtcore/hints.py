"""The types that options may have: those that TOML can say."""

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

SCALARS = (bool, int, float, str)


def option_types(cls: type) -> dict[str, Any]:
    """The type of each option of an attrs class. Raises TypeError where TOML could not say it."""
    hints = get_type_hints(cls)
    types_of = {field.name: hints[field.name] for field in attrs.fields(cls) if field.init}
    for name, hint in types_of.items():
        if not is_sayable(hint):
            raise TypeError(f"{cls.__name__}.{name}: an option cannot be of type {hint}")
    return types_of


def is_sayable(hint: Any) -> bool:
    """bool, int, float, str, Literal, T | None, tuple, T | tuple[T, ...], Mapping[str, T], attrs
    classes, and Any, which is whatever TOML can say."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_optional(hint):
        return is_sayable(without_none(hint))
    if is_one_or_several(hint):
        return is_sayable(arguments[0])
    if origin is Literal:
        return True
    if origin is tuple:
        return all(is_sayable(inner) for inner in arguments if inner is not Ellipsis)
    if origin is not None:
        is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
        return is_mapping and arguments[0] is str and is_sayable(arguments[1])
    return hint is Any or hint in SCALARS or attrs.has(hint)


def is_optional(hint: Any) -> bool:
    """Whether it is `T | None` of one T."""
    arguments = get_args(hint)
    union = get_origin(hint) in (Union, types.UnionType)
    return union and len(arguments) == 2 and type(None) in arguments


def is_one_or_several(hint: Any) -> bool:
    """Whether it is `T | tuple[T, ...]`."""
    arguments = get_args(hint)
    union = get_origin(hint) in (Union, types.UnionType) and len(arguments) == 2
    return union and arguments[1] == tuple[arguments[0], ...]


def without_none(hint: Any) -> Any:
    """T of `T | None`."""
    return next(inner for inner in get_args(hint) if inner is not type(None))
