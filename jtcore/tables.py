"""Recipe files: found, read, laid over their `base`, changed by `--set`, written."""

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w

from jtcore.errors import JtError
from jtcore.near import nearest
from jtcore.plugins import BUILT_IN

Table = dict[str, Any]

SHIPPED = ("recipes", "ablations")
SHARED = ("engine",)  # of a recipe's tables, those whose options every kind has


def find_recipe(argument: str) -> Path:
    """A path, or the name of what is shipped, from anywhere: `NAME` of a recipe,
    `ablations/NAME`. Raises JtError."""
    path = Path(argument)
    if os.path.isfile(path):  # noqa: PTH113 - pathlib raises where a name is too long
        return path
    shipped = {f"{folder}/{p.stem}": p for folder in SHIPPED for p in _shipped(folder)}
    name = argument.removesuffix(".toml")
    for candidate in (name, f"recipes/{name}"):
        if candidate in shipped:
            return shipped[candidate]
    names = [name.removeprefix("recipes/") for name in shipped]
    hint = nearest(name, names) or f"shipped are {', '.join(names)}"
    raise JtError(f"no such file, nor a shipped recipe: {argument!r}; {hint}")


def read_table(path: Path, _above: tuple[Path, ...] = ()) -> Table:
    """A recipe's table, laid over its `base` and that one's base. What an ablation's variant names
    as its own `base` is read into its place. Raises JtError."""
    path = path.resolve()
    if path in _above:
        loop = " -> ".join(p.name for p in (*_above, path))
        raise JtError(f"{path}: base: recipes stand on each other in a circle: {loop}")
    table = parse_toml(path)
    base = table.pop("base", None)
    for place, variant in _variants_with_base(table):
        if base is not None:
            raise JtError(f"{path}: {place}: the file has a base already; name one or the other")
        variant["base"] = _read_base(variant["base"], place, path, _above)
    return table if base is None else overlay(_read_base(base, "base", path, _above), table)


def _variants_with_base(table: Table) -> Iterator[tuple[str, Table]]:
    """Each with the place of its `base`."""
    variants = table.get("variant")
    if not isinstance(variants, Mapping):
        return
    for name, variant in variants.items():
        if isinstance(variant, Mapping) and "base" in variant:
            yield f"variant.{name}.base", variant


def _read_base(base: object, place: str, path: Path, above: tuple[Path, ...]) -> Table:
    """The table of a recipe that the file `path` names at `place`: beside it, or shipped."""
    if not isinstance(base, str):
        raise JtError(f"{path}: {place}: expected the path of a recipe, got {base!r}")
    beside = path.parent / base
    found = os.path.isfile(beside)  # noqa: PTH113 - pathlib raises where a name is too long
    try:
        return read_table(beside if found else find_recipe(base), (*above, path))
    except JtError as error:
        raise JtError(f"{path}: {place}: {problem}" for problem in error.problems) from error


def overlay(
    below: Mapping[str, Any], above: Mapping[str, Any], shared: Collection[str] = SHARED
) -> Table:
    """`above` laid over `below`. A table that changes its `kind` is replaced whole, but for those
    that are `shared`; `false` takes away what is there, unless that is true or false itself."""
    result = deepcopy(dict(below))
    for key, value in above.items():
        old = result.get(key)
        if value is False and key in result and not isinstance(old, bool):
            del result[key]
        elif (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and (key in shared or not _other(old, value))
        ):
            result[key] = overlay(old, value, shared=())
        else:
            result[key] = deepcopy(value)
    return result


def change(table: Mapping[str, Any], settings: Sequence[str]) -> Table:
    """The table as `stage.joint.steps=50` and the like change it, one after another.

    Raises JtError.
    """
    table = dict(table)
    for setting in settings:
        path, equals, value = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise JtError(f"--set {setting!r}: expected PATH=VALUE, such as stage.joint.steps=50")
        node: Any = literal(value.strip())
        for key in reversed(keys):
            node = {key: node}
        table = overlay(table, node)
    return table


def write_toml(table: Mapping[str, Any]) -> str:
    """TOML text of a table."""
    return tomli_w.dumps(table)


def literal(text: str) -> Any:
    """A TOML value; a bare word is a string."""
    try:
        table = tomllib.loads(f"value = {text}")
    except ValueError:
        return text
    return table["value"] if len(table) == 1 else text


def _other(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    return "kind" in above and above["kind"] != below.get("kind")


def parse_toml(path: Path) -> Table:
    """Raises JtError where the file cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # besides TOMLDecodeError: not UTF-8, or a number too long to read
        raise JtError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise JtError(f"{path}: {error.strerror}") from error


def _shipped(folder: str) -> list[Path]:
    return sorted(Path(str(files(f"{BUILT_IN}.{folder}"))).glob("*.toml"))
