"""The exam passes what is right and fails what is wrong; the card says what it found."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from attrs import evolve

from jtcore import cli as core
from jtcore.statistics import Interval
from jtplugins.pocket import cli, models
from jtplugins.pocket.card import missed
from jtplugins.pocket.exam import (
    JITTER,
    RIGHT,
    STEADY,
    TOPICS,
    UNSEEN,
    Result,
    answers,
    bar_of,
    through_codec,
)
from jtplugins.pocket.held_out import COMBINATIONS, NAMEABLE, is_held_out
from jtplugins.pocket.motions import ANCHORS, REACH
from jtplugins.pocket.sprites import Background, Shape
from jtplugins.pocket.world import Scene

QUESTIONS = (
    *("background", "direction", "named motion", "one object, of frames"),
    *("colour", "shape", "creature", JITTER),
)
SCENE = Scene(Shape("moon", "orange"), "left", "mid", Background("teal", "dotted"))


@pytest.fixture(scope="module")
def pocket():
    return models.load(models.SHIPPED)


def answered(pocket, drawn: Scene, asked: Scene) -> dict:
    return dict(answers(through_codec(pocket, [drawn])[0], asked))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_true_clips_pass(pocket, topic):
    rng = np.random.default_rng(3)
    scenes = [topic.scene(rng) for _ in range(24)]
    for video, scene in zip(through_codec(pocket, scenes), scenes, strict=True):
        found = dict(answers(video, scene))
        assert found.pop("jitter, px", 0.0) < 0.1
        assert found and all(found.values()), (scene, found)


@pytest.mark.parametrize(
    ("question", "wrong"),
    [
        ("colour", {"sprite": Shape("moon", "red")}),
        ("shape", {"sprite": Shape("ball", "orange")}),
        ("named motion", {"motion": "southwest"}),
        ("direction", {"motion": "right"}),
        ("background", {"background": Background("teal")}),
    ],
)
def test_what_is_wrong_is_found_and_the_rest_is_not_blamed(pocket, question, wrong):
    found = answered(pocket, evolve(SCENE, **wrong), SCENE)
    assert not found[question]
    blamed = {name for name, right in found.items() if not right}
    assert blamed <= {question, "direction", "named motion"}


def test_a_jumping_sprite_jitters(pocket):
    still = evolve(SCENE, motion="stays")
    videos = through_codec(pocket, [still, evolve(still, anchor="mid-right")])
    jumping = np.where(np.arange(8)[:, None, None] % 2, videos[1], videos[0])
    distance = ANCHORS["mid-right"][1] - ANCHORS["mid"][1]
    assert answers(jumping, still)["jitter, px"] == pytest.approx(distance / 2, abs=0.1)


@pytest.mark.parametrize("motion", ["stays", "left"])
@pytest.mark.parametrize("blank", [[2], [0, 1, 2, 3, 5, 6, 7]])
def test_a_sprite_that_is_gone_neither_moves_nor_stays(pocket, motion, blank):
    asked = evolve(SCENE, motion=motion)
    video = through_codec(pocket, [asked])[0]
    video[:, blank] = SCENE.background.pixels(24)[:, None]
    found = answers(video, asked)
    assert not found["named motion"] and not found.get("direction", False)
    assert found.get(JITTER, REACH) == REACH


def test_topics_ask_for_what_they_say():
    by_name = {topic.name: topic for topic in TOPICS}
    rng = np.random.default_rng(0)
    drawn = {name: [topic.scene(rng) for _ in range(40)] for name, topic in by_name.items()}
    unseen = {
        (s.sprite.colour, s.sprite.name) for s in drawn["shapes in colours never seen on them"]
    }
    assert unseen <= COMBINATIONS
    creatures = {s.sprite for s in drawn["held-out creatures, told part by part"]}
    assert creatures == set(NAMEABLE.values())
    unplaced = by_name["shapes, place unsaid"]
    assert not any(" at " in unplaced.say(scene) for scene in drawn[unplaced.name])
    for name in ("shapes", "creatures"):
        assert not any(is_held_out(scene.sprite) for scene in drawn[name])


@pytest.mark.parametrize(
    ("question", "found", "bar", "is_missed"),
    [
        ("shape", 0.94, 0.95, True),
        ("shape", 0.95, 0.95, False),
        ("shape", 0.1, None, False),
        ("shape", np.nan, 0.95, True),
        (JITTER, 0.5, 0.5, False),
        (JITTER, 0.51, 0.5, True),
        (JITTER, np.nan, 0.5, True),
    ],
)
def test_a_bar_is_reached_or_missed(question, found, bar, is_missed):
    result = Result("shapes", question, 1.0, Interval(found, 0.0, 1.0, 9), bar, sprites=9)
    assert missed(result) == is_missed


def test_bars_are_what_a_base_was_asked_for():
    seen = {(topic.name, question): 0.9 for topic in TOPICS for question in QUESTIONS}
    bars = {
        topic.name: {question: bar_of(topic, question, seen) for question in QUESTIONS}
        for topic in TOPICS
    }
    told = dict.fromkeys(QUESTIONS[:4], RIGHT)
    looks = {"colour": RIGHT, "shape": RIGHT}
    nothing = dict.fromkeys(QUESTIONS)
    assert bars == {
        "shapes": nothing | told | looks,
        "shapes that stay": nothing | told | looks | {JITTER: STEADY},
        "shapes in colours never seen on them": dict.fromkeys(QUESTIONS, UNSEEN * 0.9)
        | {JITTER: None},
        "shapes, place unsaid": nothing | {"shape": UNSEEN},
        "creatures": nothing | told,
        "held-out creatures, told part by part": nothing,
    }


@pytest.fixture
def threads():
    """The card sets how many there are."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


