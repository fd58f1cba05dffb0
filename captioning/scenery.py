"""Clauses about the whole picture: its style, its light and weather, its place."""

from __future__ import annotations

import re

from captioning.grammar import ARTICLES, MEDIA
from captioning.instruction import Instruction
from captioning.kinds_of_words import IN, ON, OUTSIDE, PICTURES, SCENES, STYLE_WORDS, singular

DET = r"(?:the|a|an|this|that|its|his|her|their|my|your|all|every|some|both)"
PIC = rf"(?:(?:the|this|my|whole|entire) )*(?:{'|'.join(sorted(PICTURES))})(?: (?:photo|thing))?"
MAKES = "make|turn|get|have|render|let|set|change|convert|transform|colou?r|paint"
REMOVES = (
    "remove|delete|erase|take away|take out|take off|take|get rid of|drop|cut out|cut|hide"
    "|eliminate|clear away|clear|lose|without|no more|no"
)
MAKE, REMOVE = f"(?:{MAKES})", f"(?:{REMOVES})"
_SCENES = "|".join(sorted(map(re.escape, SCENES), key=len, reverse=True))
AT = (
    rf"(?:(?:late |early )?(?:at|in|by|during|under)(?: (?:the|a|an))? (?:{_SCENES})"
    r"(?: (?:time|light|weather))?"
    rf"|on an? (?:{_SCENES}) (?:day|night|morning|evening|afternoon))"
)


def without_article(text: str) -> str:
    """The words without an article before them and punctuation around them."""
    words = text.strip(" ,;\"'").split()
    while len(words) > 1 and words[0].lower() in ARTICLES:
        words.pop(0)
    return " ".join(words)


def picture(value: str) -> Instruction | None:
    """What a whole picture becomes: a style or a scene."""
    if is_style(value):
        return Instruction("style", "", style_of(value))
    return scene_of(value, "") if is_light(value) else None


def is_style(value: str) -> bool:
    """Whether words name a way to make pictures, such as a pencil sketch."""
    words = without_article(value).lower().split()
    return bool(words) and (
        words[-1] in MEDIA | STYLE_WORDS | {"style", "art"}
        or "style of" in value
        or words == ["black", "and", "white"]
        or (len(words) > 1 and words[0] in MEDIA and words[1] in ("of", "by", "in"))
    )


def style_of(value: str) -> str:
    """The style as an instruction keeps it: without its article."""
    return without_article(value)


def is_light(value: str) -> bool:
    """Whether words say a light, a weather or a season."""
    words = re.sub(rf"^(?:(?:at|in|by|during) )?(?:{DET} )?", "", value)
    return words in SCENES or bool(re.fullmatch(AT, value))


def scene_of(value: str, clause: str) -> Instruction:
    """The scene that words say: "in the evening" is "evening", "on the snow" stays a place."""
    words = re.sub(rf"^(?:at|in|by|on|during|under)? ?(?:{DET} )?", "", value)
    # "in the evening" is the evening, "on the snow" is a place
    known = words in SCENES and not re.match(r"(?:on|under) ", value)
    return Instruction("scene", "", words if known else value, text=clause)


def is_place(value: str) -> bool:
    """Whether a thing is one that others stand on or in, such as a beach."""
    return singular(value.split()[-1]) in ON | IN


def styling(c: str) -> Instruction | None:
    """Reads "as a watercolour" and "in the style of ..."."""
    by = re.fullmatch(
        r"(?:as if |like |as )?(?:it (?:were|was) )?(?:painted|drawn|made) by (.+)", c
    )
    if by:
        return Instruction("style", "", f"in the style of {by[1]}")
    m = re.fullmatch(r"(?:as if it were|as|like|draw it as|show it as|render (?:it )?as) (.+)", c)
    if m:
        return Instruction("style", "", style_of(m[1]))
    m = re.fullmatch(
        r"(?:(?:draw|make|paint|render|do) it )?(in (?:the )?(?:style|manner) of .+)", c
    )
    if m:
        return Instruction("style", "", m[1].replace("in style of", "in the style of"))
    m = re.fullmatch(r"(?:(?:draw|make|paint|render|do|put) it )?in (.+)", c)
    if m and is_style(m[1]):
        return Instruction("style", "", style_of(m[1]))
    verb = re.match(rf"(?:{MAKE}|{REMOVE}|it|add|put|paint|the) ", c)
    done = re.search(rf"\w {DET} (?:\w+ )?(?:{'|'.join(sorted(PICTURES))})$", c)  # "fix the photo"
    bare = is_style(c) and not verb and not done and len(c.split()) < 5
    return Instruction("style", "", style_of(c)) if bare else None


def scenery(c: str) -> Instruction | None:
    """Reads "at night", "make it snowy" and "on a wooden table"."""
    m = re.fullmatch(
        rf"(?:(?:make|set|show|put|have) )?(?:it|{PIC})?(?: in| to| is)?(?:'s)? ?(.+)", c
    )
    value = m[1] if m and (is_light(m[1]) or m[1] in OUTSIDE) else c
    if value in OUTSIDE:
        return Instruction("scene", "", value, aspect="background")
    if re.match(r"(?:at|around) \d", value):
        return Instruction("scene", "", value)
    if is_light(value):
        return scene_of(value, c)
    if re.fullmatch(rf"(?:on|in|at|against|inside|under|in front of) (?:{DET} )?.+", c):
        return Instruction("scene", "", c, aspect="background")
    return None
