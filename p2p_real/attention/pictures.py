"""The pictures of `p2p-real attention`, each with the words and what they mean below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..pictures import grid
from .canvas import Canvas, bar, glow, page, percent
from .changes import alignment_picture, difference_picture
from .gather import Attention
from .naming import Word

A_ROW = 6  # words beside each other
MOMENTS = 6  # of the walk
SMALL = 160  # height of a cell where there are many
CROPPED = "The model saw only the middle of the photo, so there is no map beside it."
NEGATIVE = "A number below 0 is that of a negative weight: the word's contrary is drawn there."
DOWN, MIDDLE, UP = "shrinking", "smallest", "growing"
PLACES = {"down": DOWN, "mid": MIDDLE, "up": UP}


def all_pictures(found: Attention) -> dict[str, Image.Image]:
    """Every picture that there is, by its file's name without ending."""
    makers = {
        "words": words_picture,
        "time": time_picture,
        "layers": layers_picture,
        "self": self_picture,
        "alignment": alignment_picture,
        "difference": difference_picture,
    }
    made = {name: make(found) for name, make in makers.items()}
    return {name: picture for name, picture in made.items() if picture is not None}


def canvases(found: Attention, height: int = 256) -> list[Canvas]:
    """The photo's canvas and, of an edit, the edited picture's."""
    pictures = [found.result.source, found.result.image][: len(found.prompts)]
    return [Canvas(p, found.fit, height) for p in pictures]


def rows_of(found: Attention) -> list[tuple[int, int, str]]:
    """(word, prompt, its name there) of every row of a page with a row a word."""
    both = found.edited
    return [
        (n, b, f"{name} ({('photo', 'edit')[b]})" if both else name)
        for n, word in enumerate(found.words)
        for b, name in enumerate(word.names)
        if name is not None
    ]


