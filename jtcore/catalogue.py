"""What `jt-plugins` prints: every kind with its first line, or one kind with its options."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from jtcore.errors import JtError
from jtcore.evaluation import suites
from jtcore.hints import option_types
from jtcore.near import did_you_mean
from jtcore.plugins import Plugins, load_plugins
from jtcore.presets import shipped, summary


def show(kind: str | None, folders: Sequence[str]) -> None:
    """Print the list, or one kind. Raises JtError where there is no such kind."""
    plugins = load_plugins(folders)
    print("\n".join(_listing(plugins) if kind is None else _details(plugins, kind)))


def _listing(plugins: Plugins) -> Iterator[str]:
    for family, kinds in plugins.families.items():
        yield f"{family}:"
        for kind, spec in sorted(kinds.items()):
            yield f"  {kind:<22} {_documentation(spec).partition(chr(10))[0]}"
    yield "presets:"
    yield from (f"  {name:<22} {summary(path)}" for name, path in shipped().items())
    yield "suites of metrics:"
    yield from (f"  {name:<22} {summary(path)}" for name, path in suites.shipped().items())
    others = plugins.origins.keys() - plugins.providers.values()
    yield "observers and others:"
    yield from (f"  {name}" for name in sorted(others))
    if plugins.broken:
        yield "broken:"
        yield from (f"  {broken.name}: {broken.error}" for broken in plugins.broken)


def _details(plugins: Plugins, wanted: str) -> Iterator[str]:
    family, _, kind = wanted.rpartition(".")
    found = [f for f, kinds in plugins.families.items() if kind in kinds and family in ("", f)]
    if not found:
        known = [kind for kinds in plugins.families.values() for kind in kinds]
        raise JtError(f"unknown kind {wanted!r}; {did_you_mean(wanted, known)}")
    for family in found:
        spec = plugins.families[family][kind]
        origin = plugins.origins[plugins.providers[family, kind]]
        yield f"{family}.{kind} ({origin.file})\n\n{_documentation(spec)}\n\noptions:"
        hints = option_types(spec)
        yield from (_option(field, hints[field.name]) for field in attrs.fields(spec) if field.init)


def _option(field: attrs.Attribute, hint: Any) -> str:
    default = "required" if field.default is attrs.NOTHING else f"default {_default(field)!r}"
    bounds = "".join(
        f", {bound}" for bound in re.findall(r"x [<>]=? [^\s>)]+", repr(field.validator))
    )
    hinted = inspect.formatannotation(hint).replace("typing.", "")
    return f"  {field.name}: {hinted}, {default}{bounds.replace('x ', '')}"


def _default(field: attrs.Attribute) -> Any:
    return field.default.factory() if isinstance(field.default, attrs.Factory) else field.default


def _documentation(spec: type) -> str:
    """The class's own docstring; one that attrs or a base wrote says nothing of it."""
    return inspect.cleandoc(spec.__dict__.get("__doc__") or "(no docstring)")
