"""Data and captions as the denoiser takes them: encoded once, cached, drawn without end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from attrs import frozen
from torch import Generator, Tensor
from torch.nn.functional import adaptive_avg_pool3d, interpolate

from jtcore.cache import Cache, digest
from jtcore.clips import mask_of, read_clips, read_mask, read_views, view_masks
from jtcore.data import Data, caption, phrase, reference_files
from jtcore.decode import is_transparent
from jtcore.errors import JtError
from jtcore.files import sha256
from jtcore.framing import flip
from jtcore.lending import lent
from jtcore.reading import read
from jtcore.rng import generator
from jtcore.types import BackboneSpec, Codec, Part, TextEncoder
from jtcore.zoom import View

SHAPING = (
    "decode.py",
    "framing.py",
    "zoom.py",
    "clips.py",
    "stream.py",
)  # the sources of what is encoded
CODE = digest({name: sha256(Path(__file__).with_name(name)) for name in SHAPING})
LIBRARIES = ", ".join(
    [f"torch {torch.__version__}"]  # its own word, which tells builds for other devices apart
    + [f"{name} {version(name)}" for name in ("av", "Pillow", "transformers", "diffusers")]
)
MUCH = 0.2  # the share of a picture from which cropping is told


@frozen(eq=False)
class Item:
    """A file, encoded: V variants, which are its clips, and then their mirror images; or views."""

    prompt: str
    latents: Tensor  # (V, C, F, H, W)
    mask: Tensor | None  # (V, 1, F, H, W) in [0, 1]
    reference: Tensor | None = None  # (V, R, E), of R pictures each
    prefixes: Sequence[str] = ()  # V, of captions, where the variants have any

    def says(self, variant: int, template: str) -> str:
        """The caption of a variant."""
        prefix = self.prefixes[variant] if self.prefixes else ""
        return phrase(self.prompt, template, prefix)


@frozen(eq=False)
class Stream:
    """The files of one `[data.NAME]` table, drawn without end. It has no state."""

    name: str
    items: Sequence[Item]
    batch: int
    device: torch.device  # of the parts; items wait on the CPU
    templates: Sequence[str] = ("{}",)  # of captions

    def __len__(self) -> int:
        """How many files there are."""
        return len(self.items)

    def part(
        self, seed: tuple[int | str, ...], draw: int, rng: Generator, texts: Mapping[str, Tensor]
    ) -> Part:
        """The samples of a draw, numbered from 0.

        Which files is a function of `seed` and `draw`: all in random order, then all in another.
        Which variant of each, which template, and which of several references is drawn from `rng`.
        `texts` has an (L, D) for each caption.
        """
        chosen = [self._file(seed, draw * self.batch + place) for place in range(self.batch)]
        variants = [
            int(torch.randint(len(self.items[file].latents), (), generator=rng)) for file in chosen
        ]
        templates = [self._template(rng) for _ in chosen]
        shown = [self._shown(file, rng) for file in chosen]
        return self._part(chosen, variants, templates, shown, texts)

    def single(self, index: int, texts: Mapping[str, Tensor]) -> Part:
        """The first clip of one file, as it is on disk, with the first template and reference."""
        return self._part([index], [0], self.templates[:1], [0], texts)

    def _file(self, seed: tuple[int | str, ...], position: int) -> int:
        epoch, place = divmod(position, len(self.items))
        order = torch.randperm(len(self.items), generator=generator(*seed, self.name, epoch))
        return int(order[place])

    def _template(self, rng: Generator) -> str:
        """Nothing is drawn where there is but one."""
        count = len(self.templates)
        return self.templates[int(torch.randint(count, (), generator=rng)) if count > 1 else 0]

    def _shown(self, file: int, rng: Generator) -> int:
        """Which of its references; nothing is drawn where there is but one."""
        reference = self.items[file].reference
        count = 1 if reference is None else reference.shape[1]
        return int(torch.randint(count, (), generator=rng)) if count > 1 else 0

    def _part(
        self,
        files: Sequence[int],
        variants: Sequence[int],
        templates: Sequence[str],
        shown: Sequence[int],
        texts: Mapping[str, Tensor],
    ) -> Part:
        items = [self.items[file] for file in files]
        pairs = list(zip(items, variants, strict=True))
        prompts = [i.says(v, each) for (i, v), each in zip(pairs, templates, strict=True)]
        masked, refers = items[0].mask is not None, items[0].reference is not None
        pictures = [i.reference[v, at] for (i, v), at in zip(pairs, shown, strict=True) if refers]
        return Part(
            latents=torch.stack([i.latents[v] for i, v in pairs]).to(self.device),
            text=torch.stack([texts[prompt] for prompt in prompts]).to(self.device),
            prompts=tuple(prompts),
            stream=self.name,
            mask=torch.stack([i.mask[v] for i, v in pairs]).to(self.device) if masked else None,
            files=tuple(files),
            reference=torch.stack(pictures).to(self.device) if refers else None,
        )


def load_stream(
    name: str,
    data: Data,
    spec: BackboneSpec,
    cache: Cache,
    device: torch.device,
    say: Callable[[str], None],
) -> Stream:
    """Encode the files of a table, as `load_items` does. Raises JtError."""
    items = load_items(f"data.{name}", data, spec, cache, device, say)
    return Stream(name, items, data.batch, device, data.templates)


def load_items(
    place: str,
    data: Data,
    spec: BackboneSpec,
    cache: Cache,
    device: torch.device,
    say: Callable[[str], None],
) -> list[Item]:
    """Encode the files that the cache does not have; the codec is loaded only for those, and
    freed. `say` is told what a person should know, beginning with the `place` in the recipe. Raises
    JtError."""
    items, cropped = [], {}
    with lent(lambda: spec.load_codec(device), device) as codec:
        for path in reference_files(data):
            key = _item_key(path, data, spec, device)
            views = data.zoom and data.zoom.draw(data.size, data.flip, digest(key))
            encode = partial(_encode, path, data, spec, codec, device, digest(key), views)
            found = cache.get_or_make(key, encode)
            prefixes = [view.prefix for view in views or ()]
            said = caption(path, data)
            items.append(Item(said, found["latents"], found.get("mask"), prefixes=prefixes))
            cropped[path.name] = float(found["cropped"])
            if found["transparent"]:
                say(f"{place}: {path.name}: its transparent pixels are laid on white")
    _tell_cropped(place, cropped, say)
    return items


def embed_texts(
    prompts: Sequence[str],
    spec: BackboneSpec,
    cache: Cache,
    device: torch.device,
    replaced: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """Each caption's embedding, (L, D), on the CPU, with the `replaced` words read as what they map
    to. The text encoder is loaded only for those that the cache does not have, and freed."""
    key = shaping(device) | {"what": "text", "encoder": spec.text_identity()}
    texts = {}
    with lent(lambda: spec.load_text_encoder(device), device) as encoder:
        for prompt in prompts:
            text = read(prompt, replaced or {}).text
            found = cache.get_or_make(key | {"prompt": text}, partial(_embed, encoder, text))
            texts[prompt] = found["text"]
    return texts


@torch.no_grad()
def _embed(encoder: Callable[[], TextEncoder], prompt: str) -> dict[str, Tensor]:
    return {"text": encoder().embed([prompt])[0]}  # alone: no other caption shapes it


def shaping(device: torch.device) -> dict[str, str]:
    """What shapes every tensor, whatever it is made of."""
    return {"code": CODE, "libraries": LIBRARIES, "device": device.type}


def _item_key(
    path: Path, data: Data, spec: BackboneSpec, device: torch.device
) -> dict[str, str | int | float | None]:
    """All that shapes an item's tensors."""
    mask = mask_of(path, data)
    unusual = {} if data.zoom is None else {"zoom": str(data.zoom)}
    unusual |= {} if data.mask_resize == "area" else {"mask_resize": data.mask_resize}
    return (
        clips_key(path, data, device)
        | unusual
        | {
            "what": "latents",
            "mask": sha256(mask) if mask else None,
            "codec": spec.codec_identity(),
        }
    )


