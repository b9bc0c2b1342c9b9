"""Composition: adapters of several runs and files, put together on one backbone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from re import fullmatch
from typing import Any

from attrs import evolve, frozen

from jtcore.artifact import Artifact, plugin_folders_of, read_adapter
from jtcore.errors import JtError
from jtcore.mentions import renamed
from jtcore.plugins import Plugins
from jtcore.structure import NAME, name_problems, unstructure


@frozen
class Source:
    """An adapter file or a run directory, and what its adapters are to be called."""

    path: Path
    name: str | None = None  # as they are called where they come from, unless given

    @classmethod
    def parse(cls, text: str | Path) -> "Source":
        """`PATH`, or `NAME=PATH` unless there is a file of that whole name."""
        name, separator, path = str(text).partition("=")
        if not separator or Path(text).exists() or not fullmatch(NAME, name):
            return cls(Path(text))
        return cls(Path(path), name)

    @classmethod
    def named(cls, name: str, path: str | Path) -> "Source":
        """Raises JtError where no adapter can be called so."""
        if problems := name_problems([name], "load_adapters"):
            raise JtError(problems)
        return cls(Path(path), name)

    def files(self) -> list[Path]:
        """Raises JtError where a run directory has none."""
        if not self.path.is_dir():
            return [self.path]
        files = sorted((self.path / "adapters").glob("*.safetensors"))
        if not files:
            raise JtError(f"{self.path}: no adapters in it; is it a run that has been trained?")
        return files


def folders_of(sources: Sequence[Source]) -> list[str]:
    """Folders of local plugins that the runs of these were made with."""
    return list(dict.fromkeys(f for source in sources for f in plugin_folders_of(source.path)))


def read_adapters(sources: Sequence[Source], plugins: Plugins) -> list[Artifact]:
    """The adapters of all sources, each under a name of its own.

    A source's own name is that of its only adapter; of several it is put before their names, with
    a hyphen, also where options of one name another. Raises JtError where a file cannot be read,
    and where two have one name.
    """
    found = [artifact for source in sources for artifact in _read(source, plugins)]
    first: dict[str, Artifact] = {}
    problems = []
    for artifact in found:
        other = first.setdefault(artifact.name, artifact)
        if other is not artifact:
            problems.append(
                f"{other.path} and {artifact.path} both hold an adapter named {artifact.name!r};"
                f" give one another name, as in other={artifact.path}"
            )
    if problems:
        raise JtError(problems)
    return found


def _read(source: Source, plugins: Plugins) -> Iterator[Artifact]:
    """What they say of each other is renamed with them."""
    artifacts = [read_adapter(path, plugins) for path in source.files()]
    if source.name is None:
        yield from artifacts
        return
    alone = len(artifacts) == 1
    names = {a.name: source.name if alone else f"{source.name}-{a.name}" for a in artifacts}
    for artifact in artifacts:
        adapter = evolve(artifact.adapter, spec=renamed(artifact.adapter.spec, names))
        yield evolve(artifact, name=names[artifact.name], adapter=adapter)


def refuse_other_backbones(artifacts: Sequence[Artifact], changed: Sequence[str] = ()) -> None:
    """All must be of one backbone, but for the options that are `changed` anyway. Raises JtError
    that names what differs."""
    problems = []
    for other in artifacts[1:]:
        first = artifacts[0]
        told = _differences(unstructure(first.backbone), unstructure(other.backbone), changed)
        if told:
            problems.append(
                f"{other.path} was trained on another backbone than {first.path}:"
                f" {', '.join(told)}; adapters of one network can be put together, of which one can"
                " be told with --set backbone.OPTION=VALUE"
            )
    if problems:
        raise JtError(problems)


def _differences(
    first: Mapping[str, Any], other: Mapping[str, Any], changed: Sequence[str]
) -> list[str]:
    differ = [
        key for key in {**first, **other} if key not in changed and first.get(key) != other.get(key)
    ]
    return [f"{key} is {other.get(key)!r} and not {first.get(key)!r}" for key in differ]
