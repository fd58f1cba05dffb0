"""One clause of an instruction: each reader reads one family of clauses, or says None."""

from __future__ import annotations

import re
from collections.abc import Callable

from captioning.grammar import DETERMINERS
from captioning.instruction import Instruction
from captioning.kinds_of_words import (
    MASS,
    MATERIALS_AS_NOUNS,
    PARTICIPLES,
    PRONOUNS,
    SCENES,
    SHADES,
    WEATHERS,
    describes,
    group_of,
    is_plural,
    positive,
)
from captioning.scenery import (
    DET,
    MAKE,
    PIC,
    REMOVE,
    is_light,
    is_place,
    picture,
    scene_of,
    scenery,
    style_of,
    styling,
    without_article,
)

_PLACE = (
    r"(?:on top of|onto|on|in front of|into|inside|in|next to|close to|beside|near|by|under"
    r"|underneath|beneath|below|behind|above|over|against|between|among|around|at|along|to"
    r"|(?:on |to )?(?:the )?(?:left|right)(?: side)? of)"
)
_MORE = (
    r"(?:(?P<much>slightly|a (?:little|bit|tad|touch)(?: bit)?|somewhat|much|a lot|lots|far|way"
    r"|even|considerably) )?(?P<sign>more|less|fewer)"
)
_SLIGHTLY = ("slightly", "a little", "a bit", "a tad", "a touch", "somewhat")
_ASPECT = (
    r"(?P<aspect>colou?r|material|texture|surface|finish|pattern|shape|form|style|age|mood"
    r"|background|backdrop|ground|floor|setting|scene|location|place"
    r"|light(?:ing)?|time(?: of (?:the )?day)?|hour|weather|season)"
)
_THEM = "(?:it|him|her|them)"
_WHERE = ("background", "backdrop", "ground", "floor", "setting", "scene", "location", "place")


# readers: each reads one family of clauses, or says None


def _arrow(c: str) -> Instruction | None:
    m = re.fullmatch(r"(?:change |turn )?(.+?)\s*(?:->|=)\s*(.+)", c)
    if m is None or re.search("->|=", m[2]):
        return None
    return Instruction("swap", m[1], m[2], aspect="words")


def _replacing(c: str) -> Instruction | None:
    m = re.fullmatch(r"(?:replace|change|turn) (.+?) (?:with|by|for) (.+)", c) or re.fullmatch(
        r"(?:swap|exchange|switch|trade) (?:out )?(.+?) (?:for|with|to|by|into|against) (.+)", c
    )
    if m and without_article(m[1]) in ("background", "backdrop"):
        return Instruction("scene", "", m[2], aspect="background")
    if m:
        return _swapping(m[1], m[2], "words")
    m = re.fullmatch(
        r"(?:substitute|put|use|add|have)? ?(.+) (?:for|instead of|in place of) (.+)", c
    )
    if m and (c.startswith("substitute") or " for " not in m[0]):
        return _swapping(m[2], m[1], "words")
    return None


def _amount(c: str) -> Instruction | None:
    m = re.fullmatch(
        rf"(?:(?:{MAKE} )(?P<t>.+?) (?:look |be |appear )?)?{_MORE} (?P<v>.+)", c
    ) or re.fullmatch(rf"(?:with|add|give it) {_MORE} (?P<v>.+)", c)
    if m:
        target = m.groupdict().get("t") or ""
        target = "" if target in ("it", "this") and m["v"] in SCENES else target
        value = MATERIALS_AS_NOUNS.get(m["v"], m["v"]) if m["v"] != "flowers" else m["v"]
        words = value.split(" ")
        if not target and len(words) > 2 and words[-2].lower() in DETERMINERS:
            target, value = words[-1], " ".join(words[:-2])
        return Instruction("amount", _thing(target), value, amount=_how_much(m["much"], m["sign"]))
    much = "slightly|a bit|a little|much|a lot|even|far|somewhat"
    m = re.fullmatch(
        rf"(?:(?:make|turn|get) (?P<t>.+?) )?(?:look )?(?P<much>(?:{much}) )?(?P<v>\w+er)", c
    )
    base = positive(m["v"]) if m else ""
    if m is None or not base:
        return None
    amount = _how_much((m["much"] or "").strip(), "more")
    target = "" if m["t"] in ("it", "this") and base in SCENES else _thing(m["t"] or "")
    return Instruction("amount", target, base, amount=amount)


