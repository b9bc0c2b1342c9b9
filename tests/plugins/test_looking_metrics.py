"""Metrics that look through CLIP and DINO, against features that transformers makes of the same
files and formulas in numpy, on drawn media and on photographs and clips."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from attrs import evolve
from checkpoints.looking import (
    CLIP_NUMBERS,
    IMAGENET_NUMBERS,
    SIDE,
    build_clip,
    build_dino,
    build_dinov2,
    build_head,
)
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Model,
    ViTImageProcessorPil,
    ViTModel,
)

from jtcore.media import read_sample, write_video
from jtcore.types import MetricSpec, Sample
from jtplugins.controls._boxes import Keyframe
from jtplugins.metrics.aesthetic_quality import AestheticQuality
from jtplugins.metrics.background_consistency import BackgroundConsistency
from jtplugins.metrics.clip_image import ClipImage
from jtplugins.metrics.clip_temporal_consistency import ClipTemporalConsistency
from jtplugins.metrics.clip_text import ClipText
from jtplugins.metrics.copying_score import CopyingScore
from jtplugins.metrics.dino_image import DinoImage
from jtplugins.metrics.pickscore import PickScore
from jtplugins.metrics.region_clip import RegionClip
from jtplugins.metrics.region_dino import RegionDino
from jtplugins.metrics.subject_consistency import SubjectConsistency

CPU = torch.device("cpu")
SHARED = Path(__file__).parents[3] / "shared" / "data"
PROMPT = "a dog runs along the beach at night"
LONG = "a very large green dog plays guitar and jumps over the bicycle " * 9
CLOSE = 1e-5
FRAMES = 7  # of a clip that are measured
SMALL = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
ON_DISK = pytest.mark.skipif(not SHARED.is_dir(), reason="dog2 is not on this machine")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def picker(tmp_path_factory) -> Path:
    """A network with a processor of its own, of which nothing is used."""
    return build_clip(tmp_path_factory.mktemp("picker"), seed=1)


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> Path:
    return build_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory) -> Path:
    return build_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    return build_head(tmp_path_factory.mktemp("head") / "linear.pth")


class Media:
    """Pictures of a subject, a clip that is measured and one that was learned."""

    def __init__(self, subject: Path, clip: Path, learned: Path):
        self.subject, self.learned = str(subject), str(learned)
        video, fps = read_sample(clip)
        self.sample = Sample(video[:, :FRAMES].clone(), PROMPT, 0, fps)

    def frames(self, step: int = 1) -> list[Image.Image]:
        return images(self.sample.video[:, ::step])

    def photographs(self) -> list[Image.Image]:
        names = sorted(p for p in Path(self.subject).iterdir() if p.suffix in (".jpg", ".png"))
        return [Image.open(path).convert("RGB") for path in names]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Media:
    folder = tmp_path_factory.mktemp("media")
    (folder / "subject" / "masks").mkdir(parents=True)
    for number, shape in enumerate([(61, 84), (90, 55), (48, 48)]):
        Image.fromarray(smooth(number, 1, *shape)[0]).save(folder / "subject" / f"{number}.jpg")
    Image.fromarray(smooth(9, 1, 30, 30)[0]).save(folder / "subject" / "masks" / "0.png")
    clips = folder / "moving.mp4", folder / "learned.avi"
    for number, (path, fps) in enumerate(zip(clips, (16, 8), strict=True)):
        pixels = torch.from_numpy(smooth(20 + number, 7, 50, 71)).permute(3, 0, 1, 2)
        write_video(path, pixels / 255, fps)
    return Media(folder / "subject", *clips)


@pytest.fixture(scope="module", params=["drawn", pytest.param("real", marks=ON_DISK)])
def media(request) -> Media:
    if request.param == "drawn":
        return request.getfixturevalue("drawn")
    guitar = sorted((SHARED / "motions" / "playing_guitar").iterdir())[0]
    learned = SHARED / "motions" / "car_turn" / "car_turn.mp4"
    return Media(SHARED / "subjects" / "dog2", guitar, learned)


def smooth(seed: int, frames: int, height: int, width: int) -> NDArray:  # uint8 (F, H, W, 3)
    """As pictures are; frames drift and fade."""
    rng = np.random.default_rng(seed)
    first, last = rng.integers(0, 256, (2, 5, 6, 3)).astype(np.float32)
    ways = np.linspace(0, 0.8, frames)
    grown = [cv2.resize(first + w * (last - first), (width, height)) for w in ways]
    return np.stack(grown).clip(0, 255).round().astype(np.uint8)


def images(video: torch.Tensor) -> list[Image.Image]:  # (3, F, H, W) in [0, 1]
    pixels = (video.permute(1, 2, 3, 0) * 255).round().byte().numpy()
    return [Image.fromarray(frame) for frame in pixels]


def measured(spec: MetricSpec, sample: Sample) -> dict[str, float]:
    assert spec.problems() == []
    return dict(spec.load(CPU)(sample))


@torch.no_grad()
def clip_features(folder: Path, pixels: torch.Tensor) -> NDArray:  # (N, E), of length 1
    return unit(CLIPModel.from_pretrained(folder).eval().get_image_features(pixels).pooler_output)


@torch.no_grad()
def text_features(folder: Path, prompt: str, words: Path | None = None) -> NDArray:  # (E,)
    tokenizer = CLIPTokenizer.from_pretrained(words or folder)
    told = tokenizer([prompt], truncation=True, max_length=77, padding=True, return_tensors="pt")
    found = CLIPModel.from_pretrained(folder).eval().get_text_features(**told).pooler_output
    return unit(found)[0]


def unit(features: torch.Tensor) -> NDArray:
    found = features.double().numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def clip_pixels(pictures: list[Image.Image]) -> torch.Tensor:
    processor = CLIPImageProcessorPil(**SMALL)
    return processor(pictures, return_tensors="pt").pixel_values


def dino_pixels(pictures: list[Image.Image]) -> torch.Tensor:
    processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, **IMAGENET_NUMBERS)
    return processor(pictures, return_tensors="pt").pixel_values


@torch.no_grad()
def dino_features(folder: Path, pixels: torch.Tensor) -> NDArray:
    network = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    return unit(network(pixels).last_hidden_state[:, 0])


def vbench_pixels(pictures: list[Image.Image], filter: int, numbers: dict) -> torch.Tensor:
    """Floats scaled by OpenCV, which knows of no antialiasing either."""
    found = []
    for picture in pictures:
        pixels = np.asarray(picture).astype(np.float32)
        height, width = pixels.shape[:2]
        short = min(height, width)
        size = int(SIDE * width / short), int(SIDE * height / short)
        scaled = cv2.resize(pixels, size, interpolation=filter) / 255
        found.append((scaled - numbers["image_mean"]) / numbers["image_std"])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float()


def read_between(grid: NDArray, rows: int, columns: int) -> NDArray:  # (R, C, D)
    """Cubic convolution, a = -0.75, at the places of DINO's own code: of rows + 0.1."""
    for axis, count in enumerate((rows, columns)):
        size = grid.shape[axis]
        at = (np.arange(count) + 0.5) * size / (count + 0.1) - 0.5
        kept = np.zeros((count, size))
        for row, place in enumerate(at):
            for near in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
                kept[row, min(max(near, 0), size - 1)] += cubic(abs(place - near))
        grid = np.moveaxis(np.tensordot(kept, grid, (1, axis)), 0, axis)
    return grid


