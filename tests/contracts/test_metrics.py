"""What every metric must do, and what temporal consistency says."""

from pathlib import Path

import attrs
import pytest
import torch
from checkpoints.looking import build_clip, build_dino, build_head
from checkpoints.quality import build_musiq
from PIL import Image
from torch import Tensor

from jtcore.plugins import load_plugins
from jtcore.types import MetricSpec, Sample
from jtplugins.controls._boxes import Keyframe
from jtplugins.metrics.aesthetic_quality import AestheticQuality
from jtplugins.metrics.appearance_leak import AppearanceLeak
from jtplugins.metrics.background_adherence import BackgroundAdherence
from jtplugins.metrics.background_consistency import BackgroundConsistency
from jtplugins.metrics.background_leak import BackgroundLeak
from jtplugins.metrics.box_following import BoxFollowing
from jtplugins.metrics.clip_image import ClipImage
from jtplugins.metrics.clip_temporal_consistency import ClipTemporalConsistency
from jtplugins.metrics.clip_text import ClipText
from jtplugins.metrics.colour_similarity import ColourSimilarity
from jtplugins.metrics.copying_score import CopyingScore
from jtplugins.metrics.dino_image import DinoImage
from jtplugins.metrics.dynamic_degree import DynamicDegree
from jtplugins.metrics.dynamic_degree_distance import DynamicDegreeDistance
from jtplugins.metrics.flow_error import FlowError
from jtplugins.metrics.imaging_quality import ImagingQuality
from jtplugins.metrics.motion_fidelity import MotionFidelity
from jtplugins.metrics.motion_smoothness import MotionSmoothness
from jtplugins.metrics.pickscore import PickScore
from jtplugins.metrics.region_clip import RegionClip
from jtplugins.metrics.region_dino import RegionDino
from jtplugins.metrics.single_object import SingleObject
from jtplugins.metrics.sprite_identity import SpriteIdentity
from jtplugins.metrics.sprite_motion import SpriteMotion
from jtplugins.metrics.steadiness import Steadiness
from jtplugins.metrics.subject_consistency import SubjectConsistency
from jtplugins.metrics.success import Success
from jtplugins.metrics.temporal_consistency import TemporalConsistency
from jtplugins.metrics.temporal_flickering import TemporalFlickering

CPU = torch.device("cpu")
METRICS = [
    TemporalConsistency,
    SpriteIdentity,
    SpriteMotion,
    BackgroundAdherence,
    BackgroundLeak,
    AppearanceLeak,
    BoxFollowing,
    SingleObject,
    Steadiness,
    Success,
    ClipText,
    ClipImage,
    DinoImage,
    PickScore,
    SubjectConsistency,
    BackgroundConsistency,
    ClipTemporalConsistency,
    AestheticQuality,
    RegionClip,
    RegionDino,
    CopyingScore,
    ColourSimilarity,
    MotionFidelity,
    DynamicDegree,
    DynamicDegreeDistance,
    FlowError,
    TemporalFlickering,
    ImagingQuality,
    MotionSmoothness,
]
DINO = (DinoImage, SubjectConsistency, RegionDino, CopyingScore)
MODELS = {**dict.fromkeys(DINO, "dino"), ImagingQuality: "musiq"}  # of the others a CLIP
COMPARING = [  # with references that networks or flow have to look at
    *(ClipImage, DinoImage, RegionClip, RegionDino, CopyingScore),
    *(MotionFidelity, DynamicDegreeDistance, FlowError),
]
every_metric = pytest.mark.parametrize("kind", METRICS, ids=lambda kind: kind.__name__)


