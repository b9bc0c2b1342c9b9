"""Tables become classes strictly, and every problem is told with its place, all at once."""

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from attrs import Factory, field, frozen
from attrs.validators import ge, gt, optional
from hypothesis import given
from hypothesis import strategies as st

from jtcore import JtError
from jtcore.structure import Component, component, structure, structure_component, unstructure


@frozen
class Inner:
    number: int = field(default=1, validator=gt(0))
    name: str = "x"


@frozen
class Term:
    loss: Component = component("losses", inline=True)
    weight: float = field(default=1.0, validator=ge(0))


@frozen
class Outer:
    number: int
    share: float = 0.5
    flag: bool = False
    name: str = "x"
    mode: Literal["fast", "exact"] = "fast"
    pair: tuple[int, int] = (1, 2)
    words: tuple[str, ...] = ()
    limit: float | None = field(default=None, validator=optional(gt(0)))
    inner: Inner = Inner()
    spare: Inner | None = None
    inners: Mapping[str, Inner] = Factory(dict)
    adapters: Mapping[str, Component] = component("adapters", factory=dict)
    terms: Mapping[str, Term] = Factory(dict)
    queries: str | tuple[str, ...] = ()
    options: Mapping[str, Any] = Factory(dict)


def problems(table: Any, plugins) -> tuple[str, ...]:
    with pytest.raises(JtError) as caught:
        structure(Outer, table, plugins)
    return caught.value.problems