def cubic(x: float, a: float = -0.75) -> float:
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a


def centre(pixels: torch.Tensor) -> torch.Tensor:
    top, left = (round((side - SIDE) / 2) for side in pixels.shape[2:])
    return pixels[:, :, top : top + SIDE, left : left + SIDE]


def vbench(f: NDArray) -> float:  # (F, E)
    """As a loop over frames."""
    total = 0.0
    for i in range(1, len(f)):
        total += (max(0.0, f[i] @ f[i - 1]) + max(0.0, f[i] @ f[0])) / 2
    return total / (len(f) - 1)


def test_clip_text_is_the_mean_cosine_of_frames_and_prompt(clip, media):
    expected = clip_features(clip, clip_pixels(media.frames())) @ text_features(clip, PROMPT)
    found = measured(ClipText(model=str(clip)), media.sample)
    assert found == {"clip_text": pytest.approx(expected.mean(), abs=CLOSE)}


def test_what_the_network_does_not_read_of_a_prompt_is_cut_off_and_counted(clip, media):
    expected = clip_features(clip, clip_pixels(media.frames())) @ text_features(clip, LONG)
    found = measured(ClipText(model=str(clip)), evolve(media.sample, prompt=LONG))
    tokens = len(CLIPTokenizer.from_pretrained(clip)(LONG, verbose=False).input_ids)
    assert tokens > 77
    assert found["clip_text"] == pytest.approx(expected.mean(), abs=CLOSE)
    assert found["tokens_cut"] == tokens - 77


