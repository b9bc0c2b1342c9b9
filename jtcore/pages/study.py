"""A blind comparison by people: pairs of videos on a page that does not know who made which, and
the key that does."""

import json
import random
import re
import secrets
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256 as hashed
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from jtcore.data import source_files
from jtcore.decode import timeline
from jtcore.errors import JtError
from jtcore.evaluation import videos
from jtcore.evaluation.measuring import Video
from jtcore.files import write_text
from jtcore.pages.contents import FACTS
from jtcore.pages.html import Shown, frame, row, safe_json
from jtcore.pages.media import anew, encode
from jtcore.run import read_json, write_json

QUESTIONS = {  # in the order in which they are asked
    "subject": "Which video's subject is more like the one in the reference pictures?",
    "motion": "Which video's motion is more like the one in the reference clips?",
    "overall": "Which video is better overall, for its text and to look at?",
}
RUNGS = ((512, 18), (384, 23), (256, 28))  # pixels of the short side, and x264's rate factor
PAGE = 128 * 2**20  # bytes of all videos, about: the first rung that keeps within is for all
TRIED = 4  # videos that this is judged by
PICTURES, CLIPS = 4, 2  # references of a page, at most
VERSION = 1

Methods = Mapping[str, Sequence[Video]]


@frozen
class Trial:
    """Two videos of one prompt and seed."""

    left: Video
    right: Video

    @property
    def key(self) -> dict[str, Any]:
        sides = {"left": self.left, "right": self.right}
        told = {
            side: {"method": v.model, "file": str(v.file.absolute()), "sha256": v.sha256}
            for side, v in sides.items()
        }
        return {"prompt": self.left.prompt, "seed": self.left.seed, **told}


def make(given: Namespace) -> tuple[Path, Path]:
    """Write `study.html`, for raters, and `key.json`, which they must not have. Raises JtError."""
    methods = _said(_methods(given.sources, given.prompts), given.say)
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    trials = draw(methods, seed, given.pairs)
    references = _references(given)
    questions = _questions(given.questions, references)
    rung = choose_rung([v.file for trial in trials for v in (trial.left, trial.right)])
    key = {
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": seed,
        "questions": questions,
        "ties": given.ties,
        "encoded": dict(zip(("side", "loss"), rung, strict=True)),
        "methods": list(methods),
        "trials": {f"pair-{n:03d}": trial.key for n, trial in enumerate(trials, 1)},
    }
    study = hashed(json.dumps(key).encode()).hexdigest()[:10]
    page = _page(study, given.title, questions, given.ties, trials, references, rung)
    write_text(given.out / "study.html", "\n".join(page) + "\n")
    write_json(given.out / "key.json", {"study": study, **key})
    return given.out / "study.html", given.out / "key.json"


def _said(methods: Methods, words: Sequence[str]) -> Methods:
    """With words of the prompts as raters shall read them, "WORD=TEXT" each. Raises JtError for one
    that no prompt has."""
    for said in words:
        word, separator, text = said.partition("=")
        pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
        videos = [video for each in methods.values() for video in each]
        if not (word and separator and any(pattern.search(video.prompt) for video in videos)):
            raise JtError(f"--say {said}: expected WORD=TEXT of a word that some prompt has")
        methods = {
            name: [evolve(v, prompt=_tidy(pattern.sub(lambda _, t=text: t, v.prompt))) for v in own]
            for name, own in methods.items()
        }
    return methods


def _tidy(prompt: str) -> str:
    """Without the gap that a word has left which is said as nothing."""
    return " ".join(prompt.split())


