"""The little English that rewriting needs: a or an, case, and which words hang together."""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


ARTICLES = frozenset({"a", "an", "the"})
DETERMINERS = ARTICLES | _set(
    "some this that these those his her its their my your our two three four five several many"
    " another each every"
)
CONJUNCTIONS = frozenset({"and", "or", "&"})
PREPOSITIONS = _set(
    "of on in at with without by to from under over above below beside behind beneath near into"
    " onto through across against along among around between inside outside for as like"
)
COMPOUND_PREPOSITIONS = (
    "in front of", "on top of", "next to", "close to", "out of", "in the middle of",
    "on the side of", "full of", "made of", "made out of", "filled with", "covered with",
    "covered in", "covered by", "surrounded by", "in the style of",
)  # fmt: skip
VERBS = _set("is are was were has have that which who sits stands lies")
OBJECT_PARTICIPLES = _set(
    "wearing holding carrying eating drinking riding pulling pushing chasing containing featuring"
    " showing depicting using playing reading watching making facing"
)
ING_NOUNS = _set(
    "ring king string wing swing spring thing evening morning ceiling building wedding painting"
    " drawing clothing earring pudding sling railing living dining lightning"
)
ADJECTIVES = _set(
    "red green blue yellow orange purple pink brown black white grey gray golden gold silver cyan"
    " magenta beige dark light bright pale colorful small large big little tiny huge tall short"
    " long old young new wooden metal glass plastic stone rubber matte shiny plain striped spotted"
    " dotted checkered fluffy furry cute round square soft hard wet dry snowy rainy sunny cloudy"
    " beautiful happy sad empty full clean dirty ripe fresh"
)
MEDIA = _set(
    "painting drawing sketch photo photograph picture image print watercolor watercolour render"
    " rendering illustration cartoon portrait engraving etching sculpture statue mosaic poster"
    " woodcut fresco collage snapshot close-up closeup view"
)
_ADJECTIVE_ENDS = ("ful", "ous", "less", "ish")
_AN = re.compile(r"(hour|honest|hono|heir)", re.IGNORECASE)
_A = re.compile(
    r"(uni(?!m|n[^t]|d)|use|usu|ute|uto|uku|ubi|ura|eu|ewe|once\b|one\b|one-|ouija)", re.IGNORECASE
)


def article_for(phrase: str) -> str:
    """ "a" or "an", by the sound that a phrase begins with."""
    match = re.search(r"[\w’']+(?:-\w+)*", phrase)
    word = match[0] if match else ""
    if re.match(r"(8|11|18)(?!\d)|8\d", word):
        return "an"
    spelled = (word.isupper() and 1 < len(word) <= 3) or re.match(r"[A-Z]-", word)
    if spelled:  # an SUV, a UFO, an X-ray
        return "an" if word[0] in "AEFHILMNORSX" else "a"
    if _AN.match(word):
        return "an"
    if not word or word[0].lower() not in "aeiou" + "àâäáåæèéêëíìîïóòôöúùû" or _A.match(word):
        return "a"
    return "an"


def article_like(old: str, phrase: str, shout: bool = False) -> str:
    """The article for a phrase in the case of the article that stood there."""
    new = article_for(phrase)
    if old.isupper() and (len(old) > 1 or shout):
        return new.upper()
    return new.capitalize() if old[:1].isupper() else new


def case_like(old: str, new: str) -> str:
    """`new` as `old` was written: in capitals, with a capital first, or as it is."""
    if len(re.sub(r"\W", "", old)) > 1 and old.isupper():
        return new.upper()
    if old[:1].isupper() and new[:1].islower():
        return new[:1].upper() + new[1:]
    return new


def is_adjective(word: str) -> bool:
    """Whether a word is one of the common adjectives of captions."""
    lowered = word.lower()
    return lowered in ADJECTIVES or lowered.endswith(_ADJECTIVE_ENDS)


def is_participle(word: str) -> bool:
    """Whether a word is a verb form ("sitting", "parked") rather than a noun in -ing or -ed."""
    lowered = word.lower()
    if lowered.endswith("ing"):
        return len(lowered) > 4 and lowered not in ING_NOUNS
    return lowered.endswith("ed") and len(lowered) > 5


def ends_a_noun(word: str) -> bool:
    """Whether a noun phrase ends before this word."""
    lowered = word.lower()
    return (
        lowered in CONJUNCTIONS | PREPOSITIONS | VERBS | DETERMINERS
        or lowered in ("next", "close", "top", "front")
        or is_participle(lowered)
    )