def test_clip_image_is_the_mean_cosine_of_frames_and_all_pictures(clip, media):
    frames = clip_features(clip, clip_pixels(media.frames()))
    pictures = np.concatenate([clip_features(clip, clip_pixels([p])) for p in media.photographs()])
    found = measured(ClipImage(model=str(clip), subject=media.subject), media.sample)
    assert found == {"clip_image": pytest.approx((frames @ pictures.T).mean(), abs=CLOSE)}


def test_dino_image_is_the_mean_cosine_of_class_tokens(dino, media):
    frames = dino_features(dino, dino_pixels(media.frames()))
    pictures = dino_features(dino, dino_pixels(media.photographs()))
    found = measured(DinoImage(model=str(dino), subject=media.subject), media.sample)
    assert found == {"dino_image": pytest.approx((frames @ pictures.T).mean(), abs=CLOSE)}


@torch.no_grad()
def test_dino_image_of_dinov2_prepares_and_embeds_as_that_does(dinov2, media):
    processor = BitImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": 28, "width": 28}, **IMAGENET_NUMBERS
    )
    network = Dinov2Model.from_pretrained(dinov2).eval()
    frames, pictures = (
        unit(network(processor(shown, return_tensors="pt").pixel_values).last_hidden_state[:, 0])
        for shown in (media.frames(), media.photographs())
    )
    found = measured(DinoImage(model=str(dinov2), subject=media.subject), media.sample)
    assert found == {"dino_image": pytest.approx((frames @ pictures.T).mean(), abs=CLOSE)}


def test_dino_image_as_dreamvideo_measures_cuts_out_of_a_larger_picture(dino, tmp_path):
    pixels = smooth(3, 5, 48, 48)
    Image.fromarray(pixels[0]).save(tmp_path / "first.png")
    video = torch.from_numpy(pixels).permute(3, 0, 1, 2) / 255
    processor = BitImageProcessorPil(**SMALL | {"size": {"shortest_edge": 37}}, **IMAGENET_NUMBERS)
    shown = processor(images(video), return_tensors="pt").pixel_values
    f = dino_features(dino, shown)
    spec = DinoImage(model=str(dino), subject=str(tmp_path), preparation="dreamvideo")
    found = measured(spec, Sample(video, PROMPT, 0, 8.0))
    assert found == {"dino_image": pytest.approx((f @ f[0]).mean(), abs=CLOSE)}
    assert found != measured(evolve(spec, preparation="checkpoint"), Sample(video, PROMPT, 0, 8.0))


def test_pickscore_is_scaled_and_prepared_as_its_processor_says(picker, clip, media):
    spec = PickScore(model=str(picker), processor=str(clip))
    frames = clip_features(picker, clip_pixels(media.frames()))
    expected = np.exp(3.0) * (frames @ text_features(picker, PROMPT, words=clip))
    found = measured(spec, media.sample)
    assert found == {"pickscore": pytest.approx(expected.mean(), abs=CLOSE * np.exp(3.0))}


