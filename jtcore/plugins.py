"""Plugins: found, imported in isolation, checked, and handed over as one value."""

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType

import attrs
from attrs import frozen
from pluggy import PluginManager

from jtcore import hooks
from jtcore.errors import JtError
from jtcore.hints import option_types
from jtcore.near import did_you_mean

BUILT_IN = "jtplugins"  # the one place where core names the package of plugins
FOLDERS = (
    *("backbones", "adapters", "losses", "metrics", "formats", "image_encoders"),
    *("controls", "observers", "launchers"),
)
ENTRY_POINTS = "jtcore"
BACKBONE_METHODS = (
    *("load", "load_text_encoder", "load_codec", "latent_shape", "prompt_problems"),
    *("denoiser_identity", "text_identity", "codec_identity"),
)
METHODS = MappingProxyType(  # what a class of each family must be able to do
    {
        "backbones": BACKBONE_METHODS,
        "adapters": ("attach",),
        "losses": ("__call__",),
        "metrics": ("load",),
        "formats": (),
        "image_encoders": ("width", "identity", "load"),
        "controls": ("begin",),
        "launchers": ("launch",),
    }
)
WAYS = (("write", "load"), ("read",))  # at least one of which a format can go
ONE = MappingProxyType(  # of a family
    {
        "backbones": "backbone",
        "adapters": "adapter",
        "losses": "loss",
        "metrics": "metric",
        "formats": "format",
        "image_encoders": "image encoder",
        "controls": "control",
        "launchers": "launcher",
    }
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
        broken = "".join(f"\n  broken plugin {b.name}: {b.error}" for b in self.broken)
        raise JtError(f"unknown {ONE[family]} {kind!r}; {did_you_mean(kind, kinds)}{broken}")


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
        self.families: dict[str, dict[str, type]] = {family: {} for family in METHODS}
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
    _check_hooks(manager, module)
    found = []
    for family in METHODS:
        hook = f"jt_{family}"
        if not hasattr(module, hook):
            continue
        answer = getattr(module, hook)()
        if not isinstance(answer, Mapping):
            raise TypeError(f"{hook} returned {type(answer).__name__}, not a mapping kind -> class")
        for kind, spec in answer.items():
            _check_spec(family, kind, spec)
            found.append((family, kind, spec))
    if hasattr(module, "jt_observers"):
        _check_observers(manager, module.jt_observers())
    return found


def _check_hooks(manager: PluginManager, owner: object) -> None:
    """Whatever of a module or class is called `jt_...` must be a hook, and marked as one."""
    for name in dir(owner):
        if not name.startswith("jt_") or not callable(getattr(owner, name)):
            continue
        if manager.parse_hookimpl_opts(owner, name) is None:
            raise TypeError(f"{name} lacks @hookimpl")
        if not hasattr(hooks, name):
            known = [hook for hook in vars(hooks) if hook.startswith("jt_")]
            raise TypeError(f"unknown hook {name!r}; {did_you_mean(name, known)}")


def _check_spec(family: str, kind: str, spec: type) -> None:
    hook = f"jt_{family}"
    if not (isinstance(kind, str) and isinstance(spec, type) and attrs.has(spec)):
        raise TypeError(f"{hook}: {kind!r} is not an attrs class")
    for method in METHODS[family]:
        if not can(spec, method):
            raise TypeError(f"{hook}: {spec.__name__} has no method {method!r}")
    if family == "formats" and not any(can(spec, *way) for way in WAYS):
        raise TypeError(f"{hook}: {spec.__name__} has neither 'read' nor both 'write' and 'load'")
    option_types(spec)


def can(spec: type, *methods: str) -> bool:
    """Whether a class has all of these methods."""
    return all(name in dir(spec) and callable(getattr(spec, name)) for name in methods)


def _check_observers(manager: PluginManager, makers: object) -> None:
    if not (isinstance(makers, Sequence) and all(isinstance(make, type) for make in makers)):
        raise TypeError("jt_observers returned something else than a sequence of classes")
    for make in makers:
        _check_hooks(manager, make)


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
    """Where a plugin is, and a hash of it and of what it may share with its neighbours."""
    return Origin(name, str(Path(module.__file__)), source_digest(module))


def source_digest(module: ModuleType) -> str:
    """Of a plugin's file and of what it may share with its neighbours."""
    file = Path(module.__file__)
    digest = hashlib.sha256(file.read_bytes())
    for shared in sorted(file.parent.glob("_[!_]*.py")):
        digest.update(shared.read_bytes())
    return digest.hexdigest()


def _where(origin: Origin) -> str:
    return f"{origin.name} [{origin.file}]" if origin.name != origin.file else origin.file