def _how_much(much: str | None, sign: str) -> float:
    size = 1.0 if not much else 0.5 if much.startswith(_SLIGHTLY) else 2.0
    return size if sign == "more" else -size


def _thing(words: str) -> str:
    """ "" for the picture as a whole."""
    return "" if re.fullmatch(PIC, words) else words


def _aspects(c: str) -> Instruction | None:
    to = r"(?:from .+ )?(?:in)?(?:to|be|as|=) (?P<v>.+)"
    verb = r"(?:change|set|turn|make|switch|alter|adjust)"
    m = (
        re.fullmatch(rf"{verb} (?:the |its )?{_ASPECT} (?:of|in|on) (?P<t>.+?) {to}", c)
        or re.fullmatch(rf"{verb} (?P<t>(?:the |this |my )?.+?)'s? {_ASPECT} {to}", c)
        or re.fullmatch(rf"{verb} (?:the |its |his |her )?(?P<t>){_ASPECT} {to}", c)
        or re.fullmatch(rf"{verb} (?P<t>.+?) {_ASPECT} {to}", c)
        or re.fullmatch(
            r"(?:make|turn) (?P<t>)(?:the )?(?P<aspect>background|backdrop|ground"
            r"|floor|light(?:ing)?|weather|season) (?:into )?(?P<v>.+)",
            c,
        )
        or re.fullmatch(rf"(?P<t>)the {_ASPECT} (?:should|must|to) (?:be|become) (?P<v>.+)", c)
    )
    if m is None:
        return None
    aspect, target, value = m["aspect"], m["t"] or "it", m["v"]
    if aspect in _WHERE:
        if is_light(value) and not value.endswith("snow"):
            return scene_of(value, c)
        return Instruction("scene", "", value, aspect="background")
    if aspect in ("shape", "form"):
        return Instruction("swap", target, value)
    if aspect == "style":
        return Instruction("style", "", style_of(value))
    if aspect.split(" ")[0] in ("light", "lighting", "time", "hour", "weather", "season"):
        return scene_of(value, c)
    return Instruction("attribute", target, _adjectives(value) or value, aspect=aspect)


def _removing(c: str) -> Instruction | None:
    m = re.fullmatch(rf"{REMOVE} (.+?)(?: (?:away|out|off))?", c)
    if m is None:
        return None
    thing = re.sub(r" (?:away|out|completely|entirely)?\s*(?:from|off|out of) .+$", "", m[1])
    rest = re.search(r" (?:from|off) (.+)$", m[1])
    if without_article(thing) in ("background", "backdrop"):
        return Instruction("scene", "", "plain", aspect="background")
    adjective = MATERIALS_AS_NOUNS.get(without_article(thing), "")
    if adjective and rest and not re.fullmatch(PIC, rest[1]):
        return Instruction("attribute", without_article(rest[1]), f"not {adjective}")
    return Instruction("remove", thing, "")


def _painting(c: str) -> Instruction | None:
    m = re.fullmatch(r"(?:paint|colou?r|dye|tint|recolou?r|re-colou?r) (.+)", c)
    if m is None:
        return None
    put = re.fullmatch(rf"((?:a|an|some|two|three) .+?) ({_PLACE} .+)", m[1])
    if put:
        return Instruction("add", "", put[1], put[2])
    thing, value = split_adjectives(re.sub(r" (?:in|with|to)(?= \S+(?: \S+)?$)", "", m[1]))
    return Instruction("attribute", thing, value, aspect="colour") if value else None


def _into(c: str) -> Instruction | None:
    m = re.fullmatch(
        r"(?:turn|make|change|transform|convert|morph|set|switch) (.+?) (?:in)?to (.+)", c
    )
    if m is None:  # "turn into a sketch"
        m = re.fullmatch(r"(?:turn|change|transform|convert)( )(?:in)?to (.+)", c)
    return _becoming(m[1].strip() or "it", m[2]) if m else None


def _becoming(thing: str, value: str) -> Instruction:
    """What "turn THING into VALUE" is: a style, a scene, another look, or another thing."""
    whole = re.fullmatch(rf"(?:it|this|{PIC})", thing) or is_light(without_article(thing))
    if whole and (found := picture(value)):
        return found
    return _swapping(thing, value, "")


