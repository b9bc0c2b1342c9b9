"""The `[data.NAME]` tables of a recipe: which files, how they are framed, what is wrong with them.

Recipes are read without torch: only checks that open files import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from glob import glob
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from attrs import Attribute, field, frozen
from attrs.validators import deep_iterable, ge, gt, in_, le, min_len, optional

from jtcore.errors import JtError
from jtcore.zoom import Zoom, prefixed

if TYPE_CHECKING:
    from jtcore.types import BackboneSpec

MaskResize = Literal["area", "nearest"]
FRAMES = ("frame", "random_frame")  # references that are of the clip itself
CAPTIONS = tuple(map("".join, product(".", "tT", "xX", "tT")))  # .txt first, then .txT, .tXt, ...


def _with_one_gap(instance: object, attribute: Attribute, templates: tuple[str, ...]) -> None:
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"expected one {{}} in each, for the caption, got {template!r}")


@frozen
class Data:
    """Pictures or videos with captions, as an endless stream of samples of one shape

    source: a file, a folder or a pattern like `clips/*.mp4`, from where the command runs
    size: height and width; a picture is scaled to cover them, then its centre is cut out
    prompt: the caption of every file; without it each has a `.txt` of its own name beside it
    frames: of a clip; 1 takes single pictures, out of videos as well
    batch: samples of a draw
    fps: frames per second, taken by the times that the file states
    stride: every n-th frame; without `fps` and `stride` a clip is spread over the whole file
    clips: how many clips are cut from a file, evenly placed; a draw takes one of them
    short: a file with too few frames is an "error", or its last frame is held: "repeat"
    flip: half of the draws are mirrored
    masks: a folder with a PNG of the same name for each picture: white where the subject is
    mask_resize: a latent's mask is the mean of its pixels, "area", or that of one, "nearest"
    reference: what the image encoder shows to adapters that read it: "frame", one of the clip's
        own, drawn once for each clip; "random_frame", one drawn anew each time; or the path of a
        picture
    templates: in each draw, the caption stands in place of the {} of one of these
    zoom: shown smaller or larger, with captions that say so; its masks are where the picture is
    """

    source: str
    size: tuple[int, int] = field(validator=deep_iterable(ge(1)))
    prompt: str | None = None
    frames: int = field(default=1, validator=ge(1))
    batch: int = field(default=1, validator=ge(1))
    fps: float | None = field(default=None, validator=optional(gt(0)))
    stride: int | None = field(default=None, validator=optional(ge(1)))
    clips: int = field(default=1, validator=[ge(1), le(1000)])
    short: Literal["error", "repeat"] = field(default="error", validator=in_(("error", "repeat")))
    flip: bool = False
    masks: str | None = None
    mask_resize: MaskResize = field(default="area", validator=in_(get_args(MaskResize)))
    reference: str | None = None
    templates: tuple[str, ...] = field(default=("{}",), validator=[min_len(1), _with_one_gap])
    zoom: Zoom | None = None

    def __attrs_post_init__(self) -> None:
        if self.fps is not None and self.stride is not None:
            raise ValueError("expected fps or stride, got both")
        if self.zoom is not None and self.reference is not None:
            raise ValueError("expected zoom or reference, got both")
        if self.mask_resize != "area" and not self.has_masks:
            raise ValueError("expected masks with mask_resize")

    @property
    def medium(self) -> Literal["image", "video"]:
        """What its parts are to a loss."""
        return "image" if self.frames == 1 else "video"

    @property
    def has_masks(self) -> bool:
        return self.masks is not None or self.zoom is not None

    @property
    def reference_picture(self) -> str | None:
        """The path of the picture that all files have as their reference, if they have one."""
        return None if self.reference in FRAMES else self.reference


def data_problems(name: str, data: Data, spec: BackboneSpec) -> list[str]:
    """All that would stop training on the data; each begins with its place in the recipe."""
    place = f"data.{name}"
    found = list(shape_problems(place, data, spec))
    try:
        for path in reference_files(data):
            found += _file_problems(place, path, data)
    except JtError as error:
        found.append(f"{place}.source: {error}")
    return found


def reference_files(data: Data) -> list[Path]:
    """Its pictures and videos, as `source_files` finds them. Raises JtError."""
    return source_files(data.source)


def source_files(named: str) -> list[Path]:
    """The pictures and videos of a file, a folder or a pattern, in order of name; hidden files and
    captions are passed over.

    A link that leads nowhere is among them: whoever opens it says so. Raises JtError where there
    is none.
    """
    source = Path(named)
    try:
        files = sorted(p for p in _found(source) if _may_be_shown(p) and not p.is_dir())
    except (OSError, ValueError) as error:  # not ours to read, too long, or with a null byte
        raise JtError(f"{named!r} cannot be read: {error}") from error
    if not files:
        what = "is a folder without" if source.is_dir() else "matches no"
        raise JtError(f"{named!r} {what} picture or video")
    return files


def _found(source: Path) -> Iterable[Path]:
    if source.is_dir():
        return source.iterdir()
    if source.exists():  # a name may hold what would be a pattern
        return [source]
    return map(Path, glob(str(source), recursive=True))  # noqa: PTH207 - absolute ones too


def captions(data: Data) -> list[str]:
    """All that may be said of each file, in the order of `reference_files`.

    Raises JtError that names every file without one.
    """
    found, problems = [], []
    for path in reference_files(data):
        try:
            found += phrasings(caption(path, data), data)
        except JtError as error:
            problems += error.problems
    if problems:
        raise JtError(problems)
    return found


def known_captions(tables: Iterable[Data]) -> list[str]:
    """Of the tables whose captions can be read: what is wrong with the others is told with them."""
    found = []
    for data in tables:
        with suppress(JtError):
            found += captions(data)
    return found


def caption(path: Path, data: Data) -> str:
    """What is seen in a file. Raises JtError."""
    if data.prompt is not None:
        return data.prompt
    beside = caption_file(path)
    try:
        words = beside.read_text(encoding="utf-8").split()
    except UnicodeDecodeError as error:
        raise JtError(f"{beside}: expected UTF-8, got byte {error.start} {error.reason}") from error
    if not words:
        raise JtError(f"{beside}: is empty, expected the caption of {path.name}")
    return " ".join(words)


def phrasings(caption: str, data: Data) -> list[str]:
    """All that may be said of what has a caption, as `phrase` says it."""
    said = [phrase(caption, template) for template in data.templates]
    return said if data.zoom is None else [each for one in said for each in data.zoom.captions(one)]


def phrase(caption: str, template: str, prefix: str = "") -> str:
    return prefixed(prefix, template.replace("{}", caption))


def caption_file(path: Path) -> Path:
    """The text beside a picture or video. Raises JtError where there is none."""
    beside = next((p for p in map(path.with_suffix, CAPTIONS) if p.is_file()), None)
    if beside is None:
        raise JtError(f"{path}: has no caption; give `prompt`, or write {path.stem}.txt beside it")
    return beside


def _may_be_shown(path: Path) -> bool:
    return path.suffix not in CAPTIONS and not path.name.startswith(".")


def shape_problems(place: str, data: Data, spec: BackboneSpec) -> Iterator[str]:
    """The first of size and frames that the backbone cannot take."""
    for key, frames in (("size", 1), ("frames", data.frames)):
        try:
            spec.latent_shape(frames, *data.size)
        except ValueError as error:
            yield f"{place}.{key}: {error}"
            return
        except JtError as error:  # of the backbone, whose weights may not be there
            yield from error.problems
            return


def _file_problems(place: str, path: Path, data: Data) -> Iterator[str]:
    from jtcore.clips import clips_of, read_mask

    checks = {"prompt": caption, "source": clips_of}
    if data.masks is not None:
        checks["masks"] = read_mask
    for key, check in checks.items():
        try:
            check(path, data)
        except JtError as error:
            yield from (f"{place}.{key}: {problem}" for problem in error.problems)
            if key == "source":
                return  # a mask cannot be compared to what cannot be read