LORA = {"kind": "lora", "targets": "visual"}
PROBLEMS = [
    ({}, "number: missing"),
    ({"number": True}, "number: expected int, got True (bool)"),
    ({"number": "8"}, "number: expected int, got '8' (str)"),
    ({"number": 8.0}, "number: expected int, got 8.0 (float)"),
    ({"number": [8]}, "number: expected int, got [8] (list)"),
    ({"number": {"a": 8}}, "number: expected int, got a table"),
    ({"queries": 3}, "queries: expected str, got 3 (int)"),
    ({"queries": ["a", 3]}, "queries[1]: expected str, got 3 (int)"),
    ({"options": 3}, "options: expected a table, got 3 (int)"),
    (
        {"options": {"a": None}},
        "options.a: expected a number, text, list or table, got None (NoneType)",
    ),
    (
        {"options": {"a": [{"b": float("inf")}]}},
        "options.a[0].b: expected a finite number, got inf",
    ),
    ({"share": True}, "share: expected float, got True (bool)"),
    ({"share": "0.5"}, "share: expected float, got '0.5' (str)"),
    ({"share": float("nan")}, "share: expected a finite number, got nan"),
    ({"share": float("-inf")}, "share: expected a finite number, got -inf"),
    (
        {"share": 10**400},
        f"share: expected a number of at most 64 bits, got {hex(10**400)[:57]}... (int)",
    ),
    ({"number": 2**63}, f"number: expected a number of at most 64 bits, got {hex(2**63)} (int)"),
    ({"flag": 1}, "flag: expected bool, got 1 (int)"),
    ({"flag": "true"}, "flag: expected bool, got 'true' (str)"),
    ({"name": 3}, "name: expected str, got 3 (int)"),
    ({"name": ["x" * 80]}, f"name: expected str, got ['{'x' * 55}... (list)"),
    ({"mode": "fats"}, "mode: expected 'fast' or 'exact', got 'fats' (str); did you mean 'fast'?"),
    ({"mode": 1}, "mode: expected 'fast' or 'exact', got 1 (int)"),
    (
        {"mode": ["fast"]},
        "mode: expected 'fast' or 'exact', got ['fast'] (list); did you mean 'fast'?",
    ),
    ({"pair": 3}, "pair: expected a list, got 3 (int)"),
    ({"pair": [1]}, "pair: expected 2 values, got 1"),
    ({"pair": [1, 2, 3]}, "pair: expected 2 values, got 3"),
    ({"pair": [1, "2"]}, "pair[1]: expected int, got '2' (str)"),
    ({"words": "many"}, "words: expected a list, got 'many' (str)"),
    ({"words": ["a", 2]}, "words[1]: expected str, got 2 (int)"),
    ({"limit": 0.0}, "limit: must be > 0: 0.0"),
    ({"limit": "none"}, "limit: expected float, got 'none' (str)"),
    ({"inner": 3}, "inner: expected a table, got 3 (int)"),
    ({"inner": {"nam": "y"}}, "inner.nam: unknown key; did you mean 'name'?"),
    ({"inner": {"number": 0}}, "inner.number: must be > 0: 0"),
    ({"spare": {"number": "x"}}, "spare.number: expected int, got 'x' (str)"),
    ({"inners": [1]}, "inners: expected a table, got [1] (list)"),
    ({"inners": {"a": 1}}, "inners.a: expected a table, got 1 (int)"),
    (
        {"inners": {"a/b": {}}},
        "inners: the name 'a/b' may only have letters, digits, _ and -",
    ),
    ({"inners": {"": {}}}, "inners: the name '' may only have letters, digits, _ and -"),
    ({"qqq": 1}, "qqq: unknown key"),
    ({"adapters": {"a": 1}}, "adapters.a: expected a table with a kind, got 1 (int)"),
    ({"adapters": {"a": {}}}, "adapters.a.kind: missing"),
    ({"adapters": {"a": {"kind": 3}}}, "adapters.a.kind: expected str, got 3 (int)"),
    (
        {"adapters": {"a": {"kind": "lorra"}}},
        "adapters.a.kind: unknown adapter 'lorra'; did you mean 'lora'?",
    ),
    ({"adapters": {"a": {"kind": "lora"}}}, "adapters.a.targets: missing"),
    ({"adapters": {"a": LORA | {"rank": "8"}}}, "adapters.a.rank: expected int, got '8' (str)"),
    ({"adapters": {"a": LORA | {"rank": 0}}}, "adapters.a.rank: must be > 0: 0"),
    (
        {"adapters": {"a": LORA | {"rnak": 8}}},
        "adapters.a.rnak: unknown key; did you mean 'rank'?",
    ),
    ({"terms": {"a": {"kind": "ait", "sdt": 2}}}, "terms.a.sdt: unknown key; did you mean 'std'?"),
    (
        {"terms": {"a": {"kind": "ait", "wieght": 2}}},
        "terms.a.wieght: unknown key; did you mean 'weight'?",
    ),
    ({"terms": {"a": {"kind": "ait", "weight": -1}}}, "terms.a.weight: must be >= 0: -1.0"),
]


@pytest.mark.parametrize(("table", "problem"), PROBLEMS, ids=[p for _, p in PROBLEMS])
def test_a_problem_is_told_with_its_place(plugins, table, problem):
    given = table if "missing" in problem and not table else {"number": 1} | table
    assert problems(given, plugins) == (problem,)


def test_all_problems_are_told_at_once(plugins):
    table = {
        "number": "1",
        "share": 2,
        "flagg": True,
        "pair": [1.0, 2.0],
        "inner": {"number": -1, "nam": "y"},
        "adapters": {"a": {"kind": "lora", "rank": -1}, "b": {"kind": "nothing"}},
    }
    told = problems(table, plugins)

    known = ", ".join(sorted(plugins.families["adapters"]))
    assert sorted(told) == sorted(
        [
            "number: expected int, got '1' (str)",
            "pair[0]: expected int, got 1.0 (float)",
            "pair[1]: expected int, got 2.0 (float)",
            "inner.nam: unknown key; did you mean 'name'?",
            "inner.number: must be > 0: -1",
            "adapters.a.targets: missing",
            "adapters.a.rank: must be > 0: -1",
            f"adapters.b.kind: unknown adapter 'nothing'; there are {known}",
            "flagg: unknown key; did you mean 'flag'?",
        ]
    )


