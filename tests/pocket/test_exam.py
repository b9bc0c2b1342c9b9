"""The exam passes what is right and fails what is wrong; the card says what it found."""

import json
import shutil

import numpy as np
import pytest
import torch
from attrs import evolve

from jtcore.statistics import Interval
from jtplugins.pocket import cli, exam, models
from jtplugins.pocket.card import missed
from jtplugins.pocket.exam import (
    JITTER,
    RIGHT,
    STEADY,
    TOPICS,
    UNSEEN,
    Result,
    answers,
    through_codec,
)
from jtplugins.pocket.held_out import COMBINATIONS, NAMEABLE, is_held_out
from jtplugins.pocket.motions import ANCHORS, REACH
from jtplugins.pocket.sprites import Background, Shape
from jtplugins.pocket.world import Scene

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


def test_bars_are_what_a_base_was_asked_for(monkeypatch):
    def shown(pocket, prompts, noise):  # a ball that stays on gray, whatever is asked
        scene = Scene(Shape("ball", "red"), "stays", "mid", Background("gray"))
        return through_codec(pocket, [scene] * len(prompts))

    monkeypatch.setattr(exam, "generate", shown)
    results = list(exam.exam(models.load(models.SHIPPED), 12, 0, print))
    found = {(result.topic, result.question): result for result in results}
    bars = {key: result.bar for key, result in found.items()}
    told = ("background", "direction", "named motion", "one object, of frames")
    for question in (*told, "colour", "shape"):
        unseen = bars["shapes in colours never seen on them", question]
        assert bars["shapes", question] == RIGHT
        assert unseen == UNSEEN * found["shapes", question].generated.estimate
    assert bars["shapes that stay", JITTER] == STEADY
    asked = {
        topic for (topic, question), bar in bars.items() if question == JITTER and bar is not None
    }
    assert asked == {"shapes that stay"}  # elsewhere few videos stay, and it is no rate
    unsaid = {question: bar for (topic, question), bar in bars.items() if "unsaid" in topic}
    assert {question for question, bar in unsaid.items() if bar is not None} == {"shape"}
    assert unsaid["shape"] == UNSEEN
    assert {bars["creatures", question] for question in told} == {RIGHT}
    assert bars["creatures", "creature"] is None
    assert {bar for (topic, _), bar in bars.items() if "held-out" in topic} == {None}
    assert all(1 <= result.sprites <= 12 for result in results)


def test_the_card_says_how_the_model_was_made_and_how_it_did(tmp_path, monkeypatch):
    weights, card = tmp_path / "weights", tmp_path / "card.md"
    shutil.copytree(models.SHIPPED, weights)
    monkeypatch.setattr(exam, "TOPICS", TOPICS[:1])
    threads = torch.get_num_threads()
    try:
        few = ["--videos", "2", "--seed", "7"]
        assert cli.main(["card", "--weights", str(weights), "--out", str(card), *few]) == 0
    finally:
        torch.set_num_threads(threads)
    text = card.read_text()
    facts = json.loads((weights / "pretraining.json").read_text())
    assert f"| steps | {facts['steps']:,}, seed {facts['seed']} |" in text
    rows = {
        line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| shapes | ")
    }
    assert set(rows) >= {"background", "colour", "shape", "named motion"}
    assert "(seed 7, 10 steps, guidance 2)" in text
    assert len([line for line in text.splitlines() if line[2:3].isdigit()]) == len(facts["curve"])


def test_weights_that_are_not_there_are_one_clear_line(tmp_path, capsys):
    assert cli.main(["card", "--weights", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"jt-pocket card: {tmp_path}: no pretraining.json; expected what jt-pocket pretrain wrote\n"
    )


@pytest.mark.parametrize("written", ['{"steps": 3}', "[]", '{"steps": '])
def test_facts_of_another_kind_are_one_clear_line(tmp_path, capsys, written):
    (tmp_path / "pretraining.json").write_text(written)
    assert cli.main(["card", "--weights", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"jt-pocket card: {tmp_path / 'pretraining.json'}: not ")
    assert told.count("\n") == 1
