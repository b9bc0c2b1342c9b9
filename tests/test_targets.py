"""Which modules roles and patterns choose."""

import pytest
from torch import nn

from jtcore import JtError
from jtcore.targets import match_targets

ROLES = {"first": ("a.*",), "both": ("a.0", "b")}


def build() -> nn.Module:
    return nn.ModuleDict({"a": nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "b": nn.Linear(1, 1)})


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("first", ["a.0", "a.1"]),
        ("a.1", ["a.1"]),
        (("b", "first"), None),
        (("both", "first", "a.*"), ["a.0", "a.1", "b"]),
        (("*b", "a.0"), ["a.0", "b"]),
        ("all", [""]),
    ],
)
def test_modules_are_those_that_any_query_matches_each_once_in_the_network_s_order(query, names):
    network = build()
    if names is None:
        with pytest.raises(JtError, match="unknown target role 'b'; "):
            match_targets(network, ROLES, query)
        return
    found = match_targets(network, ROLES, query)
    assert list(found) == names
    assert all(module is network.get_submodule(name) for name, module in found.items())


def test_a_role_of_the_backbone_called_all_is_the_backbone_s():
    assert list(match_targets(build(), {"all": ("*b",)}, "all")) == ["b"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("frist", "unknown target role 'frist'; did you mean 'first'?"),
        (("first", "c.*"), "'c.*' matched no module of ModuleDict"),
        ((), "expected a role or pattern of modules, or several; got none"),
    ],
)
def test_a_query_that_matches_nothing_is_told(query, told):
    with pytest.raises(JtError) as caught:
        match_targets(build(), ROLES, query)
    assert str(caught.value) == told
