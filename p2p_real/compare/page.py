"""The comparison as one page: pictures, table and curves in a file that needs no network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from PIL import Image

from .cells import Cell
from .curves import chart
from .entries import Comparison, Entry
from .look import SCRIPT, STYLE
from .sheet import smaller
from .table import Column, best, columns, text

LONGEST = 768  # pixels of a picture's longer side in the page; whole ones lie under cells/
_SMALL = 256  # pictures up to here are enlarged without smoothing
Row = dict[str, Any]


def page(made: Comparison, rows: Sequence[Row]) -> str:
    """The whole page as HTML."""
    edited = any(e.edit for e in made.entries)
    labels = list(dict.fromkeys(e.subject.label for e in made.entries))
    numbered = list(enumerate(zip(made.entries, rows, strict=True)))
    parts = [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>compare: {escape(', '.join(labels))}</title><style>{STYLE}</style></head><body>",
        _head(made, rows),
        _table(list(rows), columns(made.perceptual.name, edited)),
        f'<p class="note">{escape(made.perceptual.note)}. {_NOTE}</p>',
        _buttons(edited),
    ]
    for label in labels:
        parts.append(_section([n for n in numbered if n[1][0].subject.label == label], made))
    parts.append(f"<script>{SCRIPT}</script></body></html>\n")
    return "\n".join(parts)


_NOTE = (
    "Click a heading to sort; bold is the best of its photo. The ceiling is the photo through the "
    "autoencoder and back: no reconstruction can be expected above it. Figures marked * are those "
    "of an inversion found in the cache."
)


def _head(made: Comparison, rows: Sequence[Row]) -> str:
    count = {
        "photo": len({r["photo"] for r in rows}),
        "inversion": len({r["method"] for r in rows}),
        "edit": len({r["edit"] for r in rows if r["edit"]}),
    }
    title = ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in count.items() if n)
    failed = sum(r["status"] == "failed" for r in rows)
    settings = made.settings
    said = f"{settings['model']}, {settings['steps']} steps, seed {settings['seed']}"
    said += f", {settings['device']} {settings['dtype'].removeprefix('torch.')}"
    if settings["negative_prompt"]:
        said += f", negative prompt “{settings['negative_prompt']}”"
    if failed:
        said += f"; {failed} of {len(rows)} rows failed"
    return f'<h1>{escape(title)}</h1><p class="soft">{escape(said)}</p>'


def _table(rows: list[Row], shown: list[Column]) -> str:
    shown = [c for c in shown if any(c.key in r for r in rows)]
    if len({r["region"] for r in rows if "region" in r}) == 1:
        shown = [c for c in shown if c.key != "region"]
    tops = {c.key: best(rows, c) for c in shown}
    heads = "".join(
        f'<th{_word(c)} tabindex="0" title="{escape(c.about)}">{escape(c.title)}</th>'
        for c in shown
    )
    lines = []
    for n, row in enumerate(rows):
        cells = []
        for c in shown:
            value = row.get(c.key)
            words = escape(text(value, c))
            if c.key == "method":
                words = f'<a href="#c{n}">{words}</a>'
            top = tops[c.key].get(row["photo"])
            mark = _word(c)
            if top is not None and text(value, c) == text(top, c):
                mark = ' class="best"'
            if c.key == "inversion_seconds" and row.get("inversion_from_cache"):
                words += "*"
            cells.append(f'<td{mark} data-v="{escape(_sortable(value))}">{words}</td>')
        kind = ""
        if row["status"] == "failed":
            kind = ' class="failed" title="' + escape(row["reason"]) + '"'
        lines.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _word(column: Column) -> str:
    return ' class="word"' if column.digits is None else ""


def _sortable(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and math.isinf(value):
        return "1e9"
    return str(value)


def _names(edited: bool) -> list[str]:
    return ["photo", "ceiling", "reconstruction", *(["edit"] if edited else [])]


def _buttons(edited: bool) -> str:
    buttons = _tabs(_names(edited))
    return (
        f'<nav><span>all cells show</span><span class="tabs">{buttons}</span>'
        '<label>the photo up to <input type="range" min="0" max="100" value="0"></label>'
        f'<span class="soft">keys 1 to {len(_names(edited))}</span></nav>'
    )


def _tabs(names: Sequence[str]) -> str:
    """Buttons, the last of them pressed."""
    return "".join(
        f'<button type="button" data-show="{n}" aria-pressed="{str(n == names[-1]).lower()}">'
        f"{'recon.' if n == 'reconstruction' else n}</button>"
        for n in names
    )


def _section(entries: Sequence[tuple[int, tuple[Entry, Row]]], made: Comparison) -> str:
    subject = entries[0][1][0].subject
    words = escape(subject.prompt)
    if subject.prompts:
        words += f" &rarr; <b>{escape(subject.prompts.target)}</b>"
    figures = next((r for _, (_, r) in entries if "ceiling_psnr" in r), {})
    given = [("photo", "the photo", subject.photo.image)]
    if figures:
        reached = text(figures["ceiling_psnr"], Column("", "", "", 1))
        given.append(("ceiling", f"ceiling: {reached} dB", subject.undo(subject.ceiling)))
    shown = "".join(
        f'<figure{_small(p)}><img data-given="{name}" alt="{escape(title)}" src="{_uri(p)}">'
        f"<figcaption>{escape(title)}</figcaption></figure>"
        for name, title, p in given
    )
    cards, first = [], dict[str, int]()
    for n, (entry, row) in entries:
        cards.append(_card(n, entry, row, first, made.perceptual.name))
    return (
        f'<section><h2>{escape(subject.label)}</h2><p class="soft">{words}</p>'
        f'<div class="given">{shown}</div><div class="cards">{"".join(cards)}</div>'
        f"{_curves([r for _, (_, r) in entries])}</section>"
    )


def _card(n: int, entry: Entry, row: Row, first: dict[str, int], distance: str) -> str:
    title = row["method"] + (f" · {row['edit']}" if row["edit"] else "")
    failed = f"<p>failed: {escape(row['reason'])}</p>" if row["reason"] else ""
    head = f'<h3 title="{escape(title)}">{escape(row["method"])}</h3>'
    head += f"<h4>{escape(row['edit'])}</h4>" if row["edit"] else ""
    if not isinstance(entry.inversion, Cell):
        return f'<article class="card failed" id="c{n}">{head}{failed}</article>'
    back = entry.subject.undo(entry.inversion.pictures["reconstruction"])
    same = first.get(entry.method.label)
    images = {}
    if same is None:
        first[entry.method.label] = n
        images["reconstruction"] = back
    if isinstance(entry.edited, Cell):
        images["edit"] = entry.edited.pictures["edited"]
    names = _names(isinstance(entry.edited, Cell))
    stage = ['<img class="under" alt="the photo">']
    for name, picture in images.items():
        kind = ' class="top"' if name == names[-1] else " hidden"
        stage.append(
            f'<img{kind} data-name="{name}" alt="{name} by {escape(title)}" src="{_uri(picture)}">'
        )
    if names[-1] not in images:  # no edit, and the reconstruction stands in another card
        stage.append(f'<img class="top" alt="reconstruction by {escape(title)}">')
    buttons = _tabs(names)
    shared = f' data-same="c{same}"' if same is not None else ""
    kind = " failed" if failed else ""
    return (
        f'<article class="card{kind}" id="c{n}"{shared}>{head}'
        f'<div{_small(back, "stage")} style="aspect-ratio:{back.width}/{back.height}">'
        f'{"".join(stage)}</div><div class="tabs">{buttons}</div>'
        '<input class="wipe" type="range" min="0" max="100" value="0" '
        f'aria-label="photo up to here">{failed}<p class="figs">{_figures(row, distance)}</p>'
        "</article>"
    )


def _figures(row: Row, distance: str) -> str:
    """The few figures that stand below a card's picture."""
    shown = {c.key: c for c in columns(distance, True)}
    found = []
    for key, name in (
        ("psnr", "PSNR"),
        ("ssim", "SSIM"),
        (distance, distance.upper()),
        ("edit_psnr", "edit PSNR"),
        ("inversion_seconds", "invert"),
        ("edit_seconds", "edit"),
    ):
        if key in row:
            unit = " s" if key.endswith("seconds") else ""
            found.append(f"<span>{name} <b>{text(row[key], shown[key])}{unit}</b></span>")
    return "\n".join(found)


def _curves(rows: Sequence[Row]) -> str:
    """Drift, losses and residuals of a photo's inversions."""
    by_method = {r["method"]: r for r in rows if "drift" in r}
    drift = {m: r["drift"] for m, r in by_method.items()}
    charts = [chart("drift from the record (RMS)", drift, "level: 0 is the photo")]
    for name in sorted({k for r in by_method.values() for k in r["curves"]}):
        lines = {m: r["curves"][name] for m, r in by_method.items() if name in r["curves"]}
        title = "loss after the last inner step" if name == "losses" else name
        charts.append(
            chart(title, lines, "sampling step: 1 is the noisiest", first=1, names=[*drift])
        )
    return f'<div class="curves">{"".join(charts)}</div>'


def _small(picture: Image.Image, more: str = "") -> str:
    names = [more] if more else []
    if max(picture.size) <= _SMALL:
        names.append("small")
    return f' class="{" ".join(names)}"' if names else ""


def _uri(picture: Image.Image) -> str:
    """A picture as a data URI, at most 768 pixels long."""
    stream = io.BytesIO()
    shown = smaller(picture, LONGEST)
    shown.info = {}
    shown.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
