"""One run: its recipe checked, and whatever is not done yet done from what stands in its folder."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from attrs import evolve

from jtcore.check import check
from jtcore.errors import JtError
from jtcore.experiment import conduct
from jtcore.files import remove_leftovers
from jtcore.plugins import Plugins, load_plugins
from jtcore.provenance import changed_plugins, refuse_changes
from jtcore.recipe import PluginFolders, Recipe, build_recipe
from jtcore.run import Run, locked
from jtcore.signals import Stop
from jtcore.tables import Table, parse_toml


def checked(table: Table) -> tuple[Recipe, Plugins]:
    """A recipe, wholly checked, and the plugins that it was built with. Raises JtError."""
    recipe, plugins = built(table)
    check(recipe)
    return recipe, plugins


def built(table: Table) -> tuple[Recipe, Plugins]:
    """The same of a recipe whose weights and data need not be there. Raises JtError."""
    plugins = load_plugins(plugin_folders(table))
    return _with_absolute_folders(build_recipe(table, plugins)), plugins


def proceed_run(run: Run, stop: Stop, begins: Callable[[Path], None] | None = None) -> None:
    """Do what is not done yet in a run directory; `begins` is called when nobody else is at work on
    it. Raises JtError, Interrupted."""
    circumstances = run.read_json("run.json")
    if circumstances is None:
        raise JtError(f"{run.folder}: not a run directory: it has no run.json")
    leads = run.processes.leads
    if run.processes.of_leader(run.finished):
        run.say(f"{shown(run.folder)} is complete already")
        return
    alone = locked(run.folder) if leads else nullcontext()
    with alone, inside(Path(circumstances["directory"])):
        if leads:
            remove_leftovers(run.folder)
        if begins:
            begins(run.folder)
        recipe, loaded = checked(parse_toml(run.folder / "recipe.resolved.toml"))
        refuse_changes(circumstances, recipe)
        for broken in loaded.broken:
            run.say(f"broken plugin {broken.name}: {broken.error}")
        for name in changed_plugins(circumstances["plugins"], loaded):
            run.say(f"plugin {name} has changed since this run began")
        run.say(f"{recipe.title or run.folder.name}: {shown(run.folder)}")
        conduct(recipe, run, loaded, stop)


def plugin_folders(table: Mapping[str, Any]) -> list[str]:
    """Needed before the recipe can be structured, so read with care. Raises JtError."""
    plugins = table.get("plugins")
    folders = plugins.get("folders", []) if isinstance(plugins, Mapping) else []
    if isinstance(folders, list) and all(isinstance(folder, str) for folder in folders):
        return folders
    raise JtError("plugins.folders: expected a list of paths")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Relative paths of a recipe mean what they meant where the run was started."""
    here = Path.cwd()
    if folder.is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def shown(folder: Path) -> Path:
    """As a person who stands here would name it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _with_absolute_folders(recipe: Recipe) -> Recipe:
    """So that a run can be resumed and sampled from anywhere."""
    folders = tuple(str(Path(folder).absolute()) for folder in recipe.plugins.folders)
    return evolve(recipe, plugins=PluginFolders(folders))
