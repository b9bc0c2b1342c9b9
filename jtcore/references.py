"""Pictures that adapters are conditioned on: frames of the clips that they learn, and, where they
sample, the picture of a subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import evolve
from torch import Generator, Tensor

from jtcore.cache import Cache
from jtcore.clips import read_clips
from jtcore.data import Data, reference_files
from jtcore.decode import read_image
from jtcore.errors import JtError
from jtcore.files import sha256
from jtcore.framing import flip
from jtcore.lending import lent
from jtcore.rng import generator
from jtcore.stream import Stream, clips_key
from jtcore.types import ImageEncoder, ImageEncoderSpec, Part, Reference

if TYPE_CHECKING:
    from jtcore.recipe import Recipe, SampledReference

Embed = dict[str, Tensor]


def embed_references(
    recipe: Recipe, streams: Mapping[str, Stream], cache: Cache, device: torch.device
) -> tuple[dict[str, Stream], dict[str, Tensor]]:
    """The streams with their references, and (E,) by path of the picture that is sampled with."""
    if recipe.image_encoder is None:
        return dict(streams), {}
    spec, shown = recipe.image_encoder.spec, {}
    for name, stream in streams.items():
        if (found := embed_frames(recipe.data[name], spec, cache, device)) is not None:
            pairs = zip(stream.items, found, strict=True)
            stream = evolve(stream, items=[evolve(item, reference=each) for item, each in pairs])
        shown[name] = stream
    asked = recipe.sample and recipe.sample.reference
    return shown, embed_pictures({asked.picture} if asked else set(), spec, cache, device)


def embed_frames(
    data: Data, spec: ImageEncoderSpec, cache: Cache, device: torch.device
) -> list[Tensor] | None:
    """Of each file of a table with references, those of its variants: (V, R, E), on the CPU.

    "frame" is one of the variant's own, drawn once and for all, "random_frame" all of them; a path
    is that picture for all.
    The encoder is loaded only for what the cache does not have, and freed. Raises JtError.
    """
    if data.reference is None:
        return None
    found = []
    with lent(lambda: spec.load(device), device) as encoder:
        for path in reference_files(data):
            key = clips_key(path, data, device) | {"what": "reference", "encoder": spec.identity()}
            if data.reference_picture is not None:
                key |= {"picture": sha256(Path(data.reference_picture))}
            if data.reference == "random_frame":
                key |= {"of": "all frames"}
            embed = partial(_embed_variants, path, data, encoder, device)
            found.append(cache.get_or_make(key, embed)["reference"])
    return found


def embed_pictures(
    paths: set[str], spec: ImageEncoderSpec, cache: Cache, device: torch.device
) -> dict[str, Tensor]:
    """Of each picture, or the first frame of what moves, its (E,) by path, on the CPU."""
    found = {}
    with lent(lambda: spec.load(device), device) as encoder:
        for path in sorted(paths):
            key = {"what": "picture", "file": sha256(Path(path)), "encoder": spec.identity()}
            key |= {"device": device.type}
            embed = partial(_embed_picture, path, encoder, device)
            found[path] = cache.get_or_make(key, embed)["picture"]
    return found


def shown(part: Part, dropped: float = 0.0, rng: Generator | None = None) -> Reference | None:
    """What a pass over a part is conditioned on. With the chance `dropped` the embedding of a
    sample is zero, which leaves the biases of conditions on; at 0 nothing is drawn."""
    if part.reference is None:
        return None
    embedding = part.reference
    if dropped:
        kept = torch.rand(len(embedding), generator=rng) >= dropped
        embedding = embedding * kept.to(embedding)[:, None]
    return Reference(embedding, embedding.new_ones(len(embedding)))


def sampled(
    settings: SampledReference | None,
    pictures: Mapping[str, Tensor],
    videos: int,
    halves: int,
    device: torch.device,
) -> Reference | None:
    """What the videos of a batch, or both of its halves, the negative first, are conditioned on."""
    if settings is None:
        return None
    picture = pictures[settings.picture].to(device)
    prompted = picture, torch.tensor(settings.strength)
    negative = {
        "none": (torch.zeros_like(picture), torch.tensor(0.0)),
        "zero": (torch.zeros_like(picture), torch.tensor(settings.strength)),
        "same": prompted,
    }[settings.negative]
    embeddings, strengths = zip(*[negative, prompted][-halves:], strict=True)
    return Reference(
        torch.stack(embeddings).repeat_interleave(videos, 0),
        torch.stack(strengths).to(device).repeat_interleave(videos),
    )


def reference_problems(recipe: Recipe) -> Iterator[str]:
    """Pictures that cannot be read, image encoders that are missing, unused, or of a width that
    adapters do not read, and adapters that are trained without ever being shown a picture."""
    yield from _picture_problems(recipe)
    shows = [f"data.{name}" for name, data in recipe.used_data.items() if data.reference]
    shows += ["sample"] if recipe.sample and recipe.sample.reference else []
    reads = {
        name: width
        for name, adapter in recipe.adapter.items()
        if (width := getattr(adapter.spec, "reference_width", None)) is not None
    }
    if recipe.image_encoder is None:
        places = [f"{place}.reference" for place in shows]
        places += [f"adapter.{name}.reference_width" for name in reads]
        yield from (f"{place}: there is no [image_encoder]" for place in places)
        return
    if not shows:
        yield "image_encoder: neither data nor [sample] has a reference"
    try:
        width = recipe.image_encoder.spec.width()
    except JtError as error:
        yield from (f"image_encoder.{problem}" for problem in error.problems)
        return
    for name, read in reads.items():
        if read != width:
            yield f"adapter.{name}.reference_width: expected {width}, the encoder's; got {read}"
        if shows and not _shown_while_trained(recipe, name):
            yield (
                f"adapter.{name}.reference_width: no branch that trains it has data with a"
                " reference, so that its condition would learn nothing; give some a reference, or"
                " leave reference_width out"
            )


def _shown_while_trained(recipe: Recipe, adapter: str) -> bool:
    """Also of an adapter that nobody trains."""
    branches = [branch for branch in recipe.branches.values() if adapter in branch.trained]
    data = {name for branch in branches for name in branch.data}
    return not branches or any(recipe.data[name].reference for name in data)


def _picture_problems(recipe: Recipe) -> Iterator[str]:
    pictures = {
        f"data.{name}.reference": data.reference_picture
        for name, data in recipe.used_data.items()
        if data.reference_picture is not None
    }
    if recipe.sample and recipe.sample.reference:
        pictures["sample.reference.picture"] = recipe.sample.reference.picture
    for place, picture in pictures.items():
        yield from (f"{place}: {problem}" for problem in picture_problems(picture))


def picture_problems(path: str) -> list[str]:
    """Why a picture cannot be read."""
    try:
        read_image(Path(path))
    except JtError as error:
        return list(error.problems)
    return []


def _embed_picture(path: str, encoder: Callable[[], ImageEncoder], device: torch.device) -> Embed:
    return {"picture": _embed([read_image(Path(path))], encoder(), device)[0]}


@torch.no_grad()
def _embed_variants(
    path: Path, data: Data, encoder: Callable[[], ImageEncoder], device: torch.device
) -> Embed:
    clips, _ = read_clips(path, data)
    variants = [*clips, *map(flip, clips)] if data.flip else clips
    if data.reference_picture is not None:
        picture = _embed([read_image(Path(data.reference_picture))], encoder(), device)
        return {"reference": picture.repeat(len(variants), 1, 1)}
    if data.reference == "random_frame":
        every = [_embed(clip.split(1, 1), encoder(), device) for clip in variants]
        return {"reference": torch.stack(every)}
    frames = []
    for number, clip in enumerate(variants):
        at = torch.randint(clip.shape[1], (), generator=generator(sha256(path), "frame", number))
        frames.append(clip[:, at : at + 1])
    return {"reference": _embed(frames, encoder(), device)[:, None]}


@torch.no_grad()
def _embed(
    pictures: Sequence[Tensor], encoder: ImageEncoder, device: torch.device
) -> Tensor:  # uint8 (3, 1, height, width) each -> (len(pictures), E)
    return torch.stack(
        [encoder.embed((each[None, :, 0].float() / 255).to(device))[0].cpu() for each in pictures]
    )
