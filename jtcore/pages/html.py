"""Pieces of pages: the frame, tables that sort, rows of videos that play together."""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from attrs import frozen

from jtcore.pages.media import Medium

# nothing is asked of a network, whatever a file or a prompt holds
POLICY = (
    "default-src 'none'; img-src data:; media-src data: blob:; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'"
)


BESIDE = POLICY.replace("blob:", "blob: 'self' file:")  # videos may be files beside the page


@frozen
class Cell:
    """What a table shows, and what it is sorted by."""

    text: str
    value: float | str | None = None  # None: the text itself
    note: str = ""  # small, behind it
    is_long: bool = False  # may be broken into lines
    link: str | None = None
    is_clear: bool = False  # stands out


@frozen
class Shown:
    """A video or picture of a row, or that it is not there."""

    caption: str
    medium: Medium | None
    link: str | None = None  # to the file itself, where it lies beside the page


def frame(
    title: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    body: Iterable[str],
    enlarged: bool,
    policy: str = POLICY,
) -> Iterator[str]:
    """A whole page; styles and scripts are files of this package."""
    yield "<!doctype html>"
    yield "<html lang='en'><head><meta charset='utf-8'>"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f"<title>{escape(title)}</title>"
    yield from (f"<style>{asset(name)}</style>" for name in styles)
    yield f"</head><body{' class=squares' if enlarged else ''}>"
    yield from body
    yield from (f"<script>{asset(name)}</script>" for name in scripts)
    yield "</body></html>"


def asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text()


def table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """One that sorts by each of its columns, in a box of its own where it is wide."""
    yield "<div class='wide'><table class='sortable'><thead><tr>"
    yield "".join(f"<th scope='col'><button>{escape(name)}</button></th>" for name in header)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(map(_cell, row))}</tr>"
    yield "</tbody></table></div>"


def folded(summary: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"<details><summary>{escape(summary)}</summary>"
    yield from lines
    yield "</details>"


def row(shown: Sequence[Shown]) -> str:
    """Videos side by side, and what plays them together."""
    moves = any(each.medium and not each.medium.is_picture for each in shown)
    figures = "".join(map(_figure, shown))
    controls = CONTROLS if moves else ""
    columns = min(len(shown), COLUMNS)
    videos = f"<div class='videos' style='--columns:{columns}'>{figures}</div>"
    return f"<div class='row'>{videos}{controls}</div>"


COLUMNS = 5  # of videos, at most
CONTROLS = (
    "<div class='controls'><button type='button'>Play</button><input type='range' min='0'"
    " value='0' step='1' aria-label='Frame'><output></output></div>"
)


def video(medium: Medium, label: str) -> str:
    return (
        f"<video muted playsinline preload='auto' poster='{medium.poster}'"
        f" data-src='{medium.uri}' data-frames='{medium.frames}' data-fps='{medium.fps:.6g}'"
        f" aria-label='{escape(label)}'></video>"
    )


def safe_json(text: str) -> str:
    """JSON that may stand in a script element."""
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else f" data-value='{escape(str(cell.value))}'"
    names = [name for name, on in (("text", cell.is_long), ("clear", cell.is_clear)) if on]
    kind = f" class='{' '.join(names)}'" if names else ""
    note = f" <span class='interval'>{escape(cell.note)}</span>" if cell.note else ""
    text = NAME_PARTS.sub("<wbr>", escape(cell.text))
    if cell.link:
        text = f"<a href='{escape(cell.link)}'>{text}</a>"
    return f"<td{kind}{value}>{text}{note}</td>"


NAME_PARTS = re.compile(r"(?<=[a-z0-9][._])(?=[a-z])")  # where a metric's name may be broken


def _figure(shown: Shown) -> str:
    caption = escape(shown.caption)
    if shown.link:
        caption = f"<a href='{escape(shown.link)}'>{caption}</a>"
    if shown.medium is None:
        return f"<figure><figcaption>{caption}: its file is not there</figcaption></figure>"
    if shown.medium.is_picture:
        drawn = f"<img src='{shown.medium.uri}' alt='{escape(shown.caption)}'>"
    else:
        drawn = video(shown.medium, shown.caption)
    told = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure>{drawn}{told}</figure>"
