"""What a recipe's parts are, and what its passes cost, measured on the networks themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from attrs import evolve, frozen
from torch import nn

from jtcore.check import placing_problems
from jtcore.errors import JtError
from jtcore.lowbit import linear_layers
from jtcore.planner import networks
from jtcore.planner.networks import META
from jtcore.planner.passes import Machine, codec_pass, parts_of, text_pass
from jtcore.planner.runs import Pass, Runs
from jtcore.recipe import Recipe
from jtcore.types import BackboneSpec, TextNetwork

CODEC_FRAMES = 17  # that codecs are run on; what more frames take is added
CODEC_COPIES = 2  # of those frames' pixels, in float32


@frozen
class Part:
    """A component, or an adapter"""

    parameters: int
    bytes: int  # on a device


@frozen
class Linear:
    """The weight of a linear layer in a block"""

    rows: int
    columns: int
    bytes: int  # of one number

    @property
    def numbers(self) -> int:
        return self.rows * self.columns


@frozen(eq=False)
class Measured:
    """What there is to reckon with"""

    parts: Mapping[str, Part]  # text encoder, codec, denoiser
    adapters: Mapping[str, Part]
    blocks: tuple[int, ...]  # bytes of each
    linears: tuple[Linear, ...]  # of all blocks
    passes: Mapping[str, tuple[Pass, ...]]  # of training, by stage
    block_keeps: int  # bytes, where it is not checkpointed, beside its inputs
    sampling: Pass | None
    decoding: int  # bytes, beside the codec's weights
    encoding: Mapping[str, int]  # the same, by data
    text: int  # bytes, beside the text encoder's weights
    reads_text: bool  # whether the text encoder is beside the denoiser
    trains_blocks: bool  # whether weights of blocks themselves are trained
    text_shape: tuple[int, int]  # L, D


def measure(recipe: Recipe, gpu: bool) -> Measured:
    """Raises JtError."""
    machine = Machine.of(recipe.engine, gpu)
    whole = networks.build(recipe)
    if problems := list(placing_problems(recipe.engine.memory, whole.backbone, whole.adapters)):
        raise JtError(problems)
    text = _text(whole.spec, gpu)
    blocks = list(whole.backbone.blocks().values())
    parts = {"text encoder": _part([text.module])} if text else {}
    parts["codec"] = _part(parts_of(whole.spec.load_codec(META)))
    parts["denoiser"] = _part([whole.backbone.denoiser])
    adapters = {name: _part([adapter]) for name, adapter in whole.adapters.items()}
    shape = (text.tokens, text.width) if text else _text_shape(whole.spec)
    linears = tuple(
        Linear(*layer.weight.shape, layer.weight.element_size())
        for _, layer in linear_layers(whole.backbone)
    )
    reads_text = any(adapter.reads_text for adapter in whole.adapters.values())
    sizes = tuple(networks.size(block.parameters()) for block in blocks)
    runs = Runs(recipe, machine, whole, shape)
    return Measured(
        parts=parts,
        adapters=adapters,
        blocks=sizes,
        linears=linears,
        passes={name: tuple(runs.training(name)) for name in recipe.stage},
        block_keeps=runs.block_keeps(),
        sampling=runs.sampling(),
        decoding=_decoding(recipe, machine, whole.spec),
        encoding=dict(_encoding(recipe, machine, whole.spec)),
        text=text_pass(machine, text.module, text.tokens).highest if text else 0,
        reads_text=reads_text,
        trains_blocks=_trains_blocks(whole),
        text_shape=shape,
    )


def checkpointed(recipe: Recipe, measured: Measured, gpu: bool) -> tuple[Recipe, Measured] | None:
    """A recipe with gradient checkpointing and what is measured then; None where it has it, or
    could not."""
    if recipe.engine.gradient_checkpointing:
        return None
    engine = evolve(recipe.engine, gradient_checkpointing=True)
    recipe = evolve(recipe, engine=engine)
    try:
        whole = networks.build(recipe)
    except JtError:
        return None
    runs = Runs(recipe, Machine.of(engine, gpu), whole, measured.text_shape)
    passes = {name: tuple(runs.training(name)) for name in recipe.stage}
    return recipe, evolve(measured, passes=passes, block_keeps=runs.block_keeps())


def _trains_blocks(whole: networks.Network) -> bool:
    replaced = {name for adapter in whole.adapters.values() for name in adapter.replaced()}
    blocks = whole.backbone.blocks()
    return any(f"{name}.".startswith(f"{block}.") for name in replaced for block in blocks)


def _part(modules: Iterable[nn.Module]) -> Part:
    modules = list(modules)
    parameters = {id(each): each for module in modules for each in module.parameters()}
    tensors = (each for module in modules for each in networks.weights(module))
    return Part(sum(each.numel() for each in parameters.values()), networks.size(tensors))


def _text(spec: BackboneSpec, gpu: bool) -> TextNetwork | None:
    """None where the backbone does not say."""
    found = getattr(spec, "text_network", None)
    return found and found("cuda" if gpu else "cpu")


def _text_shape(spec: BackboneSpec) -> tuple[int, int]:
    """L and D, of an embedding."""
    return tuple(spec.load_text_encoder(torch.device("cpu")).embed([""]).shape[1:])


def _decoding(recipe: Recipe, machine: Machine, spec: BackboneSpec) -> int:
    """Bytes beside the codec's weights at the most, for one video."""
    if recipe.sample is None:
        return 0
    frames, few = recipe.sample.frames, _few(recipe.sample.frames)
    shape = (1, *spec.latent_shape(few, *recipe.sample.size))
    found = codec_pass(machine, spec.load_codec(META), shape, decode=True).highest
    return found + _more(frames - few, recipe.sample.size)


def _encoding(recipe: Recipe, machine: Machine, spec: BackboneSpec) -> Iterator[tuple[str, int]]:
    """The same of each table of data, for one clip."""
    known: dict[tuple[int, ...], int] = {}
    for name, data in recipe.used_data.items():
        few = _few(data.frames)
        shape = (1, 3, few, *data.size)
        if shape not in known:
            found = codec_pass(machine, spec.load_codec(META), shape, decode=False)
            known[shape] = found.highest
        yield name, known[shape] + _more(data.frames - few, data.size)


def _few(frames: int) -> int:
    return min(frames, CODEC_FRAMES)


def _more(frames: int, size: tuple[int, int]) -> int:
    """Bytes for more frames than the codec is run on."""
    return CODEC_COPIES * 4 * 3 * frames * size[0] * size[1]
