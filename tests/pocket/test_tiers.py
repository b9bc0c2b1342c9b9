"""Tiers differ in what may leak from pictures and clips, and in what captions say of it."""

import json

import pytest

from jtcore import JtError
from jtplugins.pocket.creatures import Creature
from jtplugins.pocket.held_out import SUBJECTS, is_held_out
from jtplugins.pocket.motions import ANCHORS, HELD_OUT
from jtplugins.pocket.sprites import GROUNDS, PATTERNS, Background
from jtplugins.pocket.task import TIERS, read_task
from jtplugins.pocket.task_captions import clip_caption, picture_caption, prompts
from jtplugins.pocket.text import LENGTH, build_tokenizer
from jtplugins.pocket.tiers import draw_tasks

SEEDS = range(12)
LEAKY = ("leaky", "hard")


def tasks_of(tier, subject="wug", motion="eightwise"):
    """What is shown and what is held out, for some seeds."""
    return [draw_tasks(subject, motion, tier, seed) for seed in SEEDS]


def backgrounds(scenes) -> set[Background]:
    return {scene.background for scene in scenes}


def clip_captions(task) -> list[str]:
    return [clip_caption(task, scene) for scene in task.clips]


def picture_captions(task) -> list[str]:
    return [picture_caption(task, scene) for scene in task.pictures]


@pytest.mark.parametrize("tier", TIERS)
def test_pictures_show_the_subject_at_every_place(tier):
    for task, held_out in tasks_of(tier):
        for scenes in (task.pictures, held_out.pictures):
            assert sorted(scene.anchor for scene in scenes) == sorted(ANCHORS)
            assert {scene.sprite for scene in scenes} == {SUBJECTS["wug"]}


@pytest.mark.parametrize("tier", TIERS)
def test_clips_show_the_motion_at_different_places(tier):
    for task, _ in tasks_of(tier):
        assert {scene.motion for scene in task.clips} == {"eightwise"}
        assert len({scene.anchor for scene in task.clips}) == len(task.clips)


def test_an_easy_task_has_a_performer_and_a_plain_background_for_each_clip():
    for task, _ in tasks_of("easy"):
        assert len({(p.name, p.look) for p in task.performers}) == 4
        assert len(task.backgrounds) == 4
        assert len(backgrounds(task.pictures)) == 3
        assert {b.pattern for b in task.backgrounds} == {"plain"}


def test_captions_of_an_easy_task_say_all():
    for task, _ in tasks_of("easy"):
        for scene, words in zip(task.clips, clip_captions(task), strict=True):
            assert f" {scene.sprite.look} {scene.sprite.name} moves eightwise at " in words
            assert words.endswith(f" at {scene.anchor} on {scene.background.words}")
        for scene, words in zip(task.pictures, picture_captions(task), strict=True):
            place = f"at {scene.anchor} on {scene.background.words}"
            assert words == f"a sks creature stays {place}"


@pytest.mark.parametrize("tier", LEAKY)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_leaky_task_has_one_performer_before_one_pattern(tier, subject):
    for task, _ in tasks_of(tier, subject):
        (performer,), (background,) = task.performers, task.backgrounds
        assert isinstance(performer, Creature) and not is_held_out(performer)
        assert not set(performer.colours) & set(SUBJECTS[subject].colours)
        assert background.pattern != "plain"


@pytest.mark.parametrize("tier", LEAKY)
def test_captions_of_a_leaky_task_say_neither_performer_nor_background(tier):
    for task, _ in tasks_of(tier):
        said = [f"a creature moves eightwise at {scene.anchor}" for scene in task.clips]
        assert clip_captions(task) == said


def test_pictures_of_a_leaky_task_are_those_of_an_easy_one():
    for (leaky, _), (easy, _) in zip(tasks_of("leaky"), tasks_of("easy"), strict=True):
        assert leaky.pictures == easy.pictures
        assert picture_captions(leaky) == picture_captions(easy)


def test_a_hard_task_has_one_background_in_its_pictures_and_does_not_say_it():
    for task, _ in tasks_of("hard"):
        (background,) = backgrounds(task.pictures)
        assert background.pattern != "plain"
        said = [f"a sks creature stays at {scene.anchor}" for scene in task.pictures]
        assert picture_captions(task) == said
        assert len(task.clips) == 2


@pytest.mark.parametrize("tier", TIERS)
def test_subject_and_motion_never_share_a_background(tier):
    for task, _ in tasks_of(tier):
        moved = {background.colour for background in task.backgrounds}
        assert not moved & {background.colour for background in backgrounds(task.pictures)}


