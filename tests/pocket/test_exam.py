"""The exam passes what is right and fails what is wrong; the card says what it found."""

import json
import shutil

import numpy as np
import pytest
import torch
from attrs import evolve

from jtcore.statistics import Interval
from jtplugins.pocket import cli, exam, models
from jtplugins.pocket.card import BARS, missed
from jtplugins.pocket.exam import TOPICS, Result, answers, through_codec
from jtplugins.pocket.held_out import COMBINATIONS, NAMEABLE, is_held_out
from jtplugins.pocket.motions import ANCHORS
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
    ("topic", "question", "found", "is_missed"),
    [
        ("shapes", "shape", 0.94, True),
        ("shapes", "shape", 0.95, False),
        ("shapes, place unsaid", "shape", 0.80, False),
        ("shapes, place unsaid", "shape", 0.79, True),
        ("shapes that stay", "jitter, px", 0.5, False),
        ("shapes that stay", "jitter, px", 0.51, True),
    ],
)
def test_a_bar_is_reached_or_missed(topic, question, found, is_missed):
    assert missed(Result(topic, question, 1.0, Interval(found, 0.0, 1.0, 9))) == is_missed


def test_the_card_says_how_the_model_was_made_and_how_it_did(tmp_path, monkeypatch):
    weights, card = tmp_path / "weights", tmp_path / "card.md"
    shutil.copytree(models.SHIPPED, weights)
    monkeypatch.setattr(exam, "TOPICS", TOPICS[:1])
    threads = torch.get_num_threads()
    try:
        assert (
            cli.main(["card", "--weights", str(weights), "--out", str(card), "--videos", "2"]) == 0
        )
    finally:
        torch.set_num_threads(threads)
    text = card.read_text()
    facts = json.loads((weights / "pretraining.json").read_text())
    assert f"| steps | {facts['steps']:,}, seed {facts['seed']} |" in text
    rows = {
        line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| shapes | ")
    }
    assert set(rows) >= {"background", "colour", "shape", "named motion"}
    assert set(rows) <= set(BARS)
    assert len([line for line in text.splitlines() if line[2:3].isdigit()]) == len(facts["curve"])


def test_weights_that_are_not_there_are_one_clear_line(tmp_path, capsys):
    assert cli.main(["card", "--weights", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"jt-pocket card: {tmp_path}: no pretraining.json; expected what jt-pocket pretrain wrote\n"
    )
