"""The exam of a pretrained pocket: does a video show what its prompt says?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from attrs import evolve, field, frozen

from jtcore.statistics import Interval, mean_interval, wilson

from .captions import caption, sentence
from .creatures import Creature, draw_assembled, draw_colours, pick
from .held_out import COMBINATIONS, NAMEABLE, is_held_out
from .measure import films
from .measure.grounds import find_background
from .measure.likeness import likenesses
from .measure.paths import is_on_path, is_whole_track, path_error
from .measure.success import CORRELATION, has_sprite
from .measure.tracking import colours_of, count_objects, track
from .models import Pocket, sample
from .motions import PHRASES, REACH
from .sprites import SHAPES, Background, Shape, Sprite
from .world import Scene, draw_scene, draw_shape, render

BATCH = 24  # videos sampled at once
RIGHT = 0.95  # the rate that a base must reach
STEADY = 0.5  # px, the jitter that it must not exceed
UNSEEN = 0.8  # of the rate for what was seen; and the rate of shapes whose place is unsaid
JITTER = "jitter, px"
DIRECTIONS = ("left", "right", "up", "down", "northwest", "northeast", "southwest", "southeast")

Answers = Mapping[str, bool | float]  # by question; what cannot be asked of a scene is left out


@frozen
class Topic:
    """One kind of prompt: whose sprites, which motion, and what is said"""

    name: str
    sprite: Callable[[np.random.Generator], Sprite]
    motions: Sequence[str] = tuple(PHRASES)
    say: Callable[[Scene], str] = caption
    bars: Mapping[str, float] = field(factory=dict)  # what a base must reach, by question
    seen: str | None = None  # the topic of which UNSEEN of the rates must be reached instead

    def scene(self, rng: np.random.Generator) -> Scene:
        motion = pick(rng, self.motions)
        return evolve(draw_scene(rng, motion=motion), sprite=self.sprite(rng))


@frozen
class Result:
    """How often, or how far, videos of a topic were right in one respect"""

    topic: str
    question: str
    real: float  # of true clips through the codec
    generated: Interval
    bar: float | None  # None where nothing is asked
    sprites: int  # how many different ones the topic's prompts asked for


def exam(pocket: Pocket, videos: int, seed: int, report: Callable[[str], None]) -> Iterator[Result]:
    """Ask every question of `videos` generated videos for each topic."""
    rates: dict[tuple[str, str], float] = {}
    for index, topic in enumerate(TOPICS):
        report(f"{topic.name}: {videos} videos")
        rng = np.random.default_rng([seed, index])
        scenes = [topic.scene(rng) for _ in range(videos)]
        real = _marks(through_codec(pocket, scenes), scenes)
        noise = torch.Generator().manual_seed(int(rng.integers(2**63)))
        generated = _marks(generate(pocket, [topic.say(scene) for scene in scenes], noise), scenes)
        sprites = len({scene.sprite for scene in scenes})
        for question, marks in generated.items():
            found = _interval(marks)
            rates[topic.name, question] = found.estimate
            bar = bar_of(topic, question, rates)
            right = float(np.mean(real[question]))
            yield Result(topic.name, question, right, found, bar, sprites)


def through_codec(pocket: Pocket, scenes: Sequence[Scene]) -> np.ndarray:  # (B, 3, F, H, W), [0, 1]
    """True clips as the codec leaves them: what no generated video can surpass."""
    clips = render(scenes) / 2 + 0.5
    return np.stack([films.through_codec(clip, pocket.codec) for clip in clips])


def generate(pocket: Pocket, prompts: Sequence[str], rng: torch.Generator) -> np.ndarray:
    """Videos (B, 3, F, H, W) in [0, 1]."""
    batches = (prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH))
    return _unit(torch.cat([sample(pocket, batch, rng) for batch in batches]))


def answers(video: np.ndarray, scene: Scene) -> Answers:
    """What is right of a video (3, F, SIZE, SIZE) in [0, 1] that should show `scene`."""
    background = find_background(video)
    path = track(video, background)
    right: dict[str, bool | float] = {
        "background": background == scene.background,
        "named motion": is_on_path(path, scene.motion),
        "one object, of frames": float((count_objects(video, background) == 1).mean()),
    }
    if scene.motion in DIRECTIONS:
        right["direction"] = right["named motion"]
    if scene.motion == "stays":
        right[JITTER] = _jitter(path)
    return right | _looks(video, scene.sprite, background)


def _jitter(path: np.ndarray) -> float:  # (F, 2) px -> px
    """How far it is from standing still; REACH where there is not an object in every frame."""
    return path_error(path, "stays") if is_whole_track(path) else REACH


def bar_of(topic: Topic, question: str, rates: Mapping[tuple[str, str], float]) -> float | None:
    """What a base must reach; None where nothing is asked of it.

    `rates` are those so far, by topic and question; jitter is a distance, and no rate.
    """
    rated = topic.seen and question != JITTER
    seen = rates.get((topic.seen, question)) if rated else None
    return topic.bars.get(question) if seen is None else UNSEEN * seen


def _looks(video: np.ndarray, sprite: Sprite, background: Background) -> Answers:
    if isinstance(sprite, Creature):
        return {"creature": has_sprite(video, sprite)}
    colour = next(iter(colours_of(video, background)), None)
    return {
        "colour": colour == sprite.colour,
        "shape": colour is not None and _shape(video, colour, background) == sprite.name,
    }


def _shape(video: np.ndarray, colour: str, background: Background) -> str | None:
    """The shape whose template fits best; None where it does not fit well.

    Whatever its colour, and less strict than `has_sprite`, which demands a margin over the others.
    """
    shapes = [Shape(name, colour) for name in SHAPES]
    fits = dict(zip(SHAPES, likenesses(video, shapes, background), strict=True))
    means = {name: fit.correlation.mean() for name, fit in fits.items()}
    best = max(means, key=means.get)
    return best if means[best] > CORRELATION else None


def _marks(videos: np.ndarray, scenes: Sequence[Scene]) -> Mapping[str, list[bool | float]]:
    marks = defaultdict(list)
    for video, scene in zip(videos, scenes, strict=True):
        for question, right in answers(video, scene).items():
            marks[question].append(right)
    return marks


def _interval(marks: Sequence[bool | float]) -> Interval:
    if all(isinstance(mark, bool | np.bool_) for mark in marks):
        return wilson(int(sum(marks)), len(marks))
    return mean_interval([float(mark) for mark in marks])


def _unit(videos: torch.Tensor) -> np.ndarray:
    return (videos.clamp(-1, 1) / 2 + 0.5).numpy()


def _unplaced(scene: Scene) -> str:
    phrase, sprite = PHRASES[scene.motion][0], scene.sprite
    return sentence(sprite.look, sprite.name, phrase, background=scene.background.words)


def _known_shape(rng: np.random.Generator) -> Shape:
    return _seen(draw_shape, rng)


def _known_creature(rng: np.random.Generator) -> Creature:
    return _seen(lambda rng: draw_assembled(rng, draw_colours(rng)), rng)


def _unseen_shape(rng: np.random.Generator) -> Shape:
    colour, name = pick(rng, sorted(COMBINATIONS))
    return Shape(name, colour)


def _unseen_creature(rng: np.random.Generator) -> Creature:
    return pick(rng, NAMEABLE.values())


def _seen(draw: Callable[[np.random.Generator], Sprite], rng: np.random.Generator) -> Sprite:
    while is_held_out(sprite := draw(rng)):
        pass
    return sprite


SCENES = dict.fromkeys(("background", "direction", "named motion", "one object, of frames"), RIGHT)
SHAPELY = SCENES | {"colour": RIGHT, "shape": RIGHT}
TOPICS = (
    Topic("shapes", _known_shape, bars=SHAPELY),
    Topic("shapes that stay", _known_shape, motions=("stays",), bars=SHAPELY | {JITTER: STEADY}),
    Topic("shapes in colours never seen on them", _unseen_shape, seen="shapes"),
    Topic("shapes, place unsaid", _known_shape, say=_unplaced, bars={"shape": UNSEEN}),
    Topic("creatures", _known_creature, bars=SCENES),
    Topic("held-out creatures, told part by part", _unseen_creature),
)