FEW = ["--videos", "2", "--seed", "7"]


def test_the_card_says_how_the_model_was_made_and_how_it_did(tmp_path, threads, capsys):
    card = tmp_path / "new" / "card.md"
    assert cli.main(["card", "--out", str(card), *FEW]) == 0
    assert "missed" not in capsys.readouterr().err
    text = card.read_text()
    facts = json.loads((models.SHIPPED / "pretraining.json").read_text())
    assert f"| steps | {facts['steps']:,}, seed {facts['seed']} |" in text
    assert " seconds, 1 thread |" in text
    torch_named = rf"torch {re.escape(torch.__version__)}"
    ran = rf"^20\d\d-\d\d-\d\d, Python [\d.]+, {torch_named}, .*, 1 thread\.$"
    assert re.search(ran, text, re.MULTILINE)
    assert "(seed 7, 10 steps, guidance 2)" in text
    asked = {tuple(line.split(" | ")[:2]) for line in text.splitlines()}
    shown = {f"| {topic.name}" for topic in TOPICS}
    assert {(topic, "background") for topic in shown} <= asked
    assert {("| shapes", "shape"), ("| creatures", "creature")} <= asked
    assert len(re.findall(r"^\| \d", text, re.MULTILINE)) == len(facts["curve"])


def test_a_missed_bar_is_told_and_is_another_exit_status(tmp_path, threads, capsys):
    with torch.random.fork_rng():
        models.save(models.build(0), tmp_path)
    for part in ("pretraining.json", "codec/model.safetensors"):
        shutil.copy(models.SHIPPED / part, tmp_path / part)
    assert cli.main(["card", "--weights", str(tmp_path), "--videos", "1"]) == 1
    printed = capsys.readouterr()
    assert "| missed |" in printed.out
    missed = [line for line in printed.err.splitlines() if line.startswith("missed: ")]
    assert len(missed) == printed.out.count("| missed |")
    assert "missed: shapes: shape: found 0.000, expected 0.950" in missed


@pytest.mark.slow
def test_the_shipped_weights_miss_no_bar_of_the_card(tmp_path, threads, capsys):
    assert cli.main(["card", "--out", str(tmp_path / "card.md")]) == 0, capsys.readouterr().err
    assert "missed" not in (tmp_path / "card.md").read_text()


@pytest.mark.parametrize("command", ["card --videos 1", "metrics --tasks 1"])
def test_a_folder_in_the_files_place_is_told_before_the_work(tmp_path, capsys, command):
    assert cli.main([*command.split(), "--out", str(tmp_path)]) == 2
    told = f"{tmp_path}: is a folder, expected a file; name one in it\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("command", ["card --videos 1", "metrics --tasks 1"])
def test_a_file_that_cannot_be_written_is_told_before_the_work(capsys, command):
    assert cli.main([*command.split(), "--out", "/proc/nowhere/card.md"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"/proc/nowhere/card\.md: cannot be written: .+; name another", told)


def test_weights_that_are_not_there_are_one_clear_line(tmp_path, capsys):
    assert cli.main(["card", "--weights", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}: no pretraining.json; expected what jt-pocket pretrain wrote\n"
    )


@pytest.mark.parametrize("written", ['{"steps": 3}', "[]", '{"steps": '])
def test_facts_of_another_kind_are_one_clear_line(tmp_path, capsys, written):
    (tmp_path / "pretraining.json").write_text(written)
    assert cli.main(["card", "--weights", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{tmp_path / 'pretraining.json'}: not ")
    assert told.count("\n") == 1


PARTS = ("transformer", "text_encoder", "tokenizer", "scheduler", "codec")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_not_there_is_one_clear_line(tmp_path, capsys, part):
    weights = shutil.copytree(models.SHIPPED, tmp_path / "weights")
    shutil.rmtree(weights / part)
    assert cli.main(["card", "--weights", str(weights), "--videos", "1"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"{weights / part}: not found; expected what jt-pocket pretrain wrote"
    )


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("codec/config.json", "{}"),
        ("codec/config.json", "{"),
        ("codec/config.json", '{"block": 4, "channels": 16}'),
        ("codec/model.safetensors", "nonsense"),
        ("transformer/diffusion_pytorch_model.safetensors", "nonsense"),
        ("text_encoder/model.safetensors", "nonsense"),
        ("tokenizer/tokenizer.json", "{}"),
        ("scheduler/scheduler_config.json", "nonsense"),
    ],
)
def test_a_part_that_is_broken_is_one_clear_line(tmp_path, capfd, file, written):
    weights = shutil.copytree(models.SHIPPED, tmp_path / "weights")
    (weights / file).write_text(written)
    assert cli.main(["card", "--weights", str(weights), "--videos", "1"]) == 2
    told = capfd.readouterr().err.splitlines()[-1]
    assert told.startswith(str((weights / file).parent))
    assert told.endswith("; expected what jt-pocket pretrain wrote")


def test_a_codec_that_does_not_fit_is_told_by_the_check_of_a_recipe(tmp_path, write_recipe, capsys):
    weights = shutil.copytree(models.SHIPPED, tmp_path / "weights")
    file = weights / "codec/config.json"
    file.write_text('{"block": 6}')
    table = {
        "backbone": {"kind": "pocket", "weights": str(weights)},
        "sample": {"prompts": ["a red ball stays"], "frames": 8, "size": [24, 24]},
    }
    assert core.run([str(write_recipe(table)), "--check"]) == 2
    assert capsys.readouterr().err == (
        f"backbone.weights: {file}: not the configuration of a codec (KeyError: 'channels');"
        " expected what jt-pocket pretrain wrote\n"
    )
