"""What an instruction in plain words says, by a small stated grammar (`FORMS`)."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace

from captioning.clauses import READERS, split_adjectives
from captioning.grammar import ARTICLES
from captioning.instruction import Instruction, NotUnderstood
from captioning.kinds_of_words import SCENES, SIZES, describes, positive
from captioning.matching import squash
from captioning.scenery import AT, DET, MAKES, PIC, REMOVE, REMOVES, scene_of, without_article

__all__ = ["FORMS", "Instruction", "NotUnderstood", "parse_instruction"]

FORMS: tuple[tuple[str, str], ...] = (
    ("make THING ADJECTIVE", "make the ball blue"),
    ("make it ADJECTIVE and ADJECTIVE", "make it red and shiny"),
    ("turn THING ADJECTIVE", "turn the ball blue"),
    ("paint THING COLOUR", "paint the ball blue"),
    ("THING should be ADJECTIVE", "the ball should be blue"),
    ("change the COLOUR|MATERIAL|... of THING to VALUE", "change the colour of the ball to blue"),
    ("turn THING into THING", "turn the cube into a cylinder"),
    ("change THING to VALUE", "change the cube to a cylinder"),
    ("replace THING with THING", "replace the cube with a cylinder"),
    ("swap THING for THING", "swap the cube for a cylinder"),
    ("X -> Y", "cube -> cylinder"),
    ("remove|delete|erase|get rid of THING", "remove the mug"),
    ("take THING away", "take the mug away"),
    ("without THING", "without the mug"),
    ("add THING [on|in|next to|left of ... THING]", "add a small cat on the table"),
    ("put THING on|in|next to ... THING", "put a small cat next to the ball"),
    ("with THING", "with a small cat"),
    ("give THING THING", "give the cat a hat"),
    ("at|in TIME, WEATHER or SEASON", "at night"),
    ("make it TIME, WEATHER or SEASON", "make it night"),
    ("change the light|weather|season to VALUE", "change the light to sunset"),
    ("change the background to PLACE", "change the background to the beach"),
    ("put it on|in PLACE", "put it on the grass"),
    ("on|in|against PLACE", "on a wooden table"),
    ("[slightly|much] more|less ADJECTIVE", "more striped"),
    ("make THING [slightly|much] more|less ADJECTIVE", "make the ball much more striped"),
    ("as STYLE", "as a watercolour"),
    ("in the style of NAME", "in the style of van Gogh"),
    ("make it STYLE", "make it a pencil sketch"),
    ("one, another and another", "make the ball blue and remove the mug"),
)

_POLITE = re.compile(
    r"^(?:please|kindly|hey|hi|ok|okay|now|then|and|also|just|but|so|maybe|let'?s|next|finally"
    r"|(?:could|can|would|will) (?:you|we|i)|i(?:'d| would) (?:like|love|prefer)"
    r"|i (?:want|wish|need)|(?:want|like)(?= (?:you )?to )|you(?= to )|to(?! the (?:left|right))"
    r"|try to|have it)[, ]+"
)
_END = re.compile(
    r"[\s.,!?;:]+$|[, ]+(?:please|thanks|thank you|too|as well|instead|now|for me|somehow)$"
    r"|[, ]+in (?:the|this) (?:photo|picture|image)$"
)
_VERBS = (
    f"{MAKES}|{REMOVES}|replace|substitute|swap|exchange|switch|trade|add|put|place|insert|include"
    "|give|dye|tint|recolou?r|morph|move|shift|resize|enlarge|shrink|rotate|use|draw|keep|do not"
    "|don't"
)
_BEGINS = re.compile(  # a clause of its own, after "and" or a comma
    rf"(?:{_VERBS}) |with (?!the )|as (?:a|an|if) |in the style of |.*->"
    r"|(?:the|it) .*(?:should|must) "
    r"|(?:(?:much|slightly|a bit|a little|even) )?(?:more|less|fewer) "
)


def parse_instruction(text: str) -> tuple[Instruction, ...]:
    """Reads what is to be done, in one or several clauses.

    Args:
        text: such as "make the ball blue and remove the mug"; case and politeness do not matter.

    Raises:
        NotUnderstood: a clause is none of `FORMS`; the line names it and the nearest form.
    """
    clean = _bare(_cased(squash(text.replace("’", "'").replace("→", "->").replace("=>", "->"))))
    clean = re.sub(r"\s*&\s*", " and ", clean)
    if not re.search(r"\w", clean):
        raise NotUnderstood("the instruction is empty: say for example 'make the ball blue'")
    found: list[Instruction] = []
    for clause in _clauses(clean):
        for one in _clause(clause):
            found.append(_meant(one, found[-1] if found else None))
    return tuple(found)


def _meant(one: Instruction, before: Instruction | None) -> Instruction:
    """With the thing of the instruction before, where this one says "it" or only "less shiny"."""
    last = {"attribute": "target", "amount": "target", "swap": "value", "add": "value"}
    thing = getattr(before, last[before.op]) if before and before.op in last else ""
    again = one.target in ("it", "this") or (
        one.op == "amount"
        and not one.target
        and before is not None
        and before.op != "add"
        and one.value not in SCENES
    )
    return replace(one, target=without_article(thing)) if thing and again else one


def _cased(text: str) -> str:
    """In small letters but for names: words with a capital amid others that have none."""
    words = text.split()
    if all(not w[:1].islower() for w in words if w[:1].isalpha()):
        return text.lower()
    said = re.compile(rf"{_VERBS}|{DET}|i(?:'.*)?|.", re.IGNORECASE)
    rest = [w.lower() if describes(w) or said.fullmatch(w) else w for w in words[1:]]
    return " ".join([words[0].lower(), *rest])


def _bare(text: str) -> str:
    """Without politeness at either end and punctuation at the end."""
    before = ""
    text = text.strip(" \"'`.,!?;:")
    while text != before:
        before, text = text, _END.sub("", _POLITE.sub("", text)).strip()
    return text


def _clauses(text: str) -> list[str]:
    """Splits where a new thing to do begins; "red and shiny" and "a cat and a dog" stay whole."""
    parts = re.split(
        r"(\s*[,;.]\s+(?:and then |and |then )?|\s+and then\s+|\s+then\s+|\s+and\s+"
        r"|\s+but\s+|\s*;\s*|\s+\+\s+)",
        text,
    )
    clauses = [parts[0]]
    for glue, part in zip(parts[1::2], parts[2::2], strict=True):
        again = _again(clauses[-1], part)
        bare = _bare(part)
        polite = bool(_POLITE.match(part)) and not describes(bare.split(" ")[0])
        if bare and (polite or _BEGINS.match(bare) or _is_scene(bare)):
            clauses.append(part)
        elif again:
            clauses.append(again)
        elif both := _both(clauses[-1], bare):
            clauses[-1:] = both
        else:
            clauses[-1] += (glue if glue.strip(" ;.") else " and ") + part
    return [bare for clause in clauses if (bare := _bare(clause))]


def _again(last: str, part: str) -> str:
    """A clause that leaves its verb to the one before: "... and the cube green"."""
    last, part = _bare(last), _bare(part)
    removal = re.match(rf"{REMOVE} ", last)
    if removal and not describes(part.split(" ")[-1]):
        return removal[0] + part
    change = re.match(r"(replace|substitute|swap|exchange|turn|change|convert|transform) ", last)
    if change and re.match(rf"{DET} .+ (?:with|by|for|to|into) ", part):
        return change[0] + part
    more = re.match(r"((?:make|turn|get) .+) \w+er$", last)
    if more and positive(part):
        return f"{more[1]} {part}"
    make = re.match(r"(make|turn|paint|colou?r|dye) ", last)
    if (
        make
        and split_adjectives(last.removeprefix(make[0]))[1]
        and re.match(rf"{DET} \S+ ", part)
        and split_adjectives(part)[1]
    ):
        return make[0] + part
    return ""


def _both(last: str, part: str) -> list[str]:
    """ "make the ball" and "the cube green": both are to be green."""
    m = re.fullmatch(rf"(make|turn|paint|colou?r|dye) ({DET} .+)", _bare(last))
    thing, value = split_adjectives(part)
    if m is None or split_adjectives(m[2])[1] or not value or not re.match(rf"{DET} ", part):
        return []
    return [f"{m[1]} {m[2]} {value}", f"{m[1]} {thing} {value}"]


def _is_scene(clause: str) -> bool:
    return bool(re.fullmatch(rf"(?:{AT}|(?:on|in|against|inside) {DET} .+)", clause))


def _clause(clause: str) -> list[Instruction]:
    """The instructions of one clause; a scene at its end is one of its own."""
    plain = _without_the_old(re.sub(r"\s+", " ", clause))
    end = re.search(rf"(?<=\w),? ({AT})$", plain)
    if end and not _scene_alone(plain[: end.start()]):
        try:
            first = _read(_bare(plain[: end.start()]), clause)
        except NotUnderstood:
            first = None
        if first and (first.op != "scene" or first.aspect):
            return [first, scene_of(end[1], clause)]
    return [_read(plain, clause)]


def _without_the_old(text: str) -> str:
    """ "make the ball blue instead of red" says what "make the ball blue" does."""
    m = re.fullmatch(
        rf"((?:{MAKES}) (?:it|the|this|that|my|its) ?.+) (?:instead of|rather than|not) .+", text
    )
    said = bool(m and (split_adjectives(m[1])[1] or re.search(r" (?:an?|into|to) ", m[1])))
    return m[1] if m and said else text


def _scene_alone(text: str) -> bool:
    return bool(re.fullmatch(rf"(?:(?:make|set|put|have|turn) )?(?:it|{PIC})?", text.strip()))


def _read(plain: str, clause: str) -> Instruction:
    _refuse_what_others_do(plain)
    for read in READERS:
        found = read(plain)
        if found is not None:
            target, value = without_article(found.target), found.value.strip(" ,;\"'")
            value = without_article(value) if found.op == "swap" else value
            needs = found.op in ("attribute", "swap", "remove")
            if (needs and not re.search(r"\w", target)) or (
                found.op != "remove" and not re.search(r"\w", value)
            ):
                break
            return replace(found, target=target, value=value, text=clause)
    raise NotUnderstood(_cannot_read(clause))


def _refuse_what_others_do(plain: str) -> None:
    sizes = "|".join(sorted(SIZES))
    size = rf"(?:(?:make|turn|get) (?P<t>.+?) )?(?:much |a bit |slightly )?(?:{sizes})"
    bigger = rf"(?:make|turn|get) (?P<t>.+?) (?:{'|'.join(w for w in SIZES if w.endswith('er'))})\b"
    m = (
        re.fullmatch(size, plain)
        or re.match(bigger, plain)
        or re.match(r"(?:resize|enlarge|shrink|scale|zoom)\b(?: (?P<t>.+))?", plain)
    )
    if m:
        times = (
            "0.7" if re.search(r"\b(?:small|tin|short|narrow|thin|little|shrink)", plain) else "1.3"
        )
        raise NotUnderstood(
            f"{plain!r} changes a size, which is not done with words: edit with --resize "
            f"'{_named(m['t'])}={times}' ({times} times as large)"
        )
    way = "to|a|up|down|left|right|over|away"
    m = re.match(
        rf"(?:move|shift|push|drag|slide|bring)\b(?: (?P<t>.+?)(?: (?:{way})\b.*)?$)?", plain
    )
    if m:
        raise NotUnderstood(
            f"{plain!r} moves a thing, which is not done with words: edit with --move "
            f"'{_named(m['t'])}={_way(plain)}' (right and down, in fractions of the picture)"
        )
    if re.match(r"(?:rotate|flip|mirror|crop|sharpen|blur|undo|keep|do not|don't|never)\b", plain):
        raise NotUnderstood(_cannot_read(plain))


def _way(plain: str) -> str:
    """How far --move is to go, for the way that is said."""
    ways = {"left": "-0.3,0", "up": "0,-0.3", "down": "0,0.3"}
    return next((to for word, to in ways.items() if re.search(rf"\b{word}", plain)), "0.3,0")


def _named(thing: str | None) -> str:
    name = without_article(thing or "")
    return name if name and name not in ("it", "in", "out") else "ball"


def _cannot_read(clause: str) -> str:
    def alike(form: tuple[str, str]) -> float:
        words, said = set(form[1].split()) - ARTICLES, set(clause.lower().split()) - ARTICLES
        ratio = difflib.SequenceMatcher(None, clause.lower(), form[1]).ratio()
        return len(words & said) / len(words) + ratio

    form, example = max(FORMS, key=alike)
    others = (
        "make the ball blue",
        "turn the cube into a cylinder",
        "remove the mug",
        "add a cat on the table",
        "at night",
        "more striped",
        "as a watercolour",
    )
    rest = ", ".join(repr(other) for other in others if other != example)
    shown = clause if len(clause) <= 80 else f"{clause[:77]}..."
    return (
        f"cannot read {shown!r}; the nearest form is {form}, for example {example!r}; others: "
        f"{rest}"
    )
