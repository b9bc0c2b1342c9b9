"""What mattered is what pairs of runs tell from nothing, with all tests of an axis counted."""

import numpy as np
import pytest
from grid_folders import draw_grid
from scipy import stats

from jtcore.grids.effects import all_effects, statements
from jtcore.grids.grid import read_grid
from jtcore.grids.readings import read_runs

RNG = np.random.default_rng(3)
NOISE = RNG.normal(size=(3, 4, 2, 3)) * 0.005  # variant, subject, measure, seed
AXES = {"variant": ["full", "no_ait", "no_gate"], "subject": list("abcd"), "seed": [0, 1, 2]}
SHIFT = {"no_ait": {"motion": -0.05, "look": 0.0}}


def value(point, number: str) -> float:
    at = [AXES[axis].index(point[axis]) for axis in ("variant", "subject", "seed")]
    noise = NOISE[at[0], at[1], ["motion", "look"].index(number), at[2]]
    return 0.5 + at[1] * 0.1 + noise + SHIFT.get(point["variant"], {}).get(number, 0.0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = draw_grid(
        tmp_path_factory.mktemp("grids") / "grid",
        AXES,
        lambda point: {name: value(point, name) for name in ("motion", "look")},
    )
    return effects_of(folder)


def effects_of(folder):
    grid = read_grid(folder)
    return {each.factor.name: each for each in all_effects(grid, read_runs(folder, grid))}


def values(variant: str, number: str):  # (subjects, seeds)
    points = [[{"variant": variant, "subject": s, "seed": r} for r in range(3)] for s in "abcd"]
    return np.array([[value(point, number) for point in row] for row in points])


def test_an_effect_is_a_paired_t_test_over_cells_or_seeds_where_these_say_less(found):
    for each in found["variant"].found:
        one, other = values(each.level, each.number), values("full", each.number)
        tests = [stats.ttest_rel(one.mean(axis), other.mean(axis)) for axis in (1, 0)]
        intervals = [test.confidence_interval(0.95) for test in tests]
        widths = [interval.high - interval.low for interval in intervals]
        chosen = int(widths[1] > widths[0])
        test, interval = tests[chosen], intervals[chosen]
        difference = each.difference
        assert each.chance == pytest.approx(test.pvalue, rel=1e-9)
        assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
        assert difference.count == (4, 3)[chosen]


def test_chances_are_adjusted_over_all_tests_of_the_axis_and_the_clearest_is_first(found):
    own = found["variant"]
    chances = [each.chance for each in own.found]

    assert own.tests == len(chances) == 4
    assert chances == sorted(chances)
    stepped = np.maximum.accumulate([p * (4 - i) for i, p in enumerate(chances)])
    assert [each.adjusted for each in own.found] == pytest.approx(np.minimum(1, stepped))
    assert (own.found[0].level, own.found[0].number) == ("no_ait", "motion")


def test_a_statement_says_what_can_be_told_and_of_how_many(found):
    said = statements(list(found.values()))
    clear = found["variant"].found[0]
    bounds = f"[{clear.difference.low:+.3g}, {clear.difference.high:+.3g}]"
    alone = [e for e in found["variant"].found if e.chance < 0.05 and not e.is_clear]

    assert not alone  # else the sentence is longer
    assert str(said[0]) == (
        "- variant, against full:\n"
        f"    - no_ait changes motion by {clear.difference.estimate:+.3g} {bounds}"
        f" ({clear.difference.count} pairs)\n"
        "    - nothing else can be told from none at 95 % (4 comparisons together, by Holm's"
        " correction)"
    )
    assert said[1].heading == "subject, against a"
    assert said[1].parts[0].startswith("d changes ")


def test_what_only_a_lone_test_would_tell_is_told_as_such(tmp_path):
    numbers = [f"m{i}" for i in range(40)]
    noise = np.random.default_rng(1).normal(size=(2, 6, 40))

    def draw(point):
        row = noise["ab".index(point["variant"]), point["seed"]]
        return dict(zip(numbers, row.tolist(), strict=True))

    axes = {"variant": ["a", "b"], "seed": list(range(6))}
    own = effects_of(draw_grid(tmp_path / "grid", axes, draw))["variant"]
    alone = sum(stats.ttest_rel(*noise[::-1, :, i]).pvalue < 0.05 for i in range(40))

    assert alone > 0
    (said,) = statements([own])
    assert said.parts == (
        "nothing can be told from none at 95 % (40 comparisons together, by Holm's correction;"
        f" {alone} more if each were asked alone, of which about 2 would come of luck were there"
        " nothing at all)",
    )


def test_what_all_pairs_agree_on_is_told_without_a_test(tmp_path):
    axes = {"variant": ["a", "b"], "seed": [0, 1, 2]}
    numbers = {"a": {"m": 1.0, "same": 0.3}, "b": {"m": 0.0, "same": 0.1 + 0.2}}
    own = effects_of(draw_grid(tmp_path / "grid", axes, lambda p: numbers[p["variant"]]))["variant"]

    (said,) = statements([own])
    assert own.tests == 0
    assert said.parts == (
        "b changes m by -1 (in all 3 pairs alike)",
        "nothing else can be told from none at 95 % (0 comparisons together, by Holm's correction)",
    )


def test_of_single_pairs_nothing_can_be_told(tmp_path):
    axes = {"variant": ["a", "b"]}
    folder = draw_grid(tmp_path / "grid", axes, lambda p: {"m": float(p["variant"] == "b")})

    (said,) = statements(list(effects_of(folder).values()))
    assert said.parts == ("nothing can be told: no difference has two pairs to stand on",)


LEVELS = [0.001, 0.002, 0.004, 0.016]


@pytest.mark.parametrize(
    ("levels", "per", "scale"),
    [(LEVELS, "each doubling", np.log2), ([0, 1, 2, 4], "each 1", np.asarray)],
)
def test_an_axis_of_numbers_has_a_trend_seed_by_seed(tmp_path, levels, per, scale):
    noise = np.random.default_rng(2).normal(size=(4, 5)) * 0.01

    def numbers(point):
        at = levels.index(point["stage.joint.lr"])
        if (at, point["seed"]) == (2, 4):  # this seed has not all levels
            return None
        return {"m": 0.03 * float(scale(levels)[at]) + noise[at, point["seed"]]}

    axes = {"stage.joint.lr": levels, "seed": list(range(5))}
    own = effects_of(draw_grid(tmp_path / "grid", axes, numbers))["stage.joint.lr"]
    (trend,) = (each for each in own.found if each.level == per)
    y = 0.03 * scale(levels)[:, None] + noise[:, :4]
    slopes = np.polyfit(scale(levels), y, 1)[0]

    assert trend.difference.estimate == pytest.approx(slopes.mean())
    assert trend.chance == pytest.approx(stats.ttest_1samp(slopes, 0).pvalue, rel=1e-6)
    assert trend.difference.count == 4
    assert own.tests == 4  # three levels, and the trend


def test_two_numbers_or_words_have_no_trend(tmp_path):
    for name, levels in (("two", [1, 2]), ("words", ["a", "b", "c"]), ("bools", [True, False, 1])):
        axes = {"x": levels, "seed": [0, 1]}
        folder = draw_grid(tmp_path / name, axes, lambda p: {"m": p["seed"] * len(str(p["x"]))})
        assert not [e for e in effects_of(folder)["x"].found if e.level.startswith("each ")]
