"""What varies: every combination, with names that stay, and recipes that are what they say."""

from pathlib import Path

import pytest

from jtcore import JtError
from jtcore.grids.axes import LONGEST
from jtcore.grids.grid import take_grid

TASK = {
    "data": {"subject": {"source": "data/{subject}_{motion}/subject"}},
    "sample": {"prompts": ["a {subject}", "no {word}"]},
}


def declared(**table):
    return take_grid(table, Path("it.toml"))


def folders(**table) -> list[str]:
    return [trial.folder for trial in declared(**table).grid.trials]


def recipes(**table) -> dict[str, dict]:
    found = declared(**table)
    return {trial.folder: found.recipe(trial) for trial in found.grid.trials}


def problem(**table) -> str:
    with pytest.raises(JtError) as caught:
        declared(**table)
    return str(caught.value)


def test_axes_variants_and_seeds_are_multiplied():
    axes = {"subject": ["dog", "cat"], "motion": ["runs"]}
    found = declared(**TASK, axes=axes, variant={"a": {}, "b": {}}, seeds=[3, 1])

    assert [trial.folder for trial in found.grid.trials] == [
        "a-dog-runs-seed3",
        "b-dog-runs-seed3",
        "a-cat-runs-seed3",
        "b-cat-runs-seed3",
        "a-dog-runs-seed1",
        "b-dog-runs-seed1",
        "a-cat-runs-seed1",
        "b-cat-runs-seed1",
    ]
    first = found.grid.trials[0]
    assert first.point == {"variant": "a", "subject": "dog", "motion": "runs", "seed": 3}
    assert list(first.point) == list(found.grid.axes) == ["variant", "subject", "motion", "seed"]


def test_a_word_stands_for_its_level_in_every_text():
    made = recipes(**TASK, axes={"subject": ["dog", "cat"], "motion": ["runs"]})

    assert made["cat-runs"] == {
        "data": {"subject": {"source": "data/cat_runs/subject"}},
        "sample": {"prompts": ["a cat", "no {word}"]},
    }


def test_a_word_reaches_what_variants_and_levels_write():
    made = recipes(
        title="of {size}",
        axes={"size": [2, 0.5], "way": {"up": {"note": "up to {size}"}}},
        variant={"a": {"of": ["{size} px"]}},
    )
    assert made["a-size0.5-up"] == {"title": "of 0.5", "note": "up to 0.5", "of": ["0.5 px"]}


def test_a_path_sets_its_option_over_what_variants_say():
    made = recipes(
        stage={"joint": {"lr": 1, "steps": 3}},
        axes={"stage.joint.lr": [1e-3, 2e-05]},
        variant={"a": {"stage": {"joint": {"lr": 5}}}},
    )
    assert made == {
        "a-lr0.001": {"stage": {"joint": {"lr": 1e-3, "steps": 3}}},
        "a-lr2e-05": {"stage": {"joint": {"lr": 2e-05, "steps": 3}}},
    }


def test_a_path_needs_no_quotes():
    quoted = recipes(axes={"stage.joint.lr": [1, 2]})
    assert recipes(axes={"stage": {"joint": {"lr": [1, 2]}}}) == quoted


def test_named_levels_are_laid_over_the_recipe():
    made = recipes(
        adapter={"joint": {"kind": "glora", "rank": 4}},
        axes={"way": {"plain": {}, "lora": {"adapter": {"joint": {"kind": "lora"}}}}},
    )
    assert made["plain"]["adapter"]["joint"] == {"kind": "glora", "rank": 4}
    assert made["lora"]["adapter"]["joint"] == {"kind": "lora"}


