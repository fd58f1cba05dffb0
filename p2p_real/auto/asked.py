"""What is asked for: photos and folders, each with an instruction; checked before any model."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captioning.instructions import Instruction

ENDINGS = frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .bmp .gif .tif .tiff .ppm .pgm .avif".split()  # noqa: SIM905
)
FILES = (".csv", ".jsonl")
RESERVED = ("sheet",)  # names of our own pictures
COULD_NOT = ".could-not"  # behind the label in the name of a picture of what could not be done


class AutoError(ValueError):
    """Photos or instructions that cannot be used; the message is one line."""


@dataclass(frozen=True)
class Asked:
    """One photo and what is to be done to it.

    Args:
        photo: a path, or a picture in memory.
        label: its name in reports, another for each photo.
        text: the instruction as given.
        instructions: the same, read.
    """

    photo: Any
    label: str
    text: str
    instructions: tuple[Instruction, ...]


def read_asked(photos: Sequence[Any], texts: Sequence[str]) -> list[Asked]:
    """Photos with their instructions.

    Args:
        photos: paths or pictures; folders stand for the pictures in them.
        texts: one instruction for all, or one each.

    Raises:
        AutoError: no photo, a photo given twice, or numbers that do not match.
        NotUnderstood: an instruction; says what can be read.
    """
    from captioning.instructions import parse_instruction

    found = pictures_of(photos)
    if len(texts) not in (1, len(found)):
        raise AutoError(
            f"{len(found)} photos and {len(texts)} instructions: give one for all, or one each"
        )
    texts = [texts[0]] * len(found) if len(texts) == 1 else list(texts)
    read = {text: tuple(parse_instruction(text)) for text in dict.fromkeys(texts)}
    taken = set(RESERVED)
    seen: set[tuple[Path, str]] = set()
    made = []
    for photo, text in zip(found, texts, strict=True):
        if isinstance(photo, Path):
            if (photo.resolve(), text) in seen:
                raise AutoError(f"the photo {photo} is given twice with one instruction")
            seen.add((photo.resolve(), text))
        made.append(Asked(photo, _label(photo, taken), text, read[text]))
    return made


def pictures_of(photos: Sequence[Any]) -> list[Any]:
    """The photos, each folder among them replaced by the pictures in it, by name.

    Raises:
        AutoError: nothing is given, a file is not there, a folder holds no picture.
    """
    found: list[Any] = []
    for photo in photos:
        if not isinstance(photo, str | os.PathLike):
            found.append(photo)
            continue
        path = Path(photo)
        if path.is_dir():
            inside = sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in ENDINGS and not p.name.startswith(".") and p.is_file()
            )
            if not inside:
                raise AutoError(f"the folder {path} holds no picture (.png, .jpg, .webp, ...)")
            found += inside
        elif not path.exists():
            raise AutoError(f"there is no file {path}; check the name and the folder")
        else:
            found.append(path)
    if not found:
        raise AutoError("no photo given: name one or more, or a folder of them")
    return found


def read_file(path: str | Path) -> tuple[list[Path], list[str]]:
    """Photos and instructions of a file, one pair a line; photos are named from where it lies.

    Args:
        path: ``.csv`` with the columns photo and instruction (a first line that names them may be
            there), or ``.jsonl`` with an object of these two a line.

    Raises:
        AutoError: it cannot be read; names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise AutoError(f"--do-file {path}: cannot be read ({reason})") from None
    if path.suffix.lower() not in FILES:
        raise AutoError(f"--do-file {path}: give a .csv or a .jsonl file")
    lines = text.splitlines()
    pairs = list(_csv(path, lines) if path.suffix.lower() == ".csv" else _jsonl(path, lines))
    if not pairs:
        raise AutoError(f"--do-file {path}: holds no line of a photo and an instruction")
    return [path.parent / photo for photo, _ in pairs], [text for _, text in pairs]


def _csv(path: Path, lines: Sequence[str]) -> Iterable[tuple[str, str]]:
    rows = csv.reader(lines)
    for row in _readable(rows, path):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (rows.line_num == 1 and cells == ["photo", "instruction"]):
            continue
        if len(cells) != 2 or not all(cells):
            raise AutoError(
                f"--do-file {path}, line {rows.line_num}: give photo,instruction (an instruction "
                "with a comma stands in double quotes)"
            )
        yield _checked(path, rows.line_num, cells[0], cells[1])


def _readable(rows: Any, path: Path) -> Iterable[list[str]]:
    try:
        yield from rows
    except csv.Error as error:  # such as a quote that never ends
        raise AutoError(f"--do-file {path}, line {rows.line_num}: {error}") from None


def _checked(path: Path, number: int, photo: str, text: str) -> tuple[str, str]:
    """The pair of a line, where its photo is a file and its instruction can be read."""
    from captioning.instructions import NotUnderstood, parse_instruction

    at, found = f"--do-file {path}, line {number}", path.parent / photo
    if found.is_dir():
        raise AutoError(f"{at}: {found} is a folder: name one photo a line")
    if not found.exists():
        raise AutoError(f"{at}: there is no file {found}; photos are named from where {path} lies")
    try:
        parse_instruction(text)
    except NotUnderstood as error:
        raise AutoError(f"{at}: {error}") from None
    return photo, text


def _jsonl(path: Path, lines: Sequence[str]) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            photo, text = data["photo"], data["instruction"]
        except (ValueError, KeyError, TypeError):
            photo = text = None
        if not (isinstance(photo, str) and isinstance(text, str) and photo and text.strip()):
            raise AutoError(
                f'--do-file {path}, line {number}: give {{"photo": "cup.png", "instruction": '
                '"make the cup blue"}'
            )
        yield _checked(path, number, photo, text)


def _label(photo: Any, taken: set[str]) -> str:
    name = getattr(photo, "name", None)
    stem = Path(photo).stem if isinstance(photo, str | os.PathLike) else name
    stem = stem if isinstance(stem, str) and stem else "photo"
    label, n = stem, 1
    while taken & {label.lower(), f"{label.lower()}{COULD_NOT}"}:
        n += 1
        label = f"{stem}-{n}"
    taken |= {label.lower(), f"{label.lower()}{COULD_NOT}"}
    return label