def _swapping(thing: str, value: str, aspect: str) -> Instruction:
    one = re.fullmatch(r"(?:an? |the )?(.+) ones?", value)
    adjectives = _adjectives(one[1] if one else value)
    if adjectives and (one or not re.match(r"(?:an?|the) ", value)):
        words = without_article(thing).split()
        stuff = words[-1] in MASS
        if (not describes(words[-1]) or (aspect != "words" and stuff)) and not (
            stuff and adjectives in MASS
        ):
            return Instruction("attribute", thing, adjectives)
    return Instruction("swap", thing, value, aspect=aspect)


def _should(c: str) -> Instruction | None:
    colour = re.fullmatch(r"(?:see |show )?(the .+?) in (\w+)", c)
    if colour and group_of(colour[2]) == "colour":
        return Instruction("attribute", colour[1], colour[2])
    must = "should|must|shall|to|needs to|has to|can"
    m = re.fullmatch(
        rf"(?:let |have )?(.+?) (?:{must}) (?:be(?:come)?|look|turn) (.+)"
        r"|(?:let |have )?(.+?) (?:is|are|be|become|becomes) (.+)",
        c,
    )
    if m is None or not re.match(rf"(?:it|this|they|{DET} .+|[a-z]+s)$", m[1] or m[3]):
        return None
    return _made(f"{m[1] or m[3]} {m[2] or m[4]}", m[1] or m[3], m[2] or m[4])


def _making(c: str) -> Instruction | None:
    m = re.fullmatch(r"(?:make|turn|get|have|render|let|set|change|want) (.+)", c)
    return _made(m[1]) if m else None


def _made(body: str, thing: str = "", value: str = "") -> Instruction | None:
    """ "THING VALUE" in one run of words; `thing` and `value` where they are known apart."""
    body = re.sub(r"^it's ", "it ", body)
    like = re.fullmatch(r"(.+?) (?:look|appear|seem|be) (?:like|as if it were) (.+)", body)
    if like:
        return _becoming(like[1], like[2])
    body = re.sub(r" (?:look|looks|appear|be|become|seem)(?= )", "", body)
    whole = re.fullmatch(rf"(it|this|{PIC}) (.+)", body)
    if whole and re.match(r"(?:on|in|at|against|inside|under|in front of) ", whole[2]):
        return scenery(whole[2])
    if whole and (found := picture(whole[2])):
        return found
    heavily = re.fullmatch(r"(\w+) \w+ly", whole[2]) if whole else None
    if heavily and heavily[1] in WEATHERS:
        return scene_of(heavily[1], "")
    split = (thing, value) if thing else (whole[1], whole[2]) if whole else ("", "")
    made = re.fullmatch(r"(.+?) (?:made )?(?:out )?of (\w+)", body)
    if made and describes(made[2]) and " " in made[1] + " ":
        return Instruction("attribute", made[1], made[2])
    no = re.fullmatch(r"(.+?) (?:not|no longer|un)(?: an?)? (\w+)", body)
    if no:
        return Instruction("attribute", no[1], f"not {no[2]}")
    verb = re.fullmatch(rf"(.+?) ({'|'.join(PARTICIPLES)}|\w+ing)( .+)?", body)
    if verb and verb[1].lower() not in DETERMINERS - PRONOUNS:
        doing = PARTICIPLES.get(verb[2], verb[2])
        return Instruction("attribute", verb[1], doing + (verb[3] or ""))
    named = re.fullmatch(r"(.+?) (an? .+)", body)
    if named and (shade := _shade(without_article(named[2]))):
        return Instruction("attribute", named[1], shade)
    if named and named[1].lower() not in DETERMINERS:
        return _swapping(named[1], named[2], "")
    found_thing, found_value = split_adjectives(body)
    if found_value:
        return Instruction("attribute", found_thing, found_value)
    words = body.split()
    if len(words) == 2 and words[0] in PRONOUNS and is_plural(words[1]):
        return Instruction("swap", words[0], words[1])  # "make them giraffes"
    if not split[0] and len(words) == 3 and words[0].lower() in DETERMINERS:
        split = " ".join(words[:-1]), words[-1]  # one word that is not known: "the door ajar"
    return Instruction("attribute", *split) if split[0] and len(split[1].split()) < 4 else None


