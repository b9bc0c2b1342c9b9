"""The report of a run as one page of HTML, which opens from disk and prints."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, header, rows

# small videos are written with 192 pixels a side: 288 and 144 keep their squares equal;
# `pixelated` would tear what a browser has to shrink
STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
h1 { font-size: 1.5rem; margin-bottom: .5rem }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; break-after: avoid }
code { font-size: 13px; overflow-wrap: anywhere }
table { border-collapse: collapse }
th, td { text-align: left; padding: .3rem 1.5rem .3rem 0; border-bottom: 1px solid #d8dee4;
         font-variant-numeric: tabular-nums }
.row { display: flex; flex-wrap: wrap; gap: 1rem; margin-bottom: 1rem }
.pair { flex-wrap: nowrap; break-inside: avoid }
figure { margin: 0; width: 144px; break-inside: avoid }
.pair figure { width: 50% }
.squares .pair figure { width: 288px }
.squares video { image-rendering: pixelated }
figcaption { color: #57606a; font-size: 13px; overflow-wrap: anywhere }
video { display: block; width: 100%; border-radius: 4px }
"""


def write_page(
    title: str,
    circumstances: str,
    command: str,
    tables: Iterable[Table],
    references: Mapping[str, str],  # file -> caption
    pairs: Iterable[Sequence[Mapping[str, Any]]],  # entries of samples that belong side by side
    enlarged: bool,  # the videos, each pixel to a square
) -> Iterator[str]:
    """The lines of the page; files are relative to the folder of samples, beside it."""
    yield "<!doctype html>"
    yield "<html lang='en'><meta charset='utf-8'>"
    yield "<meta name='viewport' content='width=device-width'>"
    yield f"<title>{escape(title)}</title><style>{STYLE}</style>"
    yield "<body class='squares'>" if enlarged else "<body>"
    yield f"<h1>{escape(title)}</h1>"
    yield f"<p>{escape(circumstances)}<br><code>{escape(command)}</code></p>"
    for table in tables:
        yield from _table(*table)
    if references:
        yield "<h2>References, as training sees them</h2><div class='row'>"
        yield from (_figure(file, caption) for file, caption in references.items())
        yield "</div>"
    for prompt, rows in groupby(pairs, lambda pair: pair[0]["prompt"]):
        yield f"<h2>{escape(prompt)}</h2>"
        yield from (_row(pair) for pair in rows)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"<h2>{escape(title)}</h2><table>"
    yield _cells("th", header)
    yield from (_cells("td", row) for row in rows)
    yield "</table>"


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _row(pair: Sequence[Mapping[str, Any]]) -> str:
    figures = (_figure(entry["file"], f"{entry['model']}, seed {entry['seed']}") for entry in pair)
    return f"<div class='row pair'>{''.join(figures)}</div>"


def _figure(file: str, caption: str) -> str:
    """A click opens the video alone, where browsers have controls."""
    source = f"samples/{escape(file)}"
    return (
        f"<figure><a href='{source}'><video src='{source}' autoplay loop muted playsinline></video>"
        f"</a><figcaption>{escape(caption)}</figcaption></figure>"
    )