def test_clip_temporal_consistency_is_the_mean_cosine_of_consecutive_frames(clip, media):
    f = clip_features(clip, clip_pixels(media.frames()))
    expected = np.mean([f[i] @ f[i + 1] for i in range(len(f) - 1)])
    found = measured(ClipTemporalConsistency(model=str(clip)), media.sample)
    assert found == {"clip_temporal_consistency": pytest.approx(expected, abs=CLOSE)}


def test_background_consistency_is_that_of_vbench(clip, media):
    pixels = centre(vbench_pixels(media.frames(), cv2.INTER_CUBIC, CLIP_NUMBERS))
    expected = vbench(clip_features(clip, pixels))
    found = measured(BackgroundConsistency(model=str(clip)), media.sample)
    assert found == {"background_consistency": pytest.approx(expected, abs=CLOSE)}


@torch.no_grad()
def test_subject_consistency_is_that_of_vbench(dino, media):
    """Of pictures that are no squares, for which positions are read between those learned."""
    pixels = vbench_pixels(media.frames(), cv2.INTER_LINEAR, IMAGENET_NUMBERS)
    network = ViTModel.from_pretrained(dino, add_pooling_layer=False).eval()
    embeddings = network.embeddings
    patches = embeddings.patch_embeddings(pixels)
    rows, columns = (side // 8 for side in pixels.shape[2:])
    known = embeddings.position_embeddings[0].numpy()
    if rows != columns:
        grid = read_between(known[1:].reshape(4, 4, -1), rows, columns)
        known = np.concatenate((known[:1], grid.reshape(rows * columns, -1)))
    tokens = torch.cat((embeddings.cls_token.expand(len(patches), -1, -1), patches), 1)
    tokens = tokens + torch.from_numpy(known).float()
    for layer in network.layers:
        tokens = layer(tokens, None)
    expected = vbench(unit(network.layernorm(tokens)[:, 0]))
    found = measured(SubjectConsistency(model=str(dino)), media.sample)
    assert found == {"subject_consistency": pytest.approx(expected, abs=CLOSE)}


def test_aesthetic_quality_is_the_mean_rating_of_frames_over_ten(clip, head, media):
    pixels = centre(vbench_pixels(media.frames(), cv2.INTER_CUBIC, CLIP_NUMBERS))
    held = torch.load(head, weights_only=True)
    ratings = clip_features(clip, pixels) @ held["weight"][0].double().numpy() + 5.0
    found = measured(AestheticQuality(model=str(clip), head=str(head)), media.sample)
    assert found == {"aesthetic_quality": pytest.approx(ratings.mean() / 10, abs=CLOSE)}


def test_copying_score_is_of_the_nearest_frame_of_the_references(dino, media):
    f, pictures, clip = (
        dino_features(dino, dino_pixels(shown))
        for shown in (
            media.frames(),
            media.photographs(),
            images(read_sample(Path(media.learned))[0]),
        )
    )
    nearest = np.concatenate([f @ pictures.T, f @ clip.T], 1).max(1)
    threshold = float(np.sort(nearest)[[-2, -1]].mean())  # one frame alone is above it
    spec = CopyingScore(
        model=str(dino), subject=media.subject, motion=media.learned, threshold=threshold
    )
    assert measured(spec, media.sample) == {
        "copying_score": 0.0,
        "frames_copied": pytest.approx(1 / len(f)),
        "subject_similarity": pytest.approx((f @ pictures.T).max(1).mean(), abs=CLOSE),
        "motion_similarity": pytest.approx((f @ clip.T).max(1).mean(), abs=CLOSE),
    }
    low = evolve(spec, threshold=float(nearest.mean()) - CLOSE)
    assert measured(low, media.sample)["copying_score"] == 1.0


def test_the_released_numbers_are_scaled_and_of_every_second_frame_of_16_per_second(clip, media):
    """Of 25 per second int(25 / 8) = 3: every third."""
    step = {16: 2, 25: 3}[round(media.sample.fps)]
    f = clip_features(clip, clip_pixels(media.frames(step)))
    first = clip_features(clip, clip_pixels(media.photographs()[:1]))[0]
    t = text_features(clip, PROMPT)
    expected = {
        "clip_text": (f @ t).mean(),
        "clip_image": (f @ first).mean(),
        "clip_temporal_consistency": (f[1:] * f[:-1]).sum(1).mean(),
    }
    options = {"model": str(clip), "compat": "jointtuner"}
    image = ClipImage(**options, subject=media.subject)
    for spec in (ClipText(**options), image, ClipTemporalConsistency(**options)):
        ((name, value),) = measured(spec, media.sample).items()
        assert value == pytest.approx(np.exp(3.0) * expected[name], abs=CLOSE * np.exp(3.0))
    pick = PickScore(model=str(clip), processor=str(clip), compat="jointtuner")
    value = measured(pick, media.sample)["pickscore"]
    assert value == pytest.approx(np.exp(3.0) * expected["clip_text"], abs=CLOSE * np.exp(3.0))


@pytest.fixture
def every(clip, dino, head, drawn) -> list[MetricSpec]:
    path = moving_box()
    of_clip = {"model": str(clip)}
    of_dino = {"model": str(dino)}
    return [
        ClipText(**of_clip),
        ClipImage(**of_clip, subject=drawn.subject),
        DinoImage(**of_dino, subject=drawn.subject),
        PickScore(**of_clip, processor=str(clip)),
        ClipTemporalConsistency(**of_clip),
        SubjectConsistency(**of_dino),
        BackgroundConsistency(**of_clip),
        AestheticQuality(**of_clip, head=str(head)),
        RegionClip(**of_clip, subject=drawn.subject, path=path),
        RegionDino(**of_dino, subject=drawn.subject, path=path),
        CopyingScore(**of_dino, subject=drawn.subject, motion=drawn.learned),
    ]


def moving_box() -> tuple[Keyframe, ...]:
    return Keyframe(0.0, (0.1, 0.0, 0.6, 0.5)), Keyframe(1.0, (0.4, 0.4, 0.9, 0.9))


def test_values_do_not_depend_on_how_many_frames_go_through_at_once(every, drawn):
    for spec in every:
        one, all_ = (measured(evolve(spec, batch=size), drawn.sample) for size in (1, 64))
        assert one == pytest.approx(all_, abs=1e-6)


def test_a_still_video_is_entirely_consistent_and_a_single_frame_has_no_value(every, drawn):
    still = evolve(drawn.sample, video=drawn.sample.video[:, :1].expand(-1, 4, -1, -1))
    single = evolve(drawn.sample, video=drawn.sample.video[:, :1])
    consistencies = [spec for spec in every if "Consistency" in type(spec).__name__]
    assert len(consistencies) == 3
    for spec in consistencies:
        ((_, value),) = measured(spec, still).items()
        assert value == pytest.approx(1, abs=1e-9)
        ((_, moving),) = measured(spec, drawn.sample).items()
        assert moving < 1 - 1e-6
        assert measured(spec, single) == {}


def test_a_video_of_the_reference_itself_is_entirely_alike(clip, dino, drawn, tmp_path):
    frame = drawn.frames()[0]
    frame.save(tmp_path / "frame.png")
    still = evolve(drawn.sample, video=drawn.sample.video[:, :1].expand(-1, 3, -1, -1))
    options = {"subject": str(tmp_path)}
    for spec in (ClipImage(model=str(clip), **options), DinoImage(model=str(dino), **options)):
        ((_, value),) = measured(spec, still).items()
        assert value == pytest.approx(1, abs=1e-9)
    copy = measured(CopyingScore(model=str(dino), **options), still)
    assert copy["copying_score"] == copy["frames_copied"] == 1.0