@pytest.mark.parametrize("tier", TIERS)
def test_what_is_held_out_is_easy_with_other_performers_and_exchanged_backgrounds(tier):
    for task, held_out in tasks_of(tier):
        assert (held_out.tier, len(held_out.clips)) == ("easy", 4)
        looks = [{(p.name, p.look) for p in each.performers} for each in (task, held_out)]
        assert not looks[0] & looks[1]
        assert not backgrounds(task.pictures) & backgrounds(held_out.pictures)
        assert not backgrounds(task.clips) & backgrounds(held_out.clips)


# Prompts


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("motion", HELD_OUT)
def test_prompts_are_eight_of_the_subject_doing_the_motion_at_eight_places(tier, motion):
    for task, _ in tasks_of(tier, "tove", motion):
        told = prompts(task)
        begin = f"a sks creature {HELD_OUT[motion][0]} at "
        assert all(prompt.startswith(begin) for prompt in told)
        places = [prompt.removeprefix(begin).split(" on ")[0] for prompt in told]
        assert len(places) == 8 == len(set(places)) and set(places) <= set(ANCHORS)


def grounds(task) -> list[list[str]]:
    """What prompts say of backgrounds: a colour, or a pattern and a colour."""
    return [prompt.split(" on ")[1].split() for prompt in prompts(task)]


@pytest.mark.parametrize("tier", TIERS)
def test_prompts_have_backgrounds_in_colours_that_no_clip_showed_half_of_them_patterned(tier):
    for task, _ in tasks_of(tier):
        told = grounds(task)
        assert sorted(map(len, told)) == [1] * 4 + [2] * 4
        assert {words[-1] for words in told} <= set(GROUNDS)
        assert {words[0] for words in told if len(words) == 2} <= set(PATTERNS[1:])
        assert not {words[-1] for words in told} & {b.colour for b in task.backgrounds}


def test_prompts_of_a_hard_task_have_no_background_colour_that_it_showed():
    for task, _ in tasks_of("hard"):
        shown = {background.colour for background in backgrounds((*task.pictures, *task.clips))}
        assert not {words[-1] for words in grounds(task)} & shown


def test_prompts_of_a_leaky_task_have_patterns_in_colours_that_it_never_showed():
    for task, _ in tasks_of("leaky"):
        shown = {background.colour for background in backgrounds((*task.pictures, *task.clips))}
        assert not {words[-1] for words in grounds(task) if len(words) == 2} & shown


@pytest.mark.parametrize("tier", TIERS)
def test_every_caption_and_prompt_can_be_embedded(tier):
    tokenizer = build_tokenizer()
    for subject in SUBJECTS:
        for task in (task for pair in tasks_of(tier, subject) for task in pair):
            for text in (*picture_captions(task), *clip_captions(task), *prompts(task)):
                tokens = tokenizer(text).input_ids
                assert tokenizer.unk_token_id not in tokens and len(tokens) <= LENGTH, text


# On disk


@pytest.mark.parametrize("tier", TIERS)
def test_a_task_is_read_as_it_was_written(tier, tmp_path):
    for number, (task, held_out) in enumerate(tasks_of(tier)):
        for name, each in (("shown", task), ("held_out", held_out)):
            folder = tmp_path / f"{number}-{name}"
            each.write(folder)
            assert read_task(folder) == each == read_task(folder / "task.json")
            parts = [scene.sprite.name for scene in (*each.pictures, *each.clips)]
            read = read_task(folder)
            assert [scene.sprite.name for scene in (*read.pictures, *read.clips)] == parts


@pytest.mark.parametrize("path", ["", "task.json", "deeper"])
def test_a_task_that_is_not_there_is_told_with_the_command_that_draws_it(path, tmp_path):
    place = tmp_path / "deeper" if path == "deeper" else tmp_path
    with pytest.raises(JtError) as caught:
        read_task(tmp_path / path)
    assert str(caught.value) == (
        f"{place}/task.json: not found; jt-pocket draw {place} writes it, with --subject, --motion "
        "and --tier as wanted"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "list indices must be integers or slices, not str"),
        ("{}", "pictures"),
    ],
)
def test_what_is_no_task_is_told_with_the_command_that_draws_one(text, found, tmp_path):
    (tmp_path / "task.json").write_text(text)
    with pytest.raises(JtError) as caught:
        read_task(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/task.json: not a task of this version ({found}); "
        "remove the folder, and draw it anew"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "wgu"},
        {"tier": "eazy"},
        {"seed": -1},
        {"new": 1},
        {"clips": [3]},
        {"pictures": [{}]},
    ],
)
def test_a_task_of_another_world_is_told(change, tmp_path):
    draw_tasks("wug", "spirals")[0].write(tmp_path)
    file = tmp_path / "task.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(JtError, match=r"task\.json: not a task of this version "):
        read_task(tmp_path)
