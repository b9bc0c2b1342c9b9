"""Adapters that the options of another adapter name."""

from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

Spec = TypeVar("Spec")


def adapter_names(**options: Any) -> Any:
    """An attrs field of an `AdapterSpec`: names of other adapters. They are attached before it, and
    where they are given other names, the field is."""
    return attrs.field(metadata={"adapters": True}, **options)


def named_adapters(spec: object) -> tuple[str, ...]:
    """All that the options name, in order."""
    return tuple(name for field in _fields(spec) for name in getattr(spec, field))


def renamed(spec: Spec, names: Mapping[str, str]) -> Spec:
    """The same options, with the names of adapters that have others now changed to those."""
    changed = {
        field: tuple(names.get(name, name) for name in getattr(spec, field))
        for field in _fields(spec)
    }
    return attrs.evolve(spec, **changed) if changed else spec


def _fields(spec: object) -> list[str]:
    return [each.name for each in attrs.fields(type(spec)) if each.metadata.get("adapters")]
