"""Layers of the peft library, beside linears that it does not own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from jtcore import JtError
from jtcore.near import did_you_mean

from ._linear import place

if TYPE_CHECKING:  # importing peft costs seconds
    from peft import PeftConfig

NAME = "default"  # peft's, of the one adapter in each of its layers
METHODS: Mapping[str, Mapping[str, Any]] = {  # peft's types, and what is always asked of them
    "lora": {"peft_type": "LORA"},
    "dora": {"peft_type": "LORA", "use_dora": True},
    "loha": {"peft_type": "LOHA"},
    "lokr": {"peft_type": "LOKR"},
    "oft": {"peft_type": "OFT"},
    "vera": {"peft_type": "VERA"},
    "ia3": {"peft_type": "IA3", "feedforward_modules": []},
    "miss": {"peft_type": "MISS"},
    "delora": {"peft_type": "DELORA"},
    "gralora": {"peft_type": "GRALORA"},
    "road": {"peft_type": "ROAD"},
}
OF_WEIGHTS = ("dora", "oft", "ia3", "road")  # methods whose update is made of the linear's weights
NOT_OPTIONS = {  # of peft's, what is said elsewhere, or changes what is not the adapter's
    *("target_modules", "exclude_modules", "target_parameters", "layers_to_transform"),
    *("layers_pattern", "modules_to_save", "layer_replication", "trainable_token_indices"),
    *("task_type", "peft_type", "auto_mapping", "peft_version", "inference_mode", "revision"),
    *("base_model_name_or_path", "bias", "fan_in_fan_out", "loftq_config", "eva_config"),
    *("corda_config", "lora_ga_config", "megatron_config", "megatron_core", "runtime_config"),
    *("save_projection", "ensure_weight_tying", "feedforward_modules", "use_dora"),
}
DRAWN = (True, False, "gaussian", "orthogonal")  # other ways to begin change the linear's weights


class Shell(nn.Linear):
    """A linear of the denoiser as peft sees it: with its weights, and without its hooks.

    It owns nothing. While layers are built it tells of its weights in float32, in which peft then
    makes its own.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.linear = (linear,)  # a tuple, for the denoiser's modules are none of this one's
        self.building = True

    @property
    def weight(self) -> Tensor:  # (out, in)
        return self._told(self.linear[0].weight)

    @property
    def bias(self) -> Tensor | None:  # (out,)
        bias = self.linear[0].bias
        return None if bias is None else self._told(bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, ..., in) -> (N, ..., out)
        return self.linear[0].forward(x)  # which knows best how its weight is stored

    def _told(self, weight: Tensor) -> Tensor:
        return weight.detach().float() if self.building else weight


def build_layers(
    targets: Mapping[str, nn.Linear], method: str, options: Mapping[str, Any]
) -> dict[str, nn.Module]:
    """A layer of peft around each linear, by name, with weights from the global CPU generator; on
    "meta" nothing is drawn. Raises JtError where peft refuses."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    config = make_config(method, options)
    config.target_modules = set(targets)
    shells = {name: Shell(linear) for name, linear in targets.items()}
    weight = next(iter(shells.values())).weight
    tree = nn.Module()
    tree.register_parameter("witness", nn.Parameter(weight[:0], False))  # of device and dtype
    for name, shell in shells.items():
        place(tree, name, shell)
    with torch.random.fork_rng(devices=[], enabled=weight.is_meta), _refusals(method):
        tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        tuner(tree, config, NAME, low_cpu_mem_usage=weight.is_meta)
    for shell in shells.values():
        shell.building = False
    return {name: tree.get_submodule(name) for name in targets}


def make_config(method: str, options: Mapping[str, Any]) -> PeftConfig:
    """peft's configuration of a method. Raises JtError where peft refuses."""
    always = dict(METHODS[method])
    cls = _config_class(always.pop("peft_type"))
    with _refusals(method):
        config = cls(**always, **options)
    if hasattr(config, "save_projection"):
        config.save_projection = False  # one for all layers, it would be in a file once for each
    return config


@contextmanager
def _refusals(method: str) -> Iterator[None]:
    """What peft refuses, or warns that it does otherwise, is a JtError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield
    except (ValueError, TypeError, ImportError, UserWarning) as error:
        raise JtError(f"options: peft's {method}: {error}") from error


def option_problems(method: str, options: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the options of a method, by peft's own names and types."""
    cls = _config_class(METHODS[method]["peft_type"])
    hints = get_type_hints(cls)
    known = {field.name for field in fields(cls) if field.init} - NOT_OPTIONS
    for name, value in options.items():
        if name in NOT_OPTIONS and name in hints:
            yield f"{name} is not for the recipe to say: `targets` and `method` say where and what"
        elif name not in known:
            yield f"peft's {cls.__name__} has no {name!r}; {did_you_mean(name, known)}"
        elif not _is_of(hints[name], value):
            yield f"{name}: expected {_shown(hints[name])}, got {value!r}"
        elif name.startswith("init_") and value not in DRAWN:
            yield f"{name}: {value!r} changes the denoiser's own weights; take one of {DRAWN}"


def _config_class(peft_type: str) -> type[PeftConfig]:
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError as error:
        raise JtError("needs peft: pip install 'jtcore[peft]'") from error
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]


def _is_of(hint: Any, value: Any) -> bool:
    """Whether a value of TOML is of the hinted type, as far as can be told."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_of(each, value) for each in arguments)
    if origin is Literal:
        return value in arguments
    if hint is float:
        return type(value) in (int, float)
    if hint in (bool, int, str):
        return type(value) is hint
    if origin in (list, tuple, set):
        return isinstance(value, list | tuple)
    if origin is dict:
        return isinstance(value, Mapping)
    return hint is not type(None)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
