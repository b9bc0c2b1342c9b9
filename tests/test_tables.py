"""Recipe files are found, read, laid over each other and changed from the command line."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jtcore import JtError
from jtcore.grids.grid import variants
from jtcore.tables import change, find_recipe, overlay, parse_toml, read_table, write_toml


def test_tables_are_laid_over_each_other_key_by_key():
    below = {"a": 1, "b": {"c": 2, "d": {"e": 3}}}
    above = {"b": {"c": 4, "d": {"f": 5}}, "g": 6}

    assert overlay(below, above) == {"a": 1, "b": {"c": 4, "d": {"e": 3, "f": 5}}, "g": 6}


def test_lists_are_replaced_whole():
    assert overlay({"a": [1, 2, 3]}, {"a": [4]}) == {"a": [4]}


def test_a_table_that_changes_its_kind_is_replaced_whole():
    below = {"adapter": {"joint": {"kind": "glora", "rank": 16, "gate_over": "batch"}}}
    above = {"adapter": {"joint": {"kind": "lora", "targets": "visual"}}}

    assert overlay(below, above) == above


def test_an_engine_of_another_kind_keeps_its_options():
    below = {"engine": {"precision": "bf16", "memory": {"checkpoints": "host"}}}
    engine = {"kind": "deepspeed", "deepspeed": {"stage": 2}}

    assert overlay(below, {"engine": engine}) == {"engine": below["engine"] | engine}
    assert change(below, ["engine.kind=ddp"]) == {"engine": below["engine"] | {"kind": "ddp"}}


def test_an_adapter_may_be_called_engine():
    below = {"adapter": {"engine": {"kind": "glora", "rank": 16}}}
    above = {"adapter": {"engine": {"kind": "lora"}}}

    assert overlay(below, above) == above


def test_a_table_that_keeps_its_kind_is_laid_over():
    below = {"kind": "lora", "rank": 16, "targets": "visual"}

    assert overlay(below, {"kind": "lora", "rank": 4}) == below | {"rank": 4}
    assert overlay(below, {"rank": 4}) == below | {"rank": 4}


def test_false_takes_away_what_is_no_boolean_itself():
    below = {"validation": {"data": ["x"]}, "width": 64, "of": [1], "prompt": "a wug", "flip": True}
    above = dict.fromkeys(below, False)

    assert overlay(below, above) == {"flip": False}
    assert overlay({"flip": False}, {"flip": False}) == {"flip": False}


def test_false_is_a_value_where_nothing_is():
    assert overlay({}, {"flip": False}) == {"flip": False}


def test_what_is_laid_over_stays_as_it_was():
    below, above = {"a": {"b": [1]}}, {"a": {"c": [2]}}
    result = overlay(below, above)
    result["a"]["b"].append(3)
    result["a"]["c"].append(3)

    assert (below, above) == ({"a": {"b": [1]}}, {"a": {"c": [2]}})


tables = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
).filter(lambda table: isinstance(table, dict))


@given(table=tables)
def test_a_table_laid_over_itself_or_nothing_is_itself(table):
    assert overlay(table, table) == overlay({}, table) == overlay(table, {}) == table


@given(below=tables, above=tables)
def test_laying_over_twice_changes_nothing_more(below, above):
    once = overlay(below, above)

    assert overlay(once, above) == once


@given(table=tables)
def test_a_written_table_reads_alike(table):
    assert tomllib.loads(write_toml(table)) == table


# --set


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("50", 50),
        ("1e-4", 1e-4),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("{ kind = 'ait' }", {"kind": "ait"}),
        ("'50'", "50"),
        ("visual", "visual"),
        ("transformer_blocks.*.ff", "transformer_blocks.*.ff"),
        ("", ""),
        ("a=b", "a=b"),
        ("1\nseed = 2", "1\nseed = 2"),
    ],
)
def test_a_setting_is_a_toml_value_or_a_bare_word(setting, value):
    assert change({}, [f"x.y={setting}"]) == {"x": {"y": value}}


def test_settings_are_applied_in_order():
    table = {"stage": {"joint": {"steps": 1, "lr": 2}}}
    settings = ["stage.joint.steps=3", "stage.joint.steps = 4", "stage.next.steps=5"]

    assert change(table, settings) == {
        "stage": {"joint": {"steps": 4, "lr": 2}, "next": {"steps": 5}}
    }


def test_a_setting_takes_away_what_an_earlier_one_changed():
    table = {"validation": {"draws": 1}, "seed": 1}

    assert change(table, ["validation.draws=2", "validation=false"]) == {"seed": 1}


@pytest.mark.parametrize("setting", ["steps", "=5", "a..b=5", ".a=5", "a.=5", ""])
def test_a_setting_without_path_or_value_is_refused(setting):
    with pytest.raises(JtError) as caught:
        change({}, [setting])

    said = f"--set {setting!r}: expected PATH=VALUE, such as stage.joint.steps=50"
    assert str(caught.value) == said


# Files


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str):
        path = tmp_path / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_a_recipe_stands_on_its_base_and_that_ones_base(write):
    write("bottom", "seed = 1\ntitle = 'bottom'\nadapter.a.kind = 'lora'\nadapter.b.kind = 'lora'")
    write("folder/middle", "base = '../bottom.toml'\nseed = 2\nadapter.b = false")
    top = write("top", "base = 'folder/middle.toml'\ntitle = 'top'")

    assert read_table(top) == {"seed": 2, "title": "top", "adapter": {"a": {"kind": "lora"}}}


def test_a_shipped_recipe_can_be_a_base(write):
    assert read_table(write("mine", "base = 'jointtuner_pocket'"))["backbone"]["kind"] == "pocket"


def test_recipes_that_stand_on_each_other_are_told(write):
    first = write("first", "base = 'second.toml'")
    second = write("second", "base = 'first.toml'")

    with pytest.raises(JtError) as caught:
        read_table(first)

    assert str(caught.value) == (
        f"{first}: base: {second}: base: {first}: base: recipes stand on each other in a circle:"
        " first.toml -> second.toml -> first.toml"
    )


def test_a_variant_can_stand_on_a_recipe_of_its_own(write):
    write("bottom", "seed = 1\ntitle = 'bottom'")
    write("other", "base = 'bottom.toml'\nseed = 2\nadapter.b.kind = 'lora'")
    first = "[variant.a]\nbase = 'bottom.toml'"
    second = "[variant.b]\nbase = 'other.toml'\nadapter.b.rank = 3"
    grid = write("grid", f"title = 'all'\n{first}\n{second}")

    assert variants(read_table(grid)) == {
        "a": {"seed": 1, "title": "all"},
        "b": {"seed": 2, "title": "all", "adapter": {"b": {"kind": "lora", "rank": 3}}},
    }


@pytest.mark.parametrize(
    ("grid", "problem"),
    [
        (
            "base = 'jointtuner_pocket'\n[variant.a]\nbase = 'lora_wan1.3b'",
            "variant.a.base: the file has a base already; name one or the other",
        ),
        ("[variant.a]\nbase = 3", "variant.a.base: expected the path of a recipe, got 3"),
        ("[variant.a]\nbase = 'nowhere'", "variant.a.base: no such file, nor a shipped recipe"),
    ],
)
def test_a_base_of_a_variant_that_cannot_be_is_told(write, grid, problem):
    path = write("grid", grid)

    with pytest.raises(JtError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_a_variants_base_is_named_in_its_file_alone(write):
    grid = write("grid", "[variant.a]")

    with pytest.raises(JtError) as caught:
        variants(change(read_table(grid), ["variant.a.base=jointtuner_pocket"]))
    assert str(caught.value) == "variant.a.base: can be named in the grid's file alone"


def test_a_base_that_is_nowhere_is_told(write):
    path = write("mine", "base = 'nowhere'")
    with pytest.raises(JtError) as caught:
        read_table(path)

    said = f"{path}: base: no such file, nor a shipped recipe: 'nowhere'; shipped are "
    assert str(caught.value).startswith(said)


def test_a_base_that_is_no_path_is_told(write):
    path = write("mine", "base = 3")
    with pytest.raises(JtError) as caught:
        read_table(path)

    assert str(caught.value) == f"{path}: base: expected the path of a recipe, got 3"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed = ", "Invalid value (at end of document)"),
        ("seed = 1\nseed = 2", "Cannot overwrite a value (at end of document)"),
        ("[a]\n[a]", "Cannot declare ('a',) twice (at line 2, column 3)"),
        (f"seed = {'9' * 5000}", "Exceeds the limit (4300 digits) for integer string conversion"),
    ],
)
def test_what_is_not_toml_is_told_with_the_place(write, text, problem):
    path = write("mine", text)
    with pytest.raises(JtError) as caught:
        parse_toml(path)

    assert str(caught.value).startswith(f"{path}: not valid TOML: {problem}")


def test_what_is_not_utf8_is_told(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"title = 'M\xfcller'")
    with pytest.raises(JtError) as caught:
        parse_toml(path)

    assert str(caught.value).startswith(f"{path}: not valid TOML: 'utf-8' codec can't decode")


@pytest.mark.parametrize("argument", ["x" * 5000, "a\0b", "."])
def test_a_name_that_no_file_can_have_is_told(argument):
    with pytest.raises(JtError) as caught:
        find_recipe(argument)

    said = f"no such file, nor a shipped recipe: {argument!r}; shipped are "
    assert str(caught.value).startswith(said)
