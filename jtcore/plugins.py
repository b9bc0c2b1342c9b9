"""Plugins: found, imported in isolation, checked, and handed over as one value."""

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType

import attrs
from attrs import frozen
from pluggy import PluginManager

from jtcore import hooks
from jtcore.errors import JtError
from jtcore.hints import option_types

BUILT_IN = "jtplugins"  # the one place where core names the package of plugins
FOLDERS = ("backbones", "adapters", "losses", "metrics", "observers")
ENTRY_POINTS = "jtcore"
REQUIRED_METHOD = MappingProxyType(  # what a class of each family must be able to do
    {"backbones": "load", "adapters": "attach", "losses": "__call__", "metrics": "__call__"}
)


@frozen
class Origin:
    """Where a plugin came from."""

    name: str
    file: str
    sha256: str


@frozen
class Broken:
    """A plugin that could not be loaded, and why."""

    name: str
    error: str


@frozen(eq=False)
class Plugins:
    """What was found. `families` maps a family ("losses") to its kinds and their classes."""

    manager: PluginManager
    families: Mapping[str, Mapping[str, type]]
    origins: Mapping[str, Origin]  # by plugin name
    providers: Mapping[tuple[str, str], str]  # (family, kind) -> plugin name
    broken: tuple[Broken, ...]

    @property
    def hook(self):
        return self.manager.hook

    def find(self, family: str, kind: str) -> type:
        """The class of a kind. Raises JtError with the nearest name and the broken plugins."""
        kinds = self.families[family]
        if kind in kinds:
            return kinds[kind]
        close = get_close_matches(kind, kinds, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(kinds))}"
        broken = "".join(f"\n  broken plugin {b.name}: {b.error}" for b in self.broken)
        raise JtError(
            f"unknown {family.removesuffix('s').replace('losse', 'loss')} {kind!r}; {hint}{broken}"
        )


def load_plugins(folders: Iterable[str | Path] = ()) -> Plugins:
    """Load core's defaults, the built-in plugins, installed ones and those of local folders.

    A plugin that fails is left out and remembered in `broken`; the others live on.
    Raises JtError where a folder does not exist or two plugins provide one kind.
    """
    loading = _Loading()
    for name, find in _candidates(folders):
        loading.add(name, find)
    if loading.conflicts:
        raise JtError(loading.conflicts)
    return Plugins(
        manager=loading.manager,
        families=loading.families,
        origins=loading.origins,
        providers=loading.providers,
        broken=tuple(loading.broken),
    )


class _Loading:
    """The state of one `load_plugins`."""

    def __init__(self):
        self.manager = PluginManager("jtcore")
        self.manager.add_hookspecs(hooks)
        self.families: dict[str, dict[str, type]] = {family: {} for family in REQUIRED_METHOD}
        self.origins: dict[str, Origin] = {}
        self.providers: dict[tuple[str, str], str] = {}
        self.broken: list[Broken] = []
        self.conflicts: list[str] = []

    def add(self, name: str, find: Callable[[], ModuleType]) -> None:
        if name in self.origins:  # a folder that was named twice
            return
        try:  # the plugin boundary: whatever a stranger's code does, the others live on
            module = find()
            self.manager.register(module, name)
            self.manager.check_pending()
            provided = _provided(self.manager, module)
            self.origins[name] = _origin(name, module)
        except (Exception, SystemExit) as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            self.broken.append(Broken(name, f"{type(error).__name__}: {error}"))
            return
        for family, kind, spec in provided:
            self._provide(name, family, kind, spec)

    def _provide(self, name: str, family: str, kind: str, spec: type) -> None:
        other = self.providers.setdefault((family, kind), name)
        if other != name:
            self.conflicts.append(
                f"{family}: kind {kind!r} is provided by both {_where(self.origins[other])} and"
                f" {_where(self.origins[name])}; rename or remove one of them"
            )
        self.families[family][kind] = spec


def _provided(manager: PluginManager, module: ModuleType) -> list[tuple[str, str, type]]:
    """(family, kind, class) of everything that one plugin provides, checked."""
    if not isinstance(module, ModuleType):
        raise TypeError(f"a plugin is a module, not {type(module).__name__}")
    for name, function in vars(module).items():
        marked = manager.parse_hookimpl_opts(module, name) is not None
        if name.startswith("jt_") and callable(function) and not marked:
            raise TypeError(f"{name} lacks @hookimpl")
    found = []
    for family, method in REQUIRED_METHOD.items():
        hook = f"jt_{family}"
        if manager.parse_hookimpl_opts(module, hook) is None:
            continue
        answer = getattr(module, hook)()
        if not isinstance(answer, Mapping):
            raise TypeError(f"{hook} returned {type(answer).__name__}, not a mapping kind -> class")
        for kind, spec in answer.items():
            if not (isinstance(kind, str) and isinstance(spec, type) and attrs.has(spec)):
                raise TypeError(f"{hook}: {kind!r} is not an attrs class")
            if not callable(getattr(spec, method, None)) or method not in dir(spec):
                raise TypeError(f"{hook}: {spec.__name__} has no method {method!r}")
            option_types(spec)
            found.append((family, kind, spec))
    if manager.parse_hookimpl_opts(module, "jt_observers"):
        makers = module.jt_observers()
        if not (isinstance(makers, Sequence) and all(callable(make) for make in makers)):
            raise TypeError("jt_observers returned something else than a sequence of classes")
    return found


def _candidates(
    folders: Iterable[str | Path],
) -> Iterator[tuple[str, Callable[[], ModuleType]]]:
    """(name, how to import it) of every plugin, built-in first."""
    yield "jtcore.defaults", _importer("jtcore.defaults")
    for folder in FOLDERS:
        package = importlib.import_module(f"{BUILT_IN}.{folder}")
        for name in _plugin_names(package.__path__):
            yield f"{folder}.{name}", _importer(f"{package.__name__}.{name}")
    for entry in sorted(entry_points(group=ENTRY_POINTS)):
        yield f"{entry.name} ({entry.value})", entry.load
    for folder in folders:
        yield from _local(Path(folder))


def _local(folder: Path) -> Iterator[tuple[str, Callable[[], ModuleType]]]:
    """The plugins of a local folder, imported as a package so that `from ._name import` works."""
    if not folder.is_dir():
        raise JtError(f"plugin folder {str(folder)!r} is not a folder")
    folder = folder.resolve()
    package = f"jtlocal_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    parent = ModuleType(package, f"Plugins in {folder}.")
    parent.__path__ = [str(folder)]
    sys.modules[package] = parent
    for name in _plugin_names([str(folder)]):
        yield str(folder / f"{name}.py"), _importer(f"{package}.{name}")


def _plugin_names(path: Iterable[str]) -> list[str]:
    """Modules in a folder, but for `_name.py`, which neighbours share."""
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def _importer(module: str) -> Callable[[], ModuleType]:
    return lambda: importlib.import_module(module)


def _origin(name: str, module: ModuleType) -> Origin:
    file = Path(module.__file__)
    return Origin(name, str(file), hashlib.sha256(file.read_bytes()).hexdigest())


def _where(origin: Origin) -> str:
    return f"{origin.name} [{origin.file}]" if origin.name != origin.file else origin.file
