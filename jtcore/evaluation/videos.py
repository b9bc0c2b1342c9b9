"""Which videos are measured: those of a run, or of a folder, with their prompts and seeds."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from jtcore.data import caption_file
from jtcore.decode import VIDEOS
from jtcore.errors import JtError
from jtcore.evaluation.measuring import Video
from jtcore.lines import read_lines
from jtcore.run import read_json

OWN_RESULTS = "evaluation"  # a folder of ours, beside those of models
OF_NO_MODEL = {OWN_RESULTS, "references"}
OF_REQUEST = re.compile(r"(?P<number>\d+)-seed(?P<seed>\d+)")  # as `jt-run` and `jt-sample` write
OF_PROMPT = re.compile(r"\d+-(?P<words>.+?)-(?:seed)?(?P<seed>\d+)")
CURES = "give --prompts FILE with one a line, or name files NUMBER-prompt-words-SEED.mp4"


def of_run(folder: Path) -> list[Video]:
    """The samples of a finished run, of each model. Raises JtError."""
    results = read_json(folder / "metrics.json")
    if results is None:
        if not (folder / "run.json").is_file():
            raise JtError(
                f"{folder}: not a run directory: it has no run.json; a folder of videos is given as"
                " --videos DIR"
            )
        raise JtError(f"{folder}: the run is not finished; continue it with jt-run --resume")
    return _listed(folder / "samples", results.get("samples", []), folder)


def of_folder(folder: Path, prompts: Path | None) -> list[Video]:
    """Videos of a folder; where it has folders of videos, each is of one model. Raises JtError.

    Prompts are lines of a file, in the order of the files' names, or by number where names are
    NUMBER-seedSEED; without it those that `jt-sample` left, a `.txt` beside each video, or the
    words of the names. Where names hold no seed, videos of one prompt are counted from 0.
    """
    if not folder.is_dir():
        raise JtError(f"--videos: {str(folder)!r} is not a folder")
    if prompts is None and (samples := read_json(folder / "samples.json")):
        return _listed(folder, samples, folder)
    models = _models(folder)
    if not models:
        raise JtError(f"--videos: {str(folder)!r} holds no video, nor a folder with videos")
    lines = None if prompts is None else read_lines(str(prompts))
    found, problems = [], []
    for model, files in models.items():
        try:
            found += _of_model(model, files, lines, prompts)
        except JtError as error:
            problems += error.problems
    if problems:
        raise JtError(problems)
    return found


def _listed(folder: Path, entries: Sequence[dict], place: Path) -> list[Video]:
    videos = [Video(folder / e["file"], e["model"], e["prompt"], e["seed"]) for e in entries]
    if not videos:
        raise JtError(f"{place}: has no samples; its recipe has no [sample]")
    if gone := [video.file for video in videos if not video.file.is_file()]:
        raise JtError(f"{path}: is not there any more" for path in gone)
    return videos


def _models(folder: Path) -> dict[str, list[Path]]:
    """Files of each model in order of name."""
    if files := _videos(folder):
        return {folder.resolve().name: files}
    folders = (p for p in folder.iterdir() if p.is_dir() and p.name not in OF_NO_MODEL)
    inner = sorted(folders, key=lambda path: (path.name != "base", path.name))
    return {path.name: files for path in inner if (files := _videos(path))}


def _videos(folder: Path) -> list[Path]:
    known = (p for p in folder.iterdir() if p.suffix.lower()[1:] in VIDEOS | {"gif"})
    return sorted(p for p in known if not p.name.startswith(".") and p.is_file())


def _of_model(
    model: str, files: Sequence[Path], lines: Sequence[str] | None, prompts: Path | None
) -> list[Video]:
    asked = _read(files) if lines is None else list(_by_line(files, lines, prompts))
    counts: Counter[str] = Counter()
    videos = []
    for file, (prompt, seed) in zip(files, asked, strict=True):
        videos.append(Video(file, model, prompt, counts[prompt] if seed is None else seed))
        counts[prompt] += 1
    return _distinct(videos)


def _by_line(
    files: Sequence[Path], lines: Sequence[str], prompts: Path | None
) -> Iterator[tuple[str, int | None]]:
    """Of each file its prompt and seed. Raises JtError where there are not as many lines."""
    numbered = [OF_REQUEST.fullmatch(file.stem) for file in files]
    if all(numbered):
        wanted = max(int(match["number"]) for match in numbered) + 1
        if wanted > len(lines):
            raise JtError(
                f"--prompts: {prompts} has {len(lines)} prompts, and {files[0].parent} has videos"
                f" of number {wanted - 1}, which needs {wanted}"
            )
        yield from ((lines[int(match["number"])], int(match["seed"])) for match in numbered)
    elif len(lines) != len(files):
        raise JtError(
            f"--prompts: {prompts} has {len(lines)} prompts, and {files[0].parent} has"
            f" {len(files)} videos; expected a line for each, in the order of their names"
        )
    else:
        for file, line in zip(files, lines, strict=True):
            match = OF_PROMPT.fullmatch(file.stem) or OF_REQUEST.fullmatch(file.stem)
            yield line, int(match["seed"]) if match else None


def _read(files: Sequence[Path]) -> list[tuple[str, int | None]]:
    """What stands beside each file, or what its name says. Raises JtError naming those of which
    nothing is known."""
    asked = [_beside(file) or _of_name(file) for file in files]
    if unknown := [file for file, found in zip(files, asked, strict=True) if found is None]:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise JtError(f"{unknown[0]}{more}: no prompt is known; {CURES}")
    return asked


def _beside(file: Path) -> tuple[str, int | None] | None:
    try:
        text = " ".join(caption_file(file).read_text(encoding="utf-8").split())
    except (JtError, UnicodeDecodeError):
        return None
    match = OF_REQUEST.fullmatch(file.stem) or OF_PROMPT.fullmatch(file.stem)
    return (text, int(match["seed"]) if match else None) if text else None


def _of_name(file: Path) -> tuple[str, int] | None:
    match = None if OF_REQUEST.fullmatch(file.stem) else OF_PROMPT.fullmatch(file.stem)
    return (" ".join(re.split(r"[-_]+", match["words"])), int(match["seed"])) if match else None


def _distinct(videos: Sequence[Video]) -> list[Video]:
    """Raises JtError where two of a model have one prompt and seed: which pairs they belong to
    would be a guess."""
    seen: dict[tuple[str, int], Video] = {}
    for video in videos:
        other = seen.setdefault((video.prompt, video.seed), video)
        if other is not video:
            raise JtError(
                f"{video.file}: has the prompt and seed of {other.file.name}; expected"
                " another name for one of them"
            )
    return list(videos)
