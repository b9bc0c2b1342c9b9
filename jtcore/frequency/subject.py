"""What is looked into: the clips of a recipe as a backbone's codec and schedule have them, and its
model, new or as a run left it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from jtcore.artifact import load_weights, read_adapter
from jtcore.cache import Cache, cache_folder
from jtcore.data import captions
from jtcore.engine import Engine
from jtcore.errors import JtError
from jtcore.grids.grid import take_grid
from jtcore.launch import changed_table
from jtcore.model import Model, load_model
from jtcore.plugins import Plugins
from jtcore.proceed import checked
from jtcore.reading import replaced_words
from jtcore.recipe import Recipe, Sampling
from jtcore.stream import Stream, embed_texts, load_stream
from jtcore.tables import find_recipe
from jtcore.types import Backbone


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
        then as they were trained. Raises JtError."""
        self.run = Path(source) if (Path(source) / "recipe.resolved.toml").is_file() else None
        path = self.run / "recipe.resolved.toml" if self.run else find_recipe(source)
        self.recipe, self.plugins = _built(path, settings, folders)
        self.say = say
        self.engine = Engine(self.recipe.engine)
        self.cache = Cache(cache_folder())

    @cached_property
    def schedule(self) -> Backbone:
        """The backbone without weights: its levels of noise, and the names of its parts."""
        return self.recipe.backbone.spec.load(torch.device("meta"), torch.float32)

    def stream(self, name: str) -> Stream:
        """The clips of `[data.NAME]`, encoded. Raises JtError where there is no such table."""
        if name not in self.recipe.data:
            known = ", ".join(self.recipe.data)
            raise JtError(f"data.{name}: there is no such table; this recipe has {known}")
        data, spec = self.recipe.data[name], self.recipe.backbone.spec
        return load_stream(name, data, spec, self.cache, self.engine.device, self.say)

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
    def texts(self) -> Mapping[str, Tensor]:  # caption -> (L, D)
        """Every caption of the recipe's, embedded."""
        needed = {c for data in self.recipe.used_data.values() for c in captions(data)} | {""}
        needed |= {*self.recipe.sample.captions} if self.recipe.sample else set()
        replaced = replaced_words(self.recipe.adapter)
        spec, device = self.recipe.backbone.spec, self.engine.text_device
        return embed_texts(sorted(needed), spec, self.cache, device, replaced)

    @cached_property
    def model(self) -> Model:
        """The backbone with the recipe's adapters; those of a run have their trained weights."""
        recipe, engine = self.recipe, self.engine
        model = load_model(recipe.backbone, recipe.adapter, self.texts, engine, recipe.seed)
        if self.run:
            for name, adapter in model.adapters.items():
                path = self.run / "adapters" / f"{name}.safetensors"
                load_weights(read_adapter(path, self.plugins), adapter)
        model.train(False)
        return model


def _built(path: Path, settings: Sequence[str], folders: Sequence[str]) -> tuple[Recipe, Plugins]:
    table = changed_table(path, settings, folders)
    if take_grid(table, path) is not None:
        raise JtError(f"{path}: is a grid; name one of its runs, or a recipe")
    return checked(table)
