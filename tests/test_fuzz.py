"""Recipes that are wrong in any way: a message that names the place, never a traceback."""

import random
from collections.abc import Iterator
from copy import deepcopy
from math import inf, nan
from pathlib import Path

import pytest
import tomli_w

from jtcore import cli
from jtcore.tables import find_recipe, parse_toml
from jtplugins.pocket import cli as pocket

PROGRAMS = 60  # by default; and those marked slow
MANY = 300
VALUES = (
    True, False, 0, -1, 1, 3, 16, 10**9, 2**62, -(2**40), 2**70, 0.5, -0.5, 1e308, 5e-324, nan, inf,
    "", "x", "subject", "joint", "visual", "lora", "ait", "image", "0", "a.b", "*", "../x", "\0",
    "name " * 300, "x" * 300, "名", "~", "/", "/dev/null", ".",
    [], [1], ["joint"], [[]], {}, {"kind": "lora"}, {"kind": "nothing"},
)  # fmt: skip
CHARACTERS = "[]{}=\".'#,\n \0é0-"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Iterator[Path]:
    """The shipped recipe's text, where its data are."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert pocket.main(["draw", "data/pocket", "--pictures", "2", "--videos", "2"]) == 0
        text = find_recipe("jointtuner_pocket").read_text()
        yield text.replace('kind = "pocket"', 'kind = "pocket"\nweights = "random"', 1)


def tables_in(table: dict) -> list[dict]:
    inner = [
        each for value in table.values() if isinstance(value, dict) for each in tables_in(value)
    ]
    return [table, *inner]


def change_table(table: dict, rng: random.Random) -> None:
    """One key of one table: deleted, renamed, moved, or given another value."""
    chosen = rng.choice([each for each in tables_in(table) if each])
    key = rng.choice(list(chosen))
    match rng.randrange(9):
        case 0:
            del chosen[key]
        case 1:
            chosen[misspelled(key, rng)] = chosen.pop(key)
        case 2:
            rng.choice(tables_in(table))[key] = deepcopy(chosen[key])
        case 3:
            chosen[misspelled(key, rng)] = deepcopy(chosen[key])
        case 4:
            chosen[key] = [chosen[key]] if rng.random() < 0.5 else {key: chosen[key]}
        case 5:
            chosen[key] = deepcopy(rng.choice(VALUES))
        case _:
            change_value(rng.choice([each for each in tables_in(table) if leaves(each)]), rng)


def leaves(table: dict) -> list[str]:
    return [key for key, value in table.items() if not isinstance(value, dict)]


def change_value(table: dict, rng: random.Random) -> None:
    """Another value of the same type, in a list too."""
    key = rng.choice(leaves(table))
    if isinstance(table[key], list) and table[key]:
        place = rng.randrange(len(table[key]))
        table[key][place] = another(table[key][place], rng)
    else:
        table[key] = another(table[key], rng)


def another(value: object, rng: random.Random) -> object:
    return deepcopy(rng.choice([each for each in VALUES if type(each) is type(value)] or VALUES))


def misspelled(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word) + 1)
    return word[:place] + rng.choice("abz.-/ é") + word[place + rng.randrange(2) :]


def change_text(text: str, rng: random.Random) -> str:
    """A line deleted, doubled or moved, or some characters of it changed."""
    lines = text.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[place]
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[place])
        case 2:
            lines.insert(rng.randrange(len(lines)), lines.pop(place))
        case _:
            line = lines[place]
            column = rng.randrange(len(line))
            lines[place] = line[:column] + rng.choice(CHARACTERS) + line[column + 1 :]
    return "".join(lines)


def mutated(text: str, table: dict, seed: int) -> str:
    """The recipe, wrong in one to three ways; or by chance right."""
    rng = random.Random(seed)
    changes = rng.choice((1, 1, 1, 2, 3))
    if rng.random() < 0.4:
        for _ in range(changes):
            text = change_text(text, rng)
        return text
    table = deepcopy(table)
    for _ in range(changes):
        change_table(table, rng)
        if not any(tables_in(table)):
            break
    return tomli_w.dumps(table)


def refused_or_checked(
    shipped: str, seeds: range, path: Path, capsys: pytest.CaptureFixture
) -> Iterator[int]:
    """Check mutated recipes; yield those that passed."""
    path.write_text(shipped)
    table = parse_toml(path)
    for seed in seeds:
        path.write_text(mutated(shipped, table, seed))
        status = cli.run([str(path), "--check"])
        said = capsys.readouterr()
        assert status in (0, 2), seed
        if status == 0:
            assert said.err == "", seed
            yield seed
        else:
            assert said.out == "", seed
            assert "Traceback" not in said.err, seed
            problems = [line for line in said.err.splitlines() if not line.startswith("  ")]
            assert problems and all(": " in problem for problem in problems), said.err


def test_mutated_recipes_are_checked_or_refused_with_a_place(shipped, tmp_path, capsys):
    passed = [*refused_or_checked(shipped, range(PROGRAMS), tmp_path / "recipe.toml", capsys)]

    assert 0 < len(passed) < PROGRAMS / 2


@pytest.mark.slow
def test_many_mutated_recipes_are_checked_or_refused_with_a_place(shipped, tmp_path, capsys):
    seeds = range(1000, 1000 + MANY)
    passed = [*refused_or_checked(shipped, seeds, tmp_path / "recipe.toml", capsys)]

    assert 0 < len(passed) < MANY / 2


CHEAP = [f"--set={setting}" for setting in (
    "stage.joint.steps=2", "sample.steps=1", "sample.frames=1", "sample.seeds=[0]",
    "data.motion.frames=2", "data.held_out_motion.frames=2", "validation.draws=1",
    "checkpoint.every=100", "engine.threads=1",
)]  # fmt: skip


def test_mutated_recipes_that_pass_the_check_run(shipped, tmp_path, capsys):
    """Or say what is wrong, where only running shows it."""
    path = tmp_path / "recipe.toml"
    for number, seed in enumerate(refused_or_checked(shipped, range(2000, 2200), path, capsys)):
        status = cli.run([str(path), *CHEAP, "--quiet", "--out", str(tmp_path / str(number))])
        said = capsys.readouterr().err
        assert status in (0, 2), seed
        assert (said == "") == (status == 0), (seed, said)
        assert "Traceback" not in said
        if number == 3:
            return
    pytest.fail("too few of them passed the check")
