"""Two pictures of an edit: what it changed, and which word takes the place of which."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ..labels import LINE, text_width, wrap, write
from ..pictures import grid
from .canvas import MARGIN, Canvas, bar, glow, outline, page, percent
from .gather import Attention

KINDS = {  # colours that differ in brightness too (after Okabe and Ito)
    "same": ((150, 150, 150), "stays"),
    "swapped": ((213, 94, 0), "is swapped for"),
    "new": ((0, 114, 178), "is new"),
    "dropped": ((60, 60, 60), "is dropped"),
}


def difference_picture(found: Attention) -> Image.Image | None:
    """How much each pixel was changed by the edit, with the outline of the mask if there is one."""
    if not found.edited:
        return None
    result = found.result
    pasted = bool(result.report.get("settings", {}).get("paste_back"))
    before = result.source if pasted else result.reconstruction
    one, other = (np.asarray(i.convert("RGB"), np.float32) for i in (before, result.image))
    change = np.abs(other - one).mean(-1) / 255
    shown = [Canvas(i, found.fit) for i in (before, result.image)]
    size = shown[0].size
    small = np.asarray(Image.fromarray(change).resize(size, Image.Resampling.BOX))
    most = float(small.max())
    heat = glow(small, shown[0].dimmed, most)
    notes = [
        "How much the edit changed each pixel, as a share of the way from black to white: "
        f"{percent(change.mean())} on average, {percent(most)} at most."
    ]
    if result.mask is not None:
        mask = result.mask.convert("L")
        heat = _outlined(heat, mask)
        outside = change[np.asarray(mask) < 128]
        rest = percent(float(outside.mean())) if outside.size else "nothing"
        notes.append(
            "The white line is the border of the mask: outside it the edit keeps the photo's "
            f"latents; what still changes there ({rest} on average) comes of the mask's coarse or "
            "soft edge and of turning latents into pixels."
        )
    texts = ["the photo" if pasted else "the photo, as the model redraws it", "the edit", "change"]
    cells = [*(canvas.picture for canvas in shown), heat]
    body = grid([cells], cell_labels=[texts], least=size[1])
    return page("What the edit changed", body, notes, bar(("none", percent(most))))


def _outlined(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture with the border of a mask in white between black."""
    inside = np.asarray(mask.resize(picture.size, Image.Resampling.BILINEAR)) / 255
    line, pixels = outline(inside), np.array(picture)
    pixels[line == 1], pixels[line == 2] = 0, 255
    return Image.fromarray(pixels)


def alignment_picture(found: Attention) -> Image.Image | None:
    """The two prompts, and which word takes the place of which."""
    if not found.edited:
        return None
    table = found.report["token_alignment"]
    widths = [text_width(row[side]) for row in table for side in ("source", "target")]
    column = min(max([*widths, 150]), 360) + 2 * MARGIN
    middle = max(text_width(text) for _, text in KINDS.values()) + 6 * MARGIN
    rows = [
        (row["kind"], [wrap(row[side], column - 2 * MARGIN) for side in ("source", "target")])
        for row in table
    ]
    heights = [max(len(lines) for lines in pair) * LINE + MARGIN for _, pair in rows]
    size = (2 * (column + MARGIN) + middle, sum(heights) + MARGIN * (len(rows) + 1) + LINE)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    lefts = (MARGIN, MARGIN + column + middle)
    for left, head in zip(lefts, ("words of the photo", "words of the edit"), strict=True):
        write(draw, [head], left, 0, column)
    top = LINE + MARGIN // 2
    for (kind, pair), height in zip(rows, heights, strict=True):
        for left, lines in zip(lefts, pair, strict=True):
            if lines:
                box = (left, top, left + column, top + height)
                draw.rounded_rectangle(box, 6, outline=KINDS[kind][0], width=3)
                write(draw, lines, left, top + (height - len(lines) * LINE) // 2, column)
        _link(draw, kind, MARGIN + column, lefts[1], top + height // 2)
        top += height + MARGIN
    return page(
        "How the words of the edit continue those of the photo",
        image,
        [
            "A word that stays, or is swapped, is drawn where the photo's word was seen; a new "
            "word finds its own place; of a dropped word nothing is taken.",
        ],
    )


def _link(draw: ImageDraw.ImageDraw, kind: str, left: int, right: int, y: int) -> None:
    """What happens to a word, over an arrow: to nothing for a dropped one, from nothing for a new
    one."""
    colour, text = KINDS[kind]
    centre = (left + right) // 2
    start = centre if kind == "new" else left + 4
    end = centre if kind == "dropped" else right - 4
    draw.line((start, y, end, y), fill=colour, width=3)
    if kind == "dropped":
        draw.line((end, y - 7, end, y + 7), fill=colour, width=3)
    else:
        draw.polygon([(end, y), (end - 10, y - 6), (end - 10, y + 6)], fill=colour)
    write(draw, [text], left, y - LINE - 2, right - left)
