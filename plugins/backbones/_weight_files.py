"""Which files hold a network's weights, whether they are whole, and what tells them apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attrs import frozen

from ._hub import Source

if TYPE_CHECKING:
    import torch

STEMS = {  # of files with safetensors, and with a pickle
    "diffusers": ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
    "transformers": ("model.safetensors", "pytorch_model.bin"),
}
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
LFS_POINTER = b"version https://git-lfs"
WHOLE = 64 * 2**20  # bytes up to which a file is hashed whole
BLOCKS, BLOCK = 64, 64 * 2**10  # of a larger one, how many and of how many bytes
Missing = Callable[[Sequence[str]], list[str]]  # which of some files of a part are not there


@frozen
class WeightFiles:
    """All files of a network's weights"""

    shards: tuple[Path, ...]
    index: Path | None  # which tensor is in which shard, where there are several

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.index, *self.shards) if self.index else self.shards

    @property
    def safe(self) -> bool:
        """Whether they are safetensors."""
        return self.shards[0].suffix == ".safetensors"

    def dtype(self) -> torch.dtype:
        """Of their first tensor with a floating point. Raises UnpicklingError where a .bin holds
        more than tensors."""
        import torch
        from safetensors import safe_open

        if self.safe:
            with safe_open(self.shards[0], "pt") as file:
                names = [file.get_slice(name).get_dtype() for name in file.keys()]  # noqa: SIM118
            dtypes = [getattr(torch, FLOATS[name]) for name in names if name in FLOATS]
        else:
            read = torch.load(self.shards[0], map_location="meta", weights_only=True)
            tensors = [each for each in dict(read).values() if torch.is_tensor(each)]
            dtypes = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        return next(iter(dtypes), torch.float32)


def find_weights(source: Source, part: str, library: str, variant: str | None) -> WeightFiles:
    """The weights of a part, as diffusers or transformers names them; of a hub id they are fetched.

    safetensors are taken before .bin. Raises ValueError that says what is missing or not whole.
    """

    def folder(names: Sequence[str]) -> Path:
        return source.root([f"{part}/{name}" for name in ("config.json", *names)]) / part

    def missing(names: Sequence[str]) -> list[str]:
        fetched = folder(names)
        return [name for name in names if not (fetched / name).is_file()]

    index, names = _choose(source, part, library, variant, missing)
    found = WeightFiles(tuple(folder(names) / name for name in names), index)
    for shard in found.shards:
        _raise_if_cut_off(shard)
    return found


def raise_if_unlisted(source: Source, part: str, library: str, variant: str | None) -> None:
    """Raises ValueError where `find_weights` would for what is missing; no weights are fetched."""
    there = set(source.names(part))
    _choose(source, part, library, variant, lambda names: [n for n in names if n not in there])


def _choose(
    source: Source, part: str, library: str, variant: str | None, missing: Missing
) -> tuple[Path | None, list[str]]:
    """An index, where there is one, and the names of all files."""
    for name in STEMS[library]:
        if found := _named(source, part, name, variant, missing):
            return found
    there = sorted(variants(source.names(part), library), key=str)
    if variant in there:
        raise ValueError("has shards of weights, but not the *.index.json that lists them")
    if variant and there:
        told = " and ".join(repr(one) if one else "one without a name" for one in there)
        raise ValueError(f"has no variant {variant!r}, but {told}")
    named = f"; set variant to {' or '.join(map(repr, there))}" if there else ""
    raise ValueError(f"has none of the files {', '.join(STEMS[library])}{named}")


def variants(files: Sequence[str], library: str) -> set[str | None]:
    """Of weights among file names; None for those of no variant."""
    found = set()
    for name in STEMS[library]:
        stem, _, end = name.partition(".")
        pattern = re.compile(rf"{stem}(?:\.(\w+))?(?:-\d+-of-\d+)?(?:\.(\w+))?\.{end}")
        for match in filter(None, map(pattern.fullmatch, files)):
            found.add(match[1] or match[2])
    return found


def _named(
    source: Source, part: str, name: str, variant: str | None, missing: Missing
) -> tuple[Path | None, list[str]] | None:
    stem, _, end = name.partition(".")
    between = f".{variant}" if variant else ""
    index = source.root([f"{part}/*.json"]) / part / f"{name}.index{between}.json"
    if not index.is_file():
        file = f"{stem}{between}.{end}"
        return None if missing([file]) else (None, [file])
    names = _shards(index)
    if lacking := missing(names):
        more = f" and {len(lacking) - 1} more of" if len(lacking) > 1 else " of"
        raise ValueError(f"lacks {lacking[0]}{more} {len(names)} files in its {index.name}")
    return index, names


def _shards(index: Path) -> list[str]:
    """The names of the files in an index. Raises ValueError where it is none."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"has an {index.name} that is not an index of weights") from error
    if not names or any(Path(name).name != name for name in names):
        raise ValueError(f"has an {index.name} that names other than files beside it")
    return names


def _raise_if_cut_off(file: Path) -> None:
    """A file of safetensors is as long as its header says. Raises ValueError."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        if opened.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"has only a pointer to {file.name}; `git lfs pull` fetches the file")
        if file.suffix != ".safetensors":
            return
        opened.seek(0)
        length = 8 + int.from_bytes(opened.read(8), "little")
        try:
            header = json.loads(opened.read(length - 8)) if length <= size else None
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name[0] != "_"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise ValueError(f"has a {file.name} that is cut off, or not safetensors") from None
    expected = length + max(ends, default=0)
    if size != expected:
        raise ValueError(f"has a {file.name} of {size} bytes, where its header says {expected}")


def digest(files: Mapping[str, Path]) -> str:
    """Hexadecimal digits that change with the content of `files`, told by their names.

    Of files larger than 64 MiB the size, the first block (in safetensors the names, types and
    shapes) and 64 evenly spaced blocks of 64 KiB are looked at.
    """
    made = sha256()
    for name, file in sorted(files.items()):
        size = file.stat().st_size
        made.update(f"{name} {size}\n".encode())
        with file.open("rb") as opened:
            made.update(_whole(opened) if size <= WHOLE else _samples(opened, size))
    return made.hexdigest()


def _whole(file: BinaryIO) -> bytes:
    from hashlib import file_digest

    return file_digest(file, "sha256").digest()


def _samples(file: BinaryIO, size: int) -> bytes:
    made = sha256()
    length = 8 + int.from_bytes(file.read(8), "little")  # of a safetensors header
    made.update(file.read(min(length, WHOLE)))
    for number in range(BLOCKS):
        file.seek(number * (size - BLOCK) // (BLOCKS - 1))
        made.update(file.read(BLOCK))
    return made.digest()
