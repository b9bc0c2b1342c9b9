"""What a download lacks of a dataset: folders, files, frames."""

from collections.abc import Iterator
from pathlib import Path

from jtcore.data import caption_file, source_files
from jtcore.datasets.layout import Layout, numbered
from jtcore.decode import timeline
from jtcore.errors import JtError

Problems = Iterator[str]


def problems(root: Path, layout: Layout) -> list[str]:
    """All that is missing or broken; each begins with where in `root`. Every file is opened, and
    clips are decoded to their ends."""
    if not root.is_dir():
        return ["there is no such folder"]
    return [*_folder_problems(root, layout), *_pair_problems(root, layout), *_files(root, layout)]


def described(root: Path, layout: Layout) -> str:
    """What there is, in a line."""
    subjects, motions = layout.subject_folders(root), layout.motion_folders(root)
    clips = ", ".join(
        f"{sum(name in of for of in motions.values())} as {name}" for name in layout.clips
    )
    pairs = len(subjects) * len(motions)
    return f"{len(subjects)} subjects, {len(motions)} motions ({clips}): {pairs} pairs"


def _folder_problems(root: Path, layout: Layout) -> Problems:
    """Folders that are not there, and motions that only some of the clips have."""
    for folder in (layout.subjects, *(clips.folder for clips in layout.clips.values())):
        if not (root / folder).is_dir():
            packed = ", ".join(sorted(path.name for path in root.glob(f"{folder}*.zip")))
            yield f"{folder}: there is no such folder{f'; unpack {packed}' if packed else ''}"
        elif not any(path.is_dir() for path in (root / folder).iterdir()):
            yield f"{folder}: has no folders in it"
    motions = layout.motion_folders(root)
    for clips, table in layout.clips.items():
        lacking = [name for name, found in motions.items() if clips not in found]
        if lacking and (root / table.folder).is_dir():
            yield f"{table.folder}: lacks {', '.join(lacking)}, which another folder of clips has"


def _pair_problems(root: Path, layout: Layout) -> Problems:
    subjects, motions = layout.subject_folders(root), layout.motion_folders(root)
    found = len(subjects) * len(motions)
    if subjects and motions and layout.pairs and found < layout.pairs:
        yield (
            f"{len(subjects)} subjects with {len(motions)} motions make {found} pairs, and"
            f" {layout.pairs} are known of: subjects or motions are missing"
        )


def _files(root: Path, layout: Layout) -> Problems:
    for folder in layout.subject_folders(root).values():
        yield from _of_folder(root, folder, 1)
    for found in layout.motion_folders(root).values():
        for clips, folder in found.items():
            yield from _of_folder(root, folder, layout.clips[clips].frames)


def _of_folder(root: Path, folder: Path, frames: int) -> Problems:
    """Numbers that are left out, and files that cannot be read or are too short."""
    place = folder.relative_to(root)
    try:
        paths = source_files(str(folder))
    except JtError:
        yield f"{place}: has no files in it"
        return
    numbers = numbered(paths)
    first, last = min(numbers, default=0), max(numbers, default=0)
    if gaps := sorted({*range(0 if first > 1 else first, last)} - numbers.keys()):
        missing = ", ".join(f"{gap:02d}" for gap in gaps)
        yield (
            f"{place}: {missing} {'are' if len(gaps) > 1 else 'is'} missing before"
            f" {numbers[last].name}"
        )
    for path in paths:
        yield from _of_file(path, place / path.name, frames)


def _of_file(path: Path, place: Path, frames: int) -> Problems:
    try:
        found = len(timeline(path).starts)
    except JtError as error:
        told = str(error).removeprefix(f"{path}: ")
        yield f"{place}: {told}; fetch it again"
        return
    if found < frames:
        yield f"{place}: has {found} of {frames} frames"


def captioned(folder: Path) -> bool:
    """Whether every file has its caption beside it."""
    try:
        return all(caption_file(path) for path in source_files(str(folder)))
    except JtError:
        return False