def test_a_whole_number_will_do_where_a_float_is_wanted(plugins):
    share = structure(Outer, {"number": 1, "share": 2}, plugins).share
    assert (type(share), share) == (float, 2.0)


def test_a_class_that_checks_across_its_fields_is_heard(plugins):
    @frozen
    class Both:
        one: int = 0
        other: int = 0

        def __attrs_post_init__(self):
            if self.one and self.other:
                raise ValueError("expected one or other, got both")

    with pytest.raises(JtError) as caught:
        structure(Both, {"one": 1, "other": 1}, plugins)

    assert str(caught.value) == "recipe: expected one or other, got both"


def test_one_or_several_are_told_apart_and_come_back_as_they_were(plugins):
    for said, built in (("a", "a"), (["a", "b"], ("a", "b")), ([], ())):
        outer = structure(Outer, {"number": 1, "queries": said}, plugins)
        assert outer.queries == built
        assert unstructure(outer)["queries"] == said


def test_a_table_of_whatever_there_is_comes_back_as_it_was(plugins):
    said = {"a": [1, 2.5, "x", [True]], "c": {"d.*": "e"}}
    outer = structure(Outer, {"number": 1, "options": said}, plugins)
    assert outer.options == {"a": (1, 2.5, "x", (True,)), "c": {"d.*": "e"}}
    assert unstructure(outer)["options"] == said


def test_the_table_is_left_as_it_was(plugins):
    table = {"number": 1, "terms": {"a": {"kind": "ait"}}, "inner": {"number": 2}}
    structure(Outer, table, plugins)

    assert table == {"number": 1, "terms": {"a": {"kind": "ait"}}, "inner": {"number": 2}}


def test_a_component_alone_is_built_like_one_in_a_recipe(plugins):
    with pytest.raises(JtError) as caught:
        structure_component("losses", {"kind": "ait", "std": -1}, plugins)

    assert str(caught.value) == "losses.std: must be >= 0: -1.0"


names = st.from_regex(r"[a-z]{1,4}", fullmatch=True)
numbers = st.floats(allow_nan=False, allow_infinity=False)
inner_tables = st.fixed_dictionaries({}, optional={"number": st.integers(1, 9), "name": st.text()})
tables = st.fixed_dictionaries(
    {"number": st.integers(-(2**63), 2**63 - 1)},
    optional={
        "share": numbers | st.integers(-(10**9), 10**9),
        "flag": st.booleans(),
        "mode": st.sampled_from(["fast", "exact"]),
        "pair": st.lists(st.integers(0, 9), min_size=2, max_size=2),
        "words": st.lists(st.text()),
        "limit": st.floats(0.1, 9),
        "inner": inner_tables,
        "spare": inner_tables,
        "inners": st.dictionaries(names, inner_tables, max_size=2),
        "adapters": st.dictionaries(
            names,
            st.fixed_dictionaries(
                {"kind": st.sampled_from(["lora", "glora"]), "targets": st.text()},
                optional={"rank": st.integers(1, 99)},
            ),
            max_size=2,
        ),
        "terms": st.dictionaries(
            names,
            st.fixed_dictionaries(
                {"kind": st.just("ait")}, optional={"std": st.just(2), "weight": st.just(0.5)}
            ),
            max_size=2,
        ),
    },
)


@given(table=tables)
def test_a_table_that_is_resolved_resolves_to_itself(plugins, table):
    resolved = unstructure(structure(Outer, table, plugins))

    assert unstructure(structure(Outer, resolved, plugins)) == resolved


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(
    table=st.dictionaries(
        st.sampled_from(["number", "share", "mode", "pair", "inner", "inners", "adapters", "terms"])
        | st.text(max_size=4),
        anything,
    )
)
def test_any_table_is_built_or_refused_with_a_place(plugins, table):
    try:
        structure(Outer, table, plugins)
    except JtError as error:
        assert all(": " in problem for problem in error.problems)