def test_named_levels_may_say_words_too():
    made = recipes(
        sample={"prompts": ["a {kind} {doing}"]},
        axes={
            "subject": {
                "rex": {"words": {"kind": "dog"}, "data": {"subject": {"prompt": "a {kind}"}}},
                "tom": {"words": {"kind": "cat"}},
            },
            "motion": {
                "a": {"words": {"doing": "walking"}},
                "b": {"words": {"doing": "walking"}},  # two levels may say the same
            },
        },
    )
    assert made["rex-a"] == {
        "sample": {"prompts": ["a dog walking"]},
        "data": {"subject": {"prompt": "a dog"}},
    }
    assert made["tom-b"] == {"sample": {"prompts": ["a cat walking"]}}


@pytest.mark.parametrize(
    ("levels", "told"),
    [
        (
            {"a": {"words": {"kind": "dog"}}, "b": {}},
            "axes.way.b.words: lacks 'kind', which other levels have",
        ),
        (
            {"a": {"words": "dog"}},
            "axes.way.a.words: expected texts, such as words.kind = 'dog', got 'dog'",
        ),
        (
            {"a": {"words": {"kind": 3}}},
            "axes.way.a.words: expected texts, such as words.kind = 'dog', got {'kind': 3}",
        ),
        (
            {"a": {"words": {"knid": "dog"}}},
            "axes.way: no text of the recipe has {knid} in it; an option is named by its whole"
            " path, such as stage.joint.lr",
        ),
    ],
)
def test_words_that_a_recipe_would_keep_are_told(levels, told):
    assert problem(title="a {kind}", axes={"way": levels}) == told


def test_a_word_is_of_one_axis():
    axes = {"kind": ["dog"], "way": {"a": {"words": {"kind": "cat"}}}}
    assert problem(title="a {kind}", axes=axes) == (
        "axes.way: axes.kind says what {kind} stands for already"
    )


@pytest.mark.parametrize(
    ("axes", "names"),
    [
        ({"stage.joint.steps": [10]}, ["steps10"]),
        ({"stage.joint.beta1": [0.9]}, ["beta1_0.9"]),
        ({"stage.joint.schedule": ["cosine"]}, ["schedule_cosine"]),
        ({"engine.tf32": [True, False]}, ["tf32_true", "tf32_false"]),
        ({"data.motion.size": [[24, 24]]}, ["size_24x24"]),
        ({"adapter.a.rank": [1], "adapter.b.rank": [2]}, ["a_rank1-b_rank2"]),
        ({"word": ["toy car", "toy/car", "-1"]}, ["toy_car", "toy_car_00fa8c", "-1"]),
    ],
)
def test_folders_have_readable_names(axes, names):
    assert folders(title="{word}", axes=axes) == names


def test_levels_whose_names_would_be_one_are_told_apart():
    one, other, third = folders(title="{word}", axes={"word": ["a b", "A_b", "c"]})
    assert third == "c" and one != other
    assert one.startswith("a_b_") and other.startswith("A_b_")
    assert folders(title="{word}", axes={"word": ["c", "a b", "A_b", "d"]})[1] == one


def test_names_stay_when_levels_come_and_go():
    few = folders(title="{word}", axes={"word": ["a"], "stage.joint.lr": [1e-3]})
    more = folders(title="{word}", axes={"word": ["b", "a"], "stage.joint.lr": [1, 1e-3]})
    assert set(few) < set(more)


def test_long_names_are_cut_and_stay_apart():
    levels = ["x" * 200 + end for end in "ab"]  # too long for a file system
    one, other = folders(title="{word}", axes={"word": levels})
    assert len(one) == len(other) == LONGEST and one != other


def test_axes_that_are_zipped_move_together():
    axes = {"subject": ["dog", "cat"], "class": ["animal", "pet"], "zip": [["subject", "class"]]}
    found = declared(title="{subject} {class}", axes=axes | {"stage.joint.lr": [1, 2]})

    assert [trial.folder for trial in found.grid.trials] == [
        *("dog-lr1", "cat-lr1"),
        *("dog-lr2", "cat-lr2"),
    ]
    assert found.recipe(found.grid.trials[1])["title"] == "cat pet"
    assert found.grid.zipped == (("subject", "class"),)


