"""Whether an object goes where a box leads it: on drawn scenes, and what pocket does with a box."""

import pytest
import torch

from jtcore.engine import Engine
from jtcore.model import Model
from jtcore.plugins import load_plugins
from jtcore.recipe import Sampling
from jtcore.sample import denoise, requests
from jtcore.settings import EngineSettings
from jtcore.structure import structure
from jtcore.types import Sample
from jtcore.words import finder
from jtplugins.backbones.pocket import Pocket
from jtplugins.metrics.box_following import BoxFollowing
from jtplugins.pocket.sprites import Background, Shape
from jtplugins.pocket.world import Scene, render

CPU = torch.device("cpu")
ACROSS = [{"at": 0.0, "box": [0.25, 0.0, 0.75, 0.5]}, {"at": 1.0, "box": [0.25, 0.5, 0.75, 1.0]}]


def measured(path: list, video: torch.Tensor) -> dict[str, float]:  # (3, F, H, W) in [0, 1]
    metric = structure(BoxFollowing, {"path": path}, load_plugins()).load(CPU)
    return dict(metric(Sample(video, "a red ball moves right on gray", seed=0, fps=8.0)))


def drawn(motion: str) -> tuple[Scene, torch.Tensor]:
    scene = Scene(Shape("ball", "red"), motion, "mid", Background("gray"))
    return scene, torch.from_numpy(render([scene])[0]) / 2 + 0.5


def around(scene: Scene, half: float, off: float = 0.0) -> list:
    """Keyframes of a box of 2 `half` px that follows the truth, `off` px below it."""
    centres = scene.centres() / 24
    low, high, down = -half / 24, half / 24, off / 24
    return [
        {"at": i / 7, "box": [y + low + down, x + low, y + high + down, x + high]}
        for i, (y, x) in enumerate(centres.tolist())
    ]


@pytest.mark.parametrize("motion", ["right", "clockwise"])
def test_an_object_in_a_box_that_follows_it_is_always_in(motion):
    scene, video = drawn(motion)
    found = measured(around(scene, 2.0), video)
    assert found["box_following"] == 1
    assert found["box_distance_px"] < 0.5


def test_a_box_beside_it_is_as_far_as_it_is_and_nothing_is_in_it():
    scene, video = drawn("right")
    found = measured(around(scene, 2.0, off=5.0), video)
    assert found["box_following"] == 0
    assert found["box_distance_px"] == pytest.approx(5, abs=0.3)


def test_where_a_standing_object_is_passed_it_is_in_for_as_long():
    _, video = drawn("stays")
    path = [{"at": 0.0, "box": [0, 0, 1, 0.5]}, {"at": 1.0, "box": [0, 1.0, 1, 1.5]}]
    assert measured(path, video)["box_following"] == 0.5  # left edges 0, 3.4, ..., 24; it is at 12


def test_without_an_object_nothing_is_in_the_box_and_there_is_no_distance():
    ground = torch.from_numpy(Background("gray").pixels(24)).float()
    assert measured(ACROSS, ground[:, None].expand(-1, 8, -1, -1)) == {"box_following": 0.0}


@pytest.fixture(scope="module")
def distance():
    """How far balls of the shipped pocket are from a box that crosses the frame, with controls."""
    spec, prompt = Pocket(), "a red ball stays on gray"
    encoder, codec = spec.load_text_encoder(CPU), spec.load_codec(CPU)
    texts = {each: encoder.embed([each])[0] for each in (prompt, "")}
    engine = Engine(EngineSettings(device="cpu"))
    words = finder(spec, {})
    model = Model(spec.load(CPU, torch.float32), {}, texts, engine, words=words)

    def run(**controls) -> float:
        table = {"prompts": [prompt], "frames": 8, "size": [24, 24], "steps": 10, "guidance": 2}
        table |= {"seeds": [0, 1, 2], "batch": 3, "control": controls}
        settings = structure(Sampling, table, load_plugins())
        latents = denoise(list(requests(settings, {})), settings, model, (48, 8, 4, 4))
        videos = (codec.decode(latents) / 2 + 0.5).clamp(0, 1)
        return sum(measured(ACROSS, video)["box_distance_px"] for video in videos) / 3

    return run


def test_an_object_of_pocket_follows_a_box(distance):
    box = {"kind": "box_attention", "phrase": "a red ball", "path": ACROSS, "scale": 10}
    led = distance(box={**box, "unit": "fraction", "until": 1})
    assert led < 2 < 3 < distance()  # px


def test_the_picture_of_pocket_moves_with_the_latents(distance):
    """Away from the box: two cells of six px to the left, while it goes to the right."""
    still = distance(left={"kind": "latent_shift"})
    assert still == distance()
    moved = {"kind": "latent_shift", "right": -16, "unit": "fraction", "between": [0.3, 0.6]}
    assert distance(left=moved) > still + 1
