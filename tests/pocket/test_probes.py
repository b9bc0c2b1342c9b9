"""Prompts that probe what was learned of a task of pocket."""

import pytest

from jtplugins.backbones.pocket import Pocket
from jtplugins.pocket.probes import probes
from jtplugins.pocket.prompts import read_prompt
from jtplugins.pocket.task import NAME
from jtplugins.pocket.tiers import draw_tasks


@pytest.mark.parametrize("tier", ["easy", "leaky", "hard"])
def test_prompts_that_belong_together_differ_in_subject_and_motion_alone(tier):
    task, _ = draw_tasks("zot", "spirals", tier, 3, None, None)
    asked = probes(task)
    assert Pocket().prompt_problems([text for texts in asked.values() for text in texts]) == []
    for each in zip(*(asked[k] for k in ("subject", "motion", "both", "neither")), strict=True):
        subject, motion, both, neither = (read_prompt(text, {NAME: task.sprite}) for text in each)
        assert subject.sprite == both.sprite == task.sprite
        assert motion.motion == both.motion == task.motion
        assert motion.sprite == neither.sprite
        assert neither.sprite not in (task.sprite, *task.performers)
        assert subject.motion == neither.motion
        assert neither.motion not in (None, "stays", task.motion)
        assert (
            len({(wish.anchor, wish.background) for wish in (subject, motion, both, neither)}) == 1
        )
