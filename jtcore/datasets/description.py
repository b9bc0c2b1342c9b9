"""A dataset as a file describes it: its subjects, its motions, and which pairs are asked for.

A person may edit the file: give names their articles, take pairs away, ask for other prompts.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter

import tomli_w
from attrs import Attribute, field, frozen
from attrs.validators import deep_iterable, min_len, optional

from jtcore.datasets.layout import Layout, words_of
from jtcore.errors import JtError
from jtcore.near import did_you_mean
from jtcore.structure import structure
from jtcore.tables import parse_toml

HEADER = """\
# Captions and prompts are made of `words` and `action`, which are the folders' names: put in what
# they leave out ("playing the flute"). Pairs that are not wanted can be taken away.
"""


def _with(*names: str):
    """A validator: text in whose braces stand these names alone."""

    def check(instance: object, attribute: Attribute, text: str | None) -> None:
        try:
            odd = {gap for _, gap, _, _ in Formatter().parse(text or "") if gap is not None}
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}; write braces twice") from error
        if odd - {*names}:
            raise ValueError(f"expected {' or '.join(f'{{{n}}}' for n in names)}, got {text!r}")

    return check


_PROMPT = _with("subject", "motion", "action")


@frozen
class Subject:
    """A folder of pictures

    words: what stands for {subject} in captions and prompts
    """

    source: str
    words: str


@frozen
class Motion:
    """Folders of clips, by name: of other lengths, and of the same motion

    words: what stands for {motion} in captions; action: for {action} in prompts
    """

    sources: Mapping[str, str] = field(validator=min_len(1))
    words: str
    action: str


@frozen
class Pair:
    """A subject that is to do a motion

    prompts: in place of those of all pairs
    """

    subject: str
    motion: str
    prompts: tuple[str, ...] | None = field(
        default=None, validator=optional([min_len(1), deep_iterable(_PROMPT)])
    )


@frozen
class Dataset:
    """Subjects, motions, and the pairs of them

    subject_caption, motion_caption: of folders whose files have none beside them
    prompts: of each pair
    frames: of the clips, by their name among `sources`
    """

    subject: Mapping[str, Subject] = field(validator=min_len(1))
    motion: Mapping[str, Motion] = field(validator=min_len(1))
    pair: Mapping[str, Pair] = field(validator=min_len(1))
    prompts: tuple[str, ...] = field(validator=[min_len(1), deep_iterable(_PROMPT)])
    frames: Mapping[str, int] = field(validator=min_len(1))
    subject_caption: str = field(default="{subject}", validator=_with("subject"))
    motion_caption: str = field(default="{motion}", validator=_with("motion", "action"))
    title: str = ""

    def prompts_of(self, pair: Pair) -> list[str]:
        words = self.words_of("subject", pair.subject) | self.words_of("motion", pair.motion)
        return [text.format(**words) for text in pair.prompts or self.prompts]

    def words_of(self, what: str, name: str) -> dict[str, str]:
        """What stands for `{WORD}` in prompts, of a "subject" or a "motion"."""
        if what == "subject":
            return {"subject": self.subject[name].words}
        return {"motion": self.motion[name].words, "action": self.motion[name].action}

    def caption_of(self, named: Subject | Motion) -> str:
        if isinstance(named, Subject):
            return self.subject_caption.format(subject=named.words)
        return self.motion_caption.format(motion=named.words, action=named.action)


def read_dataset(path: Path) -> Dataset:
    """Raises JtError with every problem."""
    try:
        dataset = structure(Dataset, parse_toml(path), None)
        if problems := list(_name_problems(dataset)):
            raise JtError(problems)
    except JtError as error:
        raise JtError(f"{path}: {problem}" for problem in error.problems) from error
    return dataset


def describe(root: Path, layout: Layout) -> str:
    """TOML of what is in a folder, all subjects with all motions; sources are as seen from where
    the command runs. Raises JtError where there is no subject, or no motion."""
    subjects, motions = layout.subject_folders(root), layout.motion_folders(root)
    if not subjects or not motions:
        raise JtError(f"{root}: has no {'motions' if subjects else 'subjects'}; jt-data check it")
    words = {name: words_of(name) for name in (*subjects, *motions)}
    named = {name: _key(name) for name in words}
    table = {
        "title": layout.title,
        "subject_caption": layout.subject_caption,
        "motion_caption": layout.motion_caption,
        "prompts": list(layout.prompts),
        "frames": {name: clips.frames for name, clips in layout.clips.items()},
        "subject": {
            named[name]: {"source": folder.as_posix(), "words": words[name]}
            for name, folder in subjects.items()
        },
        "motion": {
            named[name]: {
                "words": words[name],
                "action": layout.action_of(words[name]),
                "sources": {clips: folder.as_posix() for clips, folder in found.items()},
            }
            for name, found in motions.items()
        },
        "pair": {
            f"{named[subject]}-{named[motion]}": {
                "subject": named[subject],
                "motion": named[motion],
            }
            for subject in subjects
            for motion in motions
        },
    }
    return f"# What jt-data found in {root}.\n{HEADER}{tomli_w.dumps(table)}"


def _key(name: str) -> str:
    """As a name of a table may be."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)


def _name_problems(dataset: Dataset) -> Iterator[str]:
    for name, pair in dataset.pair.items():
        for what in ("subject", "motion"):
            known, asked = getattr(dataset, what), getattr(pair, what)
            if asked not in known:
                yield f"pair.{name}.{what}: unknown {what} {asked!r}; {did_you_mean(asked, known)}"
    for name, motion in dataset.motion.items():
        for clips in motion.sources:
            if clips not in dataset.frames:
                yield f"motion.{name}.sources.{clips}: frames.{clips} is missing"