def test_what_is_excluded_is_left_out():
    axes = {"word": ["a", "b"], "exclude": [{"variant": "y", "word": "b"}, {"seed": [1, 2]}]}
    found = folders(title="{word}", axes=axes, variant={"x": {}, "y": {}}, seeds=[0, 1, 2])
    assert found == ["x-a-seed0", "y-a-seed0", "x-b-seed0"]


def test_the_reference_is_the_first_level_unless_another_is_named():
    table = {"title": "{word}", "axes": {"word": ["a", "b"]}, "variant": {"x": {}, "y": {}}}
    assert declared(**table, seeds=[1]).grid.reference == {"variant": "x", "word": "a"}
    assert declared(**table, reference="y").grid.reference == {"variant": "y", "word": "a"}
    named = declared(**table, reference={"word": "b"}).grid.reference
    assert named == {"variant": "x", "word": "b"}


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        (3, "axes: expected a table of axes, such as subject = ['dog', 'cat']"),
        ({"word": 3}, "axes.word: expected a list of levels, got 3"),
        ({"word": []}, "axes.word: expected a list of levels, got []"),
        ({"word": ["a", "a"]}, "axes.word: 'a' stands there twice"),
        ({"word": [["a"]]}, "axes.word: expected texts or numbers, got ['a']"),
        (
            {"w.rd": ["a"]},
            "axes.w.rd: expected the path of an option, such as stage.joint.lr, or a",
        ),
        ({"variant": ["a"]}, "axes.variant: variants are tables [variant.NAME]"),
        ({"way": {}}, "axes.way: expected tables [axes.way.NAME]"),
        ({"way": {"a": 3}}, "axes.way.a: expected a table"),
        ({"way": {"a/b": {}}}, "axes.way: the name 'a/b' may only have letters, digits, _ and -"),
        (
            {"lr": [1e-3]},
            "axes.lr: no text of the recipe has {lr} in it; an option is named by its whole path,"
            " such as stage.joint.lr",
        ),
        (
            {"word": ["a"], "zip": ["word"]},
            "axes.zip: expected lists of axes, such as [['a', 'b']]",
        ),
        (
            {"word": ["a"], "zip": [["word", "wrod"]]},
            "axes.zip: no axis is called 'wrod'; did you mean 'word'?",
        ),
        (
            {"word": ["a"], "stage.joint.lr": [1, 2], "zip": [["word", "stage.joint.lr"]]},
            "axes.zip: axes that move together have as many levels; these have word 1,"
            " stage.joint.lr 2",
        ),
        ({"word": ["a"], "exclude": 3}, "axes.exclude: expected tables of axis = level, got 3"),
        (
            {"word": ["a", "b"], "exclude": [{"word": "c"}]},
            "axes.exclude: word has no level 'c'; it has a, b",
        ),
        ({"word": ["a"], "exclude": [{"word": "a"}]}, "axes.exclude: leaves no run"),
    ],
)
def test_what_is_no_axis_is_told(axes, told):
    assert problem(title="{word}", axes=axes).startswith(told)


def test_what_excludes_nothing_is_told():
    axes = {"a": [1, 2], "b": [1, 2], "zip": [["a", "b"]], "exclude": [{"a": 1, "b": 2}]}
    assert problem(title="{a}{b}", axes=axes) == "axes.exclude: nothing is {'a': 1, 'b': 2}"


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        (3, "reference: expected a variant, or a table of axis = level, got 3"),
        ("z", "reference: variant has no level 'z'; it has x"),
        ({"seed": 1}, "reference: no axis is called 'seed'; there are variant"),
    ],
)
def test_what_is_no_reference_is_told(reference, told):
    assert problem(variant={"x": {}}, seeds=[1], reference=reference) == told


def test_what_is_of_grids_is_refused_in_a_recipe():
    assert problem(launch={"kind": "local"}) == (
        "launch: is of grids, which have [variant.NAME] or [axes]"
    )


def test_a_recipe_is_no_grid():
    assert declared(title="it") is None