def sample(video: Tensor) -> Sample:  # (3, F, H, W) in [0, 1]
    return Sample(video, "a red ball moves left on gray", seed=0, fps=8.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Tiny networks, and a picture of a subject."""
    folder = tmp_path_factory.mktemp("files")
    build_clip(folder / "clip")
    build_dino(folder / "dino")
    build_musiq(folder / "musiq")
    build_head(folder / "head.pth")
    (folder / "subject").mkdir()
    Image.effect_noise((40, 30), 90).save(folder / "subject" / "0.png")
    return folder


@pytest.fixture
def metric(kind: type, data: Path, files: Path) -> MetricSpec:
    """One with defaults, but for what takes long and the files that it needs; `task` is of drawn
    data."""
    needed = {
        "task": str(data),
        "path": (Keyframe(0.0, (0.1, 0.1, 0.9, 0.9)),),
        "model": str(files / MODELS.get(kind, "clip")),
        "processor": str(files / "clip"),
        "head": str(files / "head.pth"),
        "subject": str(files / "subject"),
        "motion": str(data / "motion"),
        "grid": 12,  # of points a side: fewer than by default, which take seconds
    }
    if kind is ImagingQuality:  # which looks at hundreds of patches of each frame
        needed["frames"] = 1
    options = attrs.fields_dict(kind)
    if "model" in options and options["model"].default is None:  # it can do without
        del needed["model"]
    return kind(**{name: needed[name] for name in needed if name in options})


def noise(frames: int, side: int = 6) -> Tensor:  # (3, F, H, W)
    return torch.rand(3, frames, side, side, generator=torch.Generator().manual_seed(0))


def test_every_shipped_metric_is_on_the_list():
    shipped = load_plugins().families["metrics"]
    assert set(shipped.values()) <= set(METRICS)


@every_metric
def test_a_metric_answers_finite_numbers_and_leaves_the_video_alone(metric):
    video = noise(frames=5)
    before = video.clone()
    values = metric.load(CPU)(sample(video))
    assert values
    assert all(type(value) is float and abs(value) < float("inf") for value in values.values())
    assert torch.equal(video, before)


@every_metric
def test_a_metric_answers_alike_every_time_and_to_any_geometry(metric):
    loaded, again = metric.load(CPU), metric.load(CPU)
    for frames, side in ((1, 24), (3, 25), (8, 192), (12, 48)):
        video = noise(frames, side)
        assert loaded(sample(video)) == again(sample(video))


@pytest.mark.parametrize("kind", COMPARING, ids=lambda kind: kind.__name__)
def test_what_is_made_of_references_is_made_once(metric, tmp_path, monkeypatch):
    monkeypatch.setenv("JT_CACHE", str(tmp_path))
    shown = sample(noise(5, 48))
    first = metric.load(CPU)(shown)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns

    assert metric.load(CPU)(shown) == first
    assert [(path, path.stat().st_mtime_ns) for path in tmp_path.iterdir()] == [(kept, written)]
    kept.write_bytes(b"damaged")
    assert metric.load(CPU)(shown) == first


def consistency(video: Tensor) -> float:  # (3, F, H, W)
    return TemporalConsistency().load(CPU)(sample(video))["temporal_consistency"]


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_still_video_is_entirely_consistent(level):
    assert consistency(torch.full((3, 4, 6, 6), level)) == pytest.approx(1, abs=1e-12)
    assert consistency(noise(frames=1).expand(-1, 4, -1, -1)) == pytest.approx(1, abs=1e-12)


def test_it_is_the_mean_cosine_of_consecutive_frames():
    a, b, c = video = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]])  # (F, W)
    bright = 1e4 * video.view(1, 3, 1, 4).expand(3, -1, -1, -1)  # outshines the constant 1
    found = consistency(bright)
    expected = sum(torch.cosine_similarity(*pair, dim=0) for pair in ((a, b), (b, c))) / 2
    assert found == pytest.approx(expected.item(), abs=1e-6)


def test_flicker_costs_more_the_stronger_it_is():
    flicker = torch.tensor([0.0, 1.0] * 3).view(1, 6, 1, 1)
    values = [consistency(0.4 + 0.1 * noise(6) + level * flicker) for level in (0.0, 0.2, 0.5)]
    still = noise(frames=1).expand(-1, 6, -1, -1)
    moving = torch.stack([torch.roll(still[:, 0], step, -1) for step in range(6)], 1)
    assert values[0] > values[1] > values[2]
    assert consistency(still) > consistency(moving)


def test_a_single_frame_has_no_consistency():
    assert TemporalConsistency().load(CPU)(sample(noise(frames=1))) == {}
