"""What a command costs before it works: until it answers, and until a first step is trained."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.compare import Row, time_pair

COMMANDS = Path(sys.executable).parent
FIRST_STEP = """
import sys
from pathlib import Path
from jtcore.engine import Engine
from jtcore.experiment import prepare
from jtcore.model import load_model
from jtcore.plugins import load_plugins
from jtcore.recipe import build_recipe
from jtcore.run import Run
from jtcore.signals import Stop
from jtcore.tables import find_recipe, read_table
from jtcore.trainer import Trainer
from jtcore.types import Step

task, plugins = sys.argv[1], load_plugins()
table = read_table(find_recipe("jointtuner_pocket"))
for data in table["data"].values():
    data["source"] = data["source"].replace("data/pocket", task)
recipe = build_recipe(table, plugins)
engine, run = Engine(recipe.engine), Run(Path(task), lambda line: None)
made = prepare(recipe, engine, run, Stop())
model = load_model(recipe.backbone, recipe.adapter, made.texts, engine, recipe.seed)
trainer = Trainer(recipe, plugins.hook, run, model, made.streams, lambda: False)
((name, stage),) = recipe.stage.items()
parameters = {each: list(model.adapters[each].parameters()) for each in stage.trained}
memory = recipe.engine.memory
optimizer = plugins.hook.jt_make_optimizer(stage=stage, parameters=parameters, memory=memory)
trainer.train_step(stage, Step(name, 0, 1, 0), optimizer)
"""


def measure(rounds: int = 9) -> Iterator[Row]:
    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, capture_output=True)

    yield time_pair(
        "jt-run --help, against python -c pass",
        lambda: run(COMMANDS / "jt-run", "--help"),
        lambda: run(sys.executable, "-c", "pass"),
        rounds,
    )
    with TemporaryDirectory() as folder:
        run(COMMANDS / "jt-pocket", "draw", Path(folder) / "task")
        yield time_pair(
            "pocket's first step, its data in the cache, against importing diffusers",
            lambda: run(sys.executable, "-c", FIRST_STEP, Path(folder) / "task"),
            lambda: run(sys.executable, "-c", "import torch, diffusers.models"),
            min(rounds, 3),
        )