def a_row(count: int) -> int:
    """How many of some words stand in a row: at most six, and the rows about alike."""
    return -(-count // -(-count // A_ROW))


def words_picture(found: Attention) -> Image.Image:
    """Each word's map on the photo and, of an edit, on the edited picture."""
    total = found.seen.words().numpy()
    shown = canvases(found)
    blank = Image.new("RGB", shown[0].size, "white")
    rows: list[list[Image.Image | None]] = []
    labels: list[list[str]] = []
    sides: list[str] = []
    words = list(enumerate(found.words))
    across = a_row(len(words))
    for first in range(0, len(words), across):
        part = words[first : first + across]
        space = across - len(part)
        for b, canvas in enumerate(shown):
            cells: list[Image.Image | None] = [canvas.picture if first == 0 else blank]
            texts = [("the photo", "the edit")[b] if first == 0 else ""]
            for n, word in part:
                cell, text = _word_cell(canvas, word, b, total[b, n])
                cells.append(cell)
                texts.append(text)
            rows.append(cells + [blank] * space)
            labels.append(texts + [""] * space)
            sides.append(("photo", "edit")[b])
    seen = found.seen
    layers = sum(g.layers for g in seen.groups)
    steps = sum(f.count for f in seen.frames)
    return page(
        "Where the model looks for each word",
        grid(rows, sides if found.edited else (), cell_labels=labels, least=shown[0].size[1]),
        [
            "How much of its attention each place of the picture gives to the word: the mean of "
            f"{steps} steps and {layers} layers. The numbers are the mean over the picture, and "
            "the most that any place gives; each map has its own scale, so compare words by the "
            "numbers.",
            *([] if shown[0].covered else [CROPPED]),
            *([NEGATIVE] if (total < -1e-6).any() else []),
        ],
        bar(("none", "the most for this word")),
    )


def extreme(part: np.ndarray) -> float:
    """The value that is farthest from 0."""
    return float(part.flat[np.abs(part).argmax()])


def _word_cell(
    canvas: Canvas, word: Word, b: int, part: np.ndarray
) -> tuple[Image.Image | None, str]:
    name = word.names[b]
    if name is None:
        return None, "(no such word in this prompt)"
    most = extreme(part)
    return canvas.heat(
        part, abs(most)
    ), f"{name}\nmean {percent(part.mean())}, most {percent(most)}"


def time_picture(found: Attention) -> Image.Image:
    """Each word's map at some moments of the walk, from noise to picture."""
    frames, by_time = found.seen.frames, found.seen.by_time().numpy()
    picked = moments(len(frames), MOMENTS)
    heads = [f"step {frames[i].first + 1}" for i in picked]
    heads[0] += " (noise)"
    if len(heads) > 1:
        heads[-1] += " (picture)"
    return _table(
        found,
        "Where the model looks for each word, step by step",
        [by_time[i] for i in picked],
        heads,
        np.abs(by_time).max((0, 3, 4)),
        "The picture comes out of noise step by step, from left to right. First the model lays "
        "out where things are, later it works on their details. Each row has one scale for all of "
        "its steps; the number is the most that any place gives.",
    )


def layers_picture(found: Attention) -> Image.Image:
    """Each word's map in each part of the network."""
    by_layer = found.seen.by_layer().numpy()
    heads = [
        f"{PLACES[g.place]}, {g.size[1]} x {g.size[0]}\n"
        f"({g.layers} layer{'s' if g.layers > 1 else ''})"
        for g in found.seen.groups
    ]
    return _table(
        found,
        "Where the model looks for each word, layer by layer",
        list(by_layer),
        heads,
        np.abs(by_layer).max((0, 3, 4)),
        "The network first makes the picture smaller (down to the middle column), then larger "
        "again; 16 x 16 is the number of places that it tells apart there. Each row has one scale "
        "for all of its layers; the number is the most that any place gives.",
    )


def _table(
    found: Attention,
    title: str,
    columns: Sequence[np.ndarray],
    heads: Sequence[str],
    most: np.ndarray,
    note: str,
) -> Image.Image:
    """A row for each word and prompt, a column for each of some maps [B, W, h, w]."""
    shown = canvases(found, SMALL)
    rows, labels, sides = [], [], []
    for n, b, name in rows_of(found):
        rows.append([shown[b].heat(maps[b, n], most[b, n]) for maps in columns])
        labels.append([percent(extreme(maps[b, n])) for maps in columns])
        sides.append(name)
    body = grid(rows, sides, heads, labels, least=shown[0].size[1])
    return page(title, body, [note], bar(("none", "the most for this word")))


def moments(count: int, wanted: int) -> list[int]:
    """Numbers below ``count``, evenly spread, the first and last among them."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, wanted))})


def self_picture(found: Attention) -> Image.Image | None:
    """The strongest patterns of the self-attention, or None where its maps were too large."""
    parts = found.components()
    if parts is None:
        return None
    maps, shares = parts[0].numpy(), parts[1].numpy()
    shown = canvases(found)
    rows, labels = [], []
    for b, canvas in enumerate(shown):
        plain = Image.new("RGB", canvas.size, (95, 95, 95))
        cells, texts = [canvas.picture], [("the photo", "the edit")[b]]
        for n, part in enumerate(maps[b]):
            low, high = float(part.min()), float(part.max())
            cells.append(glow(canvas.lay(part), plain, high, low))
            texts.append(f"{n + 1}: {percent(shares[b, n])}")
        rows.append(cells)
        labels.append(texts)
    size = found.seen.self_size or (0, 0)
    sides = ("photo", "edit") if found.edited else ()
    return page(
        "Which places belong together for the model",
        grid(rows, sides, cell_labels=labels, least=shown[0].size[1]),
        [
            "Besides the words, every place looks at the other places of the picture (self-"
            f"attention; here of {size[1]} x {size[0]} places). In each map, places of like "
            "brightness look at the same parts; which end is bright means nothing. The percentage "
            "is how much of all differences between places the map explains.",
        ],
        bar(("one kind of place", "the other kind")),
    )