def clips_key(path: Path, data: Data, device: torch.device) -> dict[str, str | int | float | None]:
    """All that shapes the clips of a file, and what a device makes of them."""
    height, width = data.size
    return shaping(device) | {
        "file": sha256(path),
        "kind": path.suffix.lower(),
        "height": height,
        "width": width,
        "frames": data.frames,
        "fps": data.fps,
        "stride": data.stride,
        "clips": data.clips,
        "short": data.short,
        "flip": data.flip,
    }


@torch.no_grad()
def _encode(
    path: Path,
    data: Data,
    spec: BackboneSpec,
    codec: Callable[[], Codec],
    device: torch.device,
    seed: str,
    views: Sequence[View] | None,
) -> dict[str, Tensor]:
    """The tensors of an `Item`; what the codec draws is a function of `seed` and the variant."""
    variants, share = _read_variants(path, data) if views is None else read_views(path, data, views)
    shape = spec.latent_shape(data.frames, *data.size)
    latents = []
    for number, pixels in enumerate(variants):
        scaled = (pixels[None].float() / 127.5 - 1).to(device)
        latents.append(codec().encode(scaled, generator(seed, number))[0].cpu())
        assert latents[-1].shape == shape, f"{latents[-1].shape} encoded, {shape} announced"
    made = {"latents": torch.stack(latents)}
    if not made["latents"].isfinite().all():
        raise JtError(f"{path}: the codec encodes it to numbers that are not finite")
    if data.has_masks:
        masks = _read_masks(path, data) if views is None else view_masks(path, data, views)
        resize = adaptive_avg_pool3d if data.mask_resize == "area" else _nearest
        made["mask"] = torch.stack([resize(mask.float() / 255, shape[1:]) for mask in masks])
    facts = {"cropped": share, "transparent": float(is_transparent(path))}
    return made | {name: torch.tensor(value) for name, value in facts.items()}


def _nearest(mask: Tensor, size: tuple[int, int, int]) -> Tensor:  # (1, F, H, W)
    return interpolate(mask[None], size, mode="nearest")[0]


def _read_variants(path: Path, data: Data) -> tuple[list[Tensor], float]:
    """The clips, and then their mirror images; and the share that was cropped away."""
    clips, share = read_clips(path, data)
    return [*clips, *map(flip, clips)] if data.flip else clips, share


def _read_masks(path: Path, data: Data) -> list[Tensor]:
    """Of those, each (1, 1, height, width)."""
    mask = read_mask(path, data)
    return [mask, flip(mask)] if data.flip else [mask]


def _tell_cropped(place: str, cropped: Mapping[str, float], say: Callable[[str], None]) -> None:
    """One line for all files."""
    much = sorted((file for file, share in cropped.items() if share > MUCH), key=cropped.get)
    if much:
        others = f", and more than {MUCH:.0%} of {len(much) - 1} others" if len(much) > 1 else ""
        say(f"{place}: {much[-1]}: {cropped[much[-1]]:.0%} of it is cropped away{others}")
