"""What is looked into: the clips of a recipe as a backbone's codec and schedule have them, and its
model, new or as a run left it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from jtcore.adapter import Adapter
from jtcore.artifact import load_initial, load_weights, read_adapter
from jtcore.cache import Cache, cache_folder
from jtcore.data import known_captions
from jtcore.engine import Engine
from jtcore.errors import JtError
from jtcore.grids.grid import run_folders, take_grid
from jtcore.inversion import load_reference
from jtcore.launch import changed_table
from jtcore.model import Model, load_model
from jtcore.plugins import Plugins
from jtcore.proceed import checked, inside
from jtcore.reading import replaced_words
from jtcore.recipe import Branch, Recipe, Sampling
from jtcore.references import embed_references
from jtcore.run import read_json
from jtcore.stream import Stream, embed_texts, load_stream
from jtcore.tables import find_recipe
from jtcore.types import Backbone

RECIPE = "recipe.resolved.toml"  # of a run


class Subject:
    """A recipe, opened without training it. What it reads is encoded once, in the same cache."""

    def __init__(
        self,
        source: str,
        settings: Sequence[str] = (),
        folders: Sequence[str] = (),
        say: Callable[[str], None] = print,
    ) -> None:
        """`source` is a recipe, by path or shipped name, or the folder of a run, whose adapters are
        then as they were trained, and whose paths mean what they meant where it was started. Raises
        JtError."""
        self.run = Path(source).absolute() if (Path(source) / RECIPE).is_file() else None
        path = self.run / RECIPE if self.run else _found(source)
        folders = [str(Path(folder).absolute()) for folder in folders]
        with self._at_home():
            self.recipe, self.plugins = _built(path, settings, folders)
        self.say = say
        self.engine = Engine(self.recipe.engine)
        self.cache = Cache(cache_folder())

    def _at_home(self) -> AbstractContextManager[None]:
        """Where the recipe's paths are meant."""
        told = read_json(self.run / "run.json") if self.run else None
        return inside(Path(told["directory"])) if told else nullcontext()

    @cached_property
    def schedule(self) -> Backbone:
        """The backbone without weights: its levels of noise, and the names of its parts."""
        return self.recipe.backbone.spec.load(torch.device("meta"), torch.float32)

    def stream(self, name: str) -> Stream:
        """The clips of `[data.NAME]`, encoded. Raises JtError where there is no such table."""
        if name not in self.recipe.data:
            known = ", ".join(self.recipe.data)
            raise JtError(f"data.{name}: there is no such table; this recipe has {known}")
        data, spec, device = self.recipe.data[name], self.recipe.backbone.spec, self.engine.device
        with self._at_home():
            stream = load_stream(name, data, spec, self.cache, device, self.say)
            return embed_references(self.recipe, {name: stream}, self.cache, device)[0][name]

    def chosen(self, name: str | None, medium: str) -> str:
        """The table that is named, or the first one of a medium that branches train on. Raises
        JtError where there is none."""
        if name is not None:
            return name
        for branch in self.recipe.branches.values():
            for each in branch.data:
                if self.recipe.data[each].medium == medium:
                    return each
        raise JtError(f"no branch of this recipe trains on a {medium}; name a table with --data")

    def branch(self, name: str) -> Branch | None:
        """The last one that trains on the clips of a table as they are."""
        found = [
            branch
            for branch in self.recipe.branches.values()
            if name in branch.data and branch.frame == "all"
        ]
        return found[-1] if found else None

    def adapters(self, name: str) -> tuple[dict[str, Adapter], dict[str, Adapter]]:
        """Those that are on, and of those the ones that are trained, where the recipe learns from a
        table; all where it does not."""
        known, branch = self.model.adapters, self.branch(name)
        if branch is None:
            return dict(known), dict(known)
        return (
            {each: known[each] for each in branch.adapters},
            {each: known[each] for each in branch.trained},
        )

    def latents(self, name: str) -> Tensor:  # (N, C, F, H, W), on the CPU
        """The first clip of each file of a table. Raises JtError."""
        return torch.stack([item.latents[0] for item in self.stream(name).items])

    @property
    def sampling(self) -> Sampling:
        """How the recipe samples. Raises JtError where it does not."""
        if self.recipe.sample is None:
            raise JtError("sample: this recipe has no such table, and says of no prompts or sizes")
        return self.recipe.sample

    @cached_property
    def prior(self) -> Tensor | None:  # (C, F, H, W)
        """The latents of the video that the noise of samples begins with, where there is one."""
        spec, device = self.recipe.backbone.spec, self.engine.device
        with self._at_home():
            return load_reference(self.sampling, spec, self.cache, device, self.say)

    @cached_property
    def texts(self) -> Mapping[str, Tensor]:  # caption -> (L, D)
        """Every caption of the recipe's, embedded."""
        needed = {*known_captions(self.recipe.data.values()), ""}
        needed |= {*self.recipe.sample.captions} if self.recipe.sample else set()
        replaced = replaced_words(self.recipe.adapter)
        spec, device = self.recipe.backbone.spec, self.engine.text_device
        return embed_texts(sorted(needed), spec, self.cache, device, replaced)

    @cached_property
    def model(self) -> Model:
        """The backbone with the recipe's adapters, as they begin; those of a run have their trained
        weights. Raises JtError where it has not left them."""
        recipe, engine = self.recipe, self.engine
        if self.run:
            self._refuse_untrained()
        with self._at_home():
            _, shown = embed_references(recipe, {}, self.cache, engine.device)
            texts, seed = self.texts, recipe.seed
            model = load_model(recipe.backbone, recipe.adapter, texts, engine, seed, shown)
            for name, path in {} if self.run else recipe.initial.items():
                load_initial(Path(path), model.adapters[name])
        for name, adapter in model.adapters.items() if self.run else ():
            load_weights(read_adapter(self._weights(name), self.plugins), adapter)
        model.train(False)
        return model

    def _weights(self, adapter: str) -> Path:
        return self.run / "adapters" / f"{adapter}.safetensors"

    def _refuse_untrained(self) -> None:
        missing = [each for each in self.recipe.adapter if not self._weights(each).is_file()]
        if missing:
            raise JtError(
                f"{self.run}: it has no {self._weights(missing[0]).relative_to(self.run)}; has it"
                " been trained to its end? jt-run --resume goes on with it"
            )


def _found(source: str) -> Path:
    """A recipe. Raises JtError, of a folder with what it is."""
    try:
        return find_recipe(source)
    except JtError:
        if not Path(source).is_dir():
            raise
    if runs := run_folders(Path(source)):
        raise JtError(f"{source}: is the folder of a grid; name one of its runs: {runs[0]}")
    raise JtError(f"{source}: is no folder of a run: it has no {RECIPE}")


def _built(path: Path, settings: Sequence[str], folders: Sequence[str]) -> tuple[Recipe, Plugins]:
    table = changed_table(path, settings, folders)
    if take_grid(table, path) is not None:
        raise JtError(f"{path}: is a grid; name one of its runs, or a recipe")
    return checked(table)
