"""The trainer: stages of steps of branches."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from time import perf_counter
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn
from torch.optim import Optimizer

from jtcore.adapter import Adapter
from jtcore.artifact import save_adapter
from jtcore.branch import Branch, drop_text
from jtcore.checkpoint import Checkpoint, Position, save_checkpoint
from jtcore.curve import Curve
from jtcore.engine import NonFiniteGradient, learning_rate
from jtcore.errors import Interrupted, JtError
from jtcore.model import Model
from jtcore.noise import Draws
from jtcore.optimizers import refuse_other_optimizers
from jtcore.previews import Previews
from jtcore.recipe import Recipe, Stage
from jtcore.rng import generator, seed_of, shared_random
from jtcore.run import Run
from jtcore.stream import Stream
from jtcore.types import Step

Weights = dict[str, Tensor]
Values = dict[str, list[Tensor | float]]  # by path, each of as many passes; tensors are ()


@frozen(eq=False)
class Trainer:
    """Trains what the recipe's stages say. What it changes is the adapters of `model`."""

    recipe: Recipe
    hook: Any  # pluggy's caller of every hook
    run: Run
    model: Model
    streams: Mapping[str, Stream]
    stopping: Callable[[], bool]  # whether a signal asked to end
    previews: Previews | None = None
    curve: Curve | None = None

    def train(self, checkpoint: Checkpoint | None = None) -> None:
        """Run every stage, or those that a checkpoint has not seen the end of."""
        number, stages = 0, list(self.recipe.stage)
        if checkpoint:
            for name, adapter in self.model.adapters.items():
                adapter.load_state_dict(checkpoint.of(f"adapter.{name}"))
        reached = stages.index(checkpoint.position.stage) if checkpoint else 0
        for order, name in enumerate(stages):
            if order >= reached:
                self.train_stage(name, number, checkpoint if order == reached else None)
            number += self.recipe.stage[name].steps

    def train_stage(self, name: str, number: int, checkpoint: Checkpoint | None) -> None:
        """Run a stage that begins at step `number` of the run, or the rest of it."""
        stage = self.recipe.stage[name]
        trained = {adapter: self.model.adapters[adapter] for adapter in stage.trained}
        memory, parameters = self.recipe.engine.memory, _parameters(trained)
        optimizer = self.hook.jt_make_optimizer(stage=stage, parameters=parameters, memory=memory)
        refuse_other_optimizers(optimizer, memory.optimizer, f"stage.{name}")
        average = _copy(trained) if stage.ema else {}
        engine, leads = self.model.engine, self.run.processes.leads
        engine.prepare(optimizer, trained, self.model.backbone.denoiser, stage.clip)
        if checkpoint:
            self._restore(optimizer, average, checkpoint)
            self._preview(checkpoint.position.number)  # which may have been stopped before
        for index in range(checkpoint.position.index if checkpoint else 0, stage.steps):
            step = Step(name, index, stage.steps, number + index)
            scalars = self.train_step(stage, step, optimizer)
            self._move_average(average, trained, stage.ema)
            scalars = _mean(self.run.processes.gather(scalars)) | self._validate(step)
            if leads:
                self.hook.jt_step_finished(run=self.run, step=step, scalars=scalars)
            self._checkpoint(step, optimizer, average)
            self._preview(step.number + 1)
        engine.clear(optimizer)  # the last gradients would stay while it is sampled
        self._save(trained, average)
        engine.finish()
        _use(average, trained)
        if leads:
            self.hook.jt_stage_finished(run=self.run, name=name, adapters=trained)

    def _validate(self, step: Step) -> dict[str, float]:
        """What the first process finds on held-out files, where it is due; the others wait."""
        if self.curve is None or not self.curve.due(step):
            return {}
        found = self.curve.after(step) if self.run.processes.leads else {}
        self.run.processes.gather(None)
        return found

    def _preview(self, number: int) -> None:
        """The first process makes those that are due; the others wait for it, however long."""
        if self.previews:
            if self.run.processes.leads:
                self.previews.after(number)
            if self.previews.due(number):
                self.run.processes.gather(None)

    def train_step(self, stage: Stage, step: Step, optimizer: Optimizer) -> dict[str, float]:
        """Choose branches, run them, update. Returns everything worth plotting, by path."""
        began = perf_counter()
        rate = learning_rate(stage, step.index)
        for group in optimizer.param_groups:
            group["lr"] = rate
        self.model.engine.clear(optimizer)
        chosen = self.choose_branches(stage, step)
        values = self.run_branches(stage, step, chosen)
        try:
            norm = self.model.engine.update(optimizer, stage.clip)
        except NonFiniteGradient as error:
            culprit = self.blame(stage, step, chosen, optimizer)
            raise JtError(f"step {step.number}, {culprit}: {error}") from error
        for name in stage.trained:
            found = self.model.adapters[name].scalars()
            values |= {f"adapter.{name}.{key}": [value] for key, value in found.items()}
        here, scalars = f"stage.{step.stage}", means(values)
        seconds = perf_counter() - began
        return scalars | {
            f"{here}.lr": rate,
            f"{here}.grad_norm": norm,
            f"{here}.step_seconds": seconds,
        }

    def choose_branches(self, stage: Stage, step: Step) -> Sequence[str]:
        rng = shared_random(self.recipe.seed, step.stage, step.index)
        return self.hook.jt_choose_branches(stage=stage, step=step, rng=rng)

    def run_branches(self, stage: Stage, step: Step, chosen: Sequence[str]) -> Values:
        """Forward and backward of these branches, as often as gradients accumulate."""
        values: Values = {}
        for micro in range(stage.accumulate):
            for name in chosen:
                branch = self.make_branch(stage, step, name, micro)
                scalars = self.hook.jt_run_branch(branch=branch, step=step)
                for key, value in scalars.items():
                    values.setdefault(key, []).append(value)
        return values

    def make_branch(self, stage: Stage, step: Step, name: str, micro: int) -> Branch:
        """A branch with its batch and randomness: a function of the seed and the step alone.

        Several processes draw what one would that accumulates as many times as much.
        """
        settings, leader = stage.branch[name], stage.shares_noise(name)
        processes = self.run.processes
        draw = (step.index * stage.accumulate + micro) * processes.size + processes.rank
        here = (self.recipe.seed, step.stage, name, draw)
        rng = generator(*here)
        shared = generator(self.recipe.seed, step.stage, leader, draw, "noise") if leader else rng
        drawn = stage.branch[leader or name]
        torch.manual_seed(seed_of(*here, "dropout"))
        parts = [self._part(source, step.stage, draw, shared) for source in settings.data]
        if settings.drop_text:
            empty = self.model.texts[""]
            parts = [drop_text(part, settings.drop_text, empty, rng) for part in parts]
        return Branch(
            path=f"stage.{step.stage}.branch.{name}",
            settings=settings,
            backbone=self.model.backbone,
            adapters={adapter: self.model.adapters[adapter] for adapter in settings.adapters},
            parts=tuple(parts),
            rng=rng,
            draws=Draws(drawn.times, drawn.noise),
            noise_rng=shared,
            words=self.model.words,
            autocast=self.model.engine.autocast,
            backward=lambda loss: self.model.engine.backward(loss / stage.accumulate),
        )

    def blame(self, stage: Stage, step: Step, chosen: Sequence[str], optimizer: Optimizer) -> str:
        """The first branch whose gradient alone is not finite: each is run again, just alike."""
        for name in chosen:
            self.model.engine.clear(optimizer)
            self.run_branches(stage, step, [name])
            if not self.model.engine.finite(optimizer):
                return f"stage.{step.stage}.branch.{name}"
        return f"stage.{step.stage}, all branches together"

    def _part(self, source: str, stage: str, draw: int, rng: torch.Generator):
        stream = self.streams[source]
        return stream.part((self.recipe.seed, stage), draw, rng, self.model.texts)

    def _checkpoint(self, step: Step, optimizer: Optimizer, average: Weights) -> None:
        """Save where due, at the stage's end, and where a signal asks to end."""
        done, stop = step.index + 1, self.run.processes.any(self.stopping())
        if not (
            stop or done == step.steps or (step.number + 1) % self.recipe.checkpoint.every == 0
        ):
            return
        state, values = self.model.engine.optimizer_state(optimizer)
        tensors = {f"optimizer/{name}": tensor for name, tensor in state.items()}
        tensors |= {f"average/{name}": tensor for name, tensor in average.items()}
        values["scaler"] = self.model.engine.scaler.state_dict()
        values["processes"] = self.run.processes.size
        for name, adapter in self.model.adapters.items():
            state = self.model.engine.state_dict(adapter)
            tensors |= {f"adapter.{name}/{k}": v for k, v in state.items()}
        position = Position(step.stage, done, step.number + 1)
        if self.run.processes.leads:
            checkpoint = Checkpoint(position, tensors, values)
            save_checkpoint(self.run.checkpoints, checkpoint, self.recipe.checkpoint.keep)
        if stop:
            raise Interrupted

    def _restore(self, optimizer: Optimizer, average: Weights, checkpoint: Checkpoint) -> None:
        engine, values = self.model.engine, checkpoint.values
        engine.load_optimizer_state(optimizer, checkpoint.of("optimizer"), values)
        engine.scaler.load_state_dict(values["scaler"])
        for name, tensor in checkpoint.of("average").items():
            average[name].copy_(tensor)

    def _save(self, adapters: Mapping[str, Adapter], average: Weights) -> None:
        """Write what is trained, before anything else can fail."""
        for name, adapter in adapters.items():
            state = {**self.model.engine.state_dict(adapter)}
            state |= {key: average[f"{name}/{key}"] for key in state if f"{name}/{key}" in average}
            if self.run.processes.leads:
                path = self.run.adapter_file(name)
                save_adapter(path, name, self.recipe, adapter, state=state)

    @torch.no_grad()
    def _move_average(
        self, average: Weights, adapters: Mapping[str, Adapter], decay: float | None
    ) -> None:
        for name, parameter in _named(adapters).items() if average else ():
            with self.model.engine.whole([parameter]):
                average[name].lerp_(parameter, 1 - decay)


