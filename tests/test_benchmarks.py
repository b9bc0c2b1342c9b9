"""Benchmarks run; what they find is not tested."""

import re

from benchmarks import training_step

TINY = ("data.motion.size=[64, 64]", "data.subject.size=[64, 64]", "adapter.joint.rank=2")


def test_each_branch_of_a_recipe_is_timed_on_random_weights(capsys):
    settings = ("backbone.width=32", "engine.device='cpu'", *TINY)
    changes = [part for each in settings for part in ("--set", each)]
    training_step.main(["jointtuner_zeroscope", "--steps", "2", *changes])
    table = capsys.readouterr().out
    rows = re.findall(
        r"^\| joint\.(\w+) \| \{\((.*)\)\} \| [\d.]+ s \| [\d.]+ s \| [\d.]+ GiB \|$", table, re.M
    )
    assert rows == [("appearance", "4, 1, 8, 8"), ("motion", "4, 16, 8, 8")]