def draw(methods: Methods, seed: int, count: int | None = None) -> list[Trial]:
    """Every two methods on each prompt and seed that both have, at most `count` of each two, in
    random order; each method of two is on the left as often as on the right, or once more. Raises
    JtError where two share nothing."""
    rng, trials = random.Random(seed), []
    for one, other in combinations(methods, 2):
        asked = {(video.prompt, video.seed): video for video in methods[other]}
        pairs = [(v, asked[v.prompt, v.seed]) for v in methods[one] if (v.prompt, v.seed) in asked]
        if not pairs:
            raise JtError(f"{one} and {other} have no video of the same prompt and seed")
        rng.shuffle(pairs)
        pairs = pairs[:count]
        swapped = [bool(index % 2) for index in range(len(pairs))]
        rng.shuffle(swapped)
        trials += [
            Trial(*pair[::-1] if swap else pair) for pair, swap in zip(pairs, swapped, strict=True)
        ]
    rng.shuffle(trials)
    return trials


def choose_rung(files: Sequence[Path]) -> tuple[int, int]:
    """How all videos are encoded anew, whatever they are: so no method shows by its codec, nor by
    what its files tell."""
    tried = files[:: max(1, len(files) // TRIED)][:TRIED]
    for rung in RUNGS:
        if sum(len(encode(file, *rung)) for file in tried) / len(tried) * len(files) <= PAGE:
            break
    return rung


def _methods(sources: Sequence[str], prompts: Path | None) -> dict[str, list[Video]]:
    """The videos of each method, whose names they have as models. Raises JtError."""
    found: dict[str, list[Video]] = {}
    for source in sources:
        name, folder = _named(source)
        for model, own in _by_model(folder, prompts, len(sources)).items():
            method = name or folder.resolve().name
            method = method if model is None else f"{method} {model}"
            if method in found:
                raise JtError(f"{method}: is named twice; give one another name with NAME={folder}")
            found[method] = [Video(v.file, method, v.prompt, v.seed) for v in own]
    if len(found) < 2:
        raise JtError(f"{sources[0]}: has videos of one model; expected another to compare with")
    return found


def _by_model(folder: Path, prompts: Path | None, sources: int) -> dict[str | None, list[Video]]:
    """Of one run or folder all its models; of several, what each run has learned. None names what
    needs no name beside its folder's."""
    if not folder.is_dir():
        raise JtError(f"{folder}: is not a folder; expected a run directory, or one of videos")
    is_run = (folder / "run.json").is_file()
    own = videos.of_run(folder) if is_run else videos.of_folder(folder, prompts)
    models = list(dict.fromkeys(video.model for video in own))
    models.sort(key="base".__eq__)  # what is compared with comes last
    if is_run and sources > 1:
        models = [model for model in models if model == "adapted"] or models[:1]
    by_model = {model: [video for video in own if video.model == model] for model in models}
    return {None: by_model[models[0]]} if len(models) == 1 else by_model


def _named(source: str) -> tuple[str, Path]:
    """NAME=DIR, or DIR."""
    if Path(source).is_dir() or "=" not in source:
        return "", Path(source)
    name, _, folder = source.partition("=")
    return name, Path(folder)


def _references(given: Namespace) -> dict[str, list[Path]]:
    """Files of the subject and the motion: those that are named, else the first run's."""
    named = {"subject": given.subject, "motion": given.motion}
    found = {name: source_files(place) for name, place in named.items() if place}
    for name in named.keys() - found.keys():
        for source in given.sources:
            if own := _of_run(_named(source)[1], name):
                found[name] = own
                break
    return {
        name: found.get(name, [])[:most]
        for name, most in (("subject", PICTURES), ("motion", CLIPS))
    }


def _of_run(folder: Path, name: str) -> list[Path]:
    """What a run trained on, as its page shows it: pictures as the subject, clips as the motion."""
    references = (read_json(folder / FACTS) or {}).get("references", {})
    files = [folder / "samples" / file for file in references]
    is_picture = name == "subject"
    return [f for f in files if f.is_file() and (len(timeline(f).starts) == 1) == is_picture]


def _questions(wanted: Sequence[str], references: Mapping[str, Sequence[Path]]) -> list[str]:
    """Raises JtError where one asks for what nobody can see."""
    lacking = [name for name in wanted if name in references and not references[name]]
    if lacking:
        raise JtError(
            f"--questions: {name}: there is no reference of it; name one with --{name}, or ask"
            " other questions"
            for name in lacking
        )
    return [name for name in QUESTIONS if name in wanted]


def _page(
    study: str,
    title: str,
    questions: Sequence[str],
    ties: bool,
    trials: Sequence[Trial],
    references: Mapping[str, Sequence[Path]],
    rung: tuple[int, int],
) -> Iterator[str]:
    names = [f"pair-{n:03d}" for n in range(1, len(trials) + 1)]
    told = json.dumps({"id": study, "questions": questions, "ties": ties, "trials": names})

    def body() -> Iterator[str]:
        yield f"<h1>{escape(title)}</h1>"
        yield from _intro(len(trials), questions, ties)
        yield "<div id='course' hidden><progress id='progress' value='0' aria-label='Progress'"
        yield f" max='{len(trials)}'></progress><p class='note' id='place'></p></div>"
        yield from _reference_rows(references, rung)
        for trial in trials:
            yield from _trial(trial, questions, ties, rung)
        yield END
        yield f"<script type='application/json' id='study'>{safe_json(told)}</script>"

    styles, scripts = ["page.css", "study.css"], ["together.js", "study.js"]
    yield from frame(title, styles, scripts, body(), enlarged=False)


def _intro(count: int, questions: Sequence[str], ties: bool) -> Iterator[str]:
    equal = "<kbd>↓</kbd> equal, " if ties else ""
    yield "<form id='intro'>"
    yield f"<p>You will see {count} pairs of videos, made by computers from the same text."
    yield " Of each pair, please answer:</p><ol>"
    yield from (f"<li>{escape(QUESTIONS[name])}</li>" for name in questions)
    yield "</ol><p>Answers stay in this browser, so you can go on later. At the end you save them"
    yield " as a file. Keys: <kbd>←</kbd> left, <kbd>→</kbd> right, " + equal
    yield "<kbd>Enter</kbd> next, <kbd>Backspace</kbd> back.</p>"
    yield "<p><label>Your name or initials (may be left empty)<br>"
    yield "<input id='rater' maxlength='40' autocomplete='off'></label></p>"
    yield "<p><button>Begin</button></p></form>"


def _reference_rows(
    references: Mapping[str, Sequence[Path]], rung: tuple[int, int]
) -> Iterator[str]:
    yield "<div id='references' class='given' hidden>"
    for name, files in references.items():
        if files:
            yield f"<div><h2>Reference: {name}</h2>"
            yield row([Shown("", anew(file, *rung)) for file in files]) + "</div>"
    yield "</div>"


def _trial(
    trial: Trial, questions: Sequence[str], ties: bool, rung: tuple[int, int]
) -> Iterator[str]:
    yield "<section class='trial pair' hidden>"
    yield f"<h2>{escape(trial.left.prompt)}</h2>"
    sides = {"left": trial.left, "right": trial.right}
    yield row([Shown(side, anew(video.file, *rung)) for side, video in sides.items()])
    choices = {"left": "Left", **({"equal": "Equal"} if ties else {}), "right": "Right"}
    buttons = "".join(
        f"<button type='button' value='{choice}' aria-pressed='false'>{shown}</button>"
        for choice, shown in choices.items()
    )
    yield "<div class='questions'>"
    for name in questions:
        yield f"<div class='question' data-question='{name}'><p>{escape(QUESTIONS[name])}</p>"
        yield f"<div class='choices'>{buttons}</div></div>"
    yield "</div></section>"


END = """<div id='end' hidden><h2>Thank you</h2>
<p>Please save your answers, and send the file to whoever asked you.</p>
<p class='steps'><button type='button' class='save'>Save answers</button>
<button type='button' id='forget'>Forget them and begin anew</button></p></div>
<p class='steps' id='steps' hidden><button type='button' id='back'>Back</button>
<button type='button' id='next' disabled>Next</button></p>"""