def _mean(scalars: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of what processes say, by name; of one, as it is."""
    if len(scalars) == 1:
        return scalars[0]
    names = dict.fromkeys(name for each in scalars for name in each)
    return {name: fmean(each[name] for each in scalars if name in each) for name in names}


def means(values: Values) -> dict[str, float]:
    """Of each path. All tensors are read at once, when the step is over: until then nothing waits
    for the device."""
    told = [value for each in values.values() for value in each]
    tensors = [value.detach() for value in told if isinstance(value, Tensor)]
    alike = [tensor.to(tensors[0].device, torch.float64) for tensor in tensors]
    read = iter(torch.stack(alike).tolist() if alike else ())
    numbers = {
        path: [next(read) if isinstance(value, Tensor) else value for value in each]
        for path, each in values.items()
    }
    return {path: sum(each) / len(each) for path, each in numbers.items()}


def _parameters(adapters: Mapping[str, Adapter]) -> dict[str, list[nn.Parameter]]:
    return {name: list(adapter.parameters()) for name, adapter in adapters.items()}


def _named(adapters: Mapping[str, Adapter]) -> dict[str, nn.Parameter]:
    return {
        f"{owner}/{name}": parameter
        for owner, adapter in adapters.items()
        for name, parameter in adapter.named_parameters()
    }


def _copy(adapters: Mapping[str, Adapter]) -> Weights:
    return {name: p.detach().clone() for name, p in _named(adapters).items()}


@torch.no_grad()
def _use(average: Weights, adapters: Mapping[str, Adapter]) -> None:
    """The averaged weights take the place of the last ones."""
    if average:
        for name, parameter in _named(adapters).items():
            parameter.copy_(average[name])