def _shade(value: str) -> str:
    """ "light red" of "lighter red", which is a colour and not a thing."""
    words = [positive(word) or word for word in value.split()]
    shades = len(words) > 1 and all(word in SHADES for word in words[:-1])
    return " ".join(words) if shades and group_of(words[-1]) == "colour" else ""


def split_adjectives(text: str) -> tuple[str, str]:
    """("the ball", "dark red and shiny") of "the ball dark red and shiny"; else (text, "")."""
    words = text.split()
    n = len(words)
    while n > 0:
        word = words[n - 1].strip(",").lower()
        if not (describes(word) or word in ("and", "&", "very", "bright", "more")):
            break
        n -= 1
    first = next((i for i, w in enumerate(words) if w.lower() not in DETERMINERS), len(words))
    n = max(n, first + 1)
    if n < len(words) and words[n].lower() in ("and", "&"):
        return text, ""
    thing, value = " ".join(words[:n]).rstrip(","), " ".join(words[n:])
    return (thing, value) if value else (text, "")


def _adjectives(value: str) -> str:
    """The value if all of it describes: "red and shiny", "made of glass" is "glass"."""
    text = re.sub(r"^(?:made )?(?:out )?of ", "", value)
    text = re.sub(r" (?:in )?(?:colou?r(?:ed)?|material|look|finish)$", "", text)
    words = [w for w in re.split(r"[\s,]+", text) if w.lower() not in ("and", "very", "&")]
    return text if words and all(describes(word) for word in words) else ""


def _adding(c: str) -> Instruction | None:
    m = re.fullmatch(rf"give ({_THEM}(?= (?:an?|some|the) )|(?:{DET} )?\w+|{DET} \w+ \w+) (.+)", c)
    if m:
        look = re.fullmatch(r"(?:an? )?(.+?) (?:colou?r|look|finish|texture|pattern)", m[2])
        adjective = MATERIALS_AS_NOUNS.get(without_article(m[2])) or (
            _adjectives(look[1]) if look else ""
        )
        if adjective:
            return Instruction("attribute", m[1], adjective)
        return Instruction("add", "", m[2], f"on {m[1]}")
    m = re.fullmatch(
        r"(?:add|put|place|insert|include|lay|draw|with|(?:let )?there (?:should |must )?(?:be|is))"
        r" (.+)",
        c,
    )
    if m is None:
        return None
    body, whole = m[1], "with" if c.startswith("with ") else ""
    put = re.fullmatch(rf"((?:.+?)) ({_PLACE} .+)", body)
    if put and group_of(MATERIALS_AS_NOUNS.get(without_article(put[1]), "")) == "pattern":
        thing = re.sub(rf"^{_PLACE} ", "", put[2])
        return Instruction("attribute", thing, MATERIALS_AS_NOUNS[without_article(put[1])])
    if put and re.match(r"(?:it|this|them|him|her|the|my|its)\b", put[1]) and not whole:
        if re.fullmatch(PIC, put[1]) or put[1] in PRONOUNS:
            return Instruction("scene", "", put[2], aspect="background")
        return Instruction("scene", put[1], put[2], put[2], aspect="background")
    if whole and re.search(r"\blight(?:s|ing)?$", body):
        return Instruction("scene", "", c)
    if whole and (
        back := re.fullmatch(r"(?:an? |the )?(.+)(?<! the) (?:background|backdrop)", body)
    ):
        return Instruction("scene", "", f"{back[1]} background", aspect="background")
    if put and whole and put[2] == "in the background" and is_place(put[1]):
        return Instruction("scene", "", put[1], aspect="background")
    if put:
        return Instruction("add", "", put[1], put[2], aspect=whole)
    adjective = MATERIALS_AS_NOUNS.get(without_article(body), "")
    if group_of(adjective) == "pattern" and body != "flowers":
        return Instruction("attribute", "it", adjective)
    if c.startswith(("put", "place", "lay")):
        return None
    return Instruction("add", "", body, aspect=whole)


READERS: tuple[Callable[[str], Instruction | None], ...] = (
    _arrow, _amount, _aspects, styling, scenery, _replacing, _removing, _painting, _into,
    _adding, _making, _should,
)  # fmt: skip
