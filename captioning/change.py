"""What one instruction did to a caption, and which thing of it was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from captioning.grammar import (
    ARTICLES,
    article_for,
    ends_a_noun,
)
from captioning.instruction import NotUnderstood
from captioning.kinds_of_words import (
    MASS,
    PRONOUNS,
    is_plural,
)
from captioning.matching import nearest, reference, words_of
from captioning.phrases import (
    NounPhrase,
    adjectives_match,
    matches,
    noun_phrases,
    split_target,
    subject,
)

Local = Mapping[str, str] | tuple[str, ...] | None


@dataclass(frozen=True)
class Change:
    """What one instruction did to a caption.

    Attributes:
        text: the new caption.
        kind: "colour", "attribute", "object", "remove", "add", "scene", "amount" or "style".
        changed: (old words, new words) of each place, as `Rewrite.changed`.
        local: noun -> noun of a thing that changed; a tuple of the noun of one that came or went.
        direction: (words, words) that an edit direction could lead between, or None.
        weights: words of the new caption to attend to more or less.
        notes: what was decided, in plain sentences.
    """

    text: str
    kind: str
    changed: tuple[tuple[str, str], ...] = ()
    local: Local = None
    direction: tuple[str, str] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def not_named(text: str, target: str) -> NotUnderstood:
    """The error for a thing that the caption does not name."""
    target = re.sub(r"^(?:an?|the) ", "", target)
    named = [word for word in words_of(text) if not ends_a_noun(word)]  # no "at" for "cat"
    near = nearest(target.split()[-1] if target.split() else target, named)
    near = [word for word in near if word.lower() not in target.lower().split()]
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    return NotUnderstood(
        f"the caption {text!r} names no {target!r}{hint} Say it as the caption does, or "
        "give a caption that names it (--caption, --prompt)"
    )


def find_things(text: str, target: str) -> list[NounPhrase]:
    """The noun phrases that a target means: one, or several where it says so.

    Raises:
        NotUnderstood: there is none, or several and it does not say which.
    """
    if target.lower() in PRONOUNS | {"thing", "object", "subject", "one"}:
        first = subject(text)
        if first is None:
            raise not_named(text, target)
        several = re.match(r"\W+and ", text[first.end :]) and not is_plural(first.head.text)
        if several and target.lower() in ("them", "these", "they"):
            raise NotUnderstood(
                f"{target!r} does not say which things of the caption {text!r} are meant: name each"
            )
        return [first]
    words, number, every = split_target(target)
    phrases = noun_phrases(text)
    found = [p for p in phrases if matches(p, words)]
    if target.lower().endswith(" one"):
        found = [p for p in phrases if adjectives_match(p, words)]
    if not found or number > len(found):
        raise not_named(text, target)
    if number:
        return [found[number - 1 if number > 0 else number]]
    said = [w.lower() for w in words]
    exact = [p for p in found if [w.text.lower() for w in p.words] == said and len(said) > 1]
    if len(exact) == 1 and not every:
        return exact
    if (
        len(found) > 1
        and not every
        and not (is_plural(words[-1]) and not is_plural(found[0].head.text))
    ):
        names = list(dict.fromkeys(text[slice(*p.named)] for p in found))
        which = [f"the {name}" for name in names if name != " ".join(words)]
        which = (which if len(which) > 1 else []) + [f"the second {' '.join(words)}"]
        raise NotUnderstood(
            f"the caption {text!r} names {len(found)} things that {target!r} may be: say which, "
            f"for example {' or '.join(repr(w) for w in which)}"
        )
    return found


def insert(text: str, at: int, words: str) -> tuple[str, str]:
    """The text with words put in at a place between words, and how to name them there."""
    left, right = text[:at].rstrip(), text[at:].lstrip()
    lead = f"{left} " if left else ""
    gap = "" if not right or right[0] in ",.;:!?)" else " "
    target = f"{lead}{words}{gap}{right}"
    return target, reference(target, (len(lead), len(lead) + len(words)))


def with_article(words: str) -> str:
    """ "a small cat" of "small cat"; what has a determiner, is mass or plural stays."""
    found = noun_phrases(words)
    if not found or found[0].determiner or found[0].start:
        return words
    noun = found[0].head.text
    if noun.lower() in MASS or is_plural(noun) or words[:1].isupper():
        return words
    return f"{article_for(words)} {words}"


def together(text: str, done: Sequence[Change]) -> Change:
    """The same change of several things, made from the last to the first."""
    if len(done) == 1:
        return done[0]
    changed = differences(text, done[-1].text)
    local = {
        a: b
        for change in done
        if isinstance(change.local, Mapping)
        for a, b in change.local.items()
    }
    return replace(done[-1], changed=changed, local=local or None)


def differences(old: str, new: str) -> tuple[tuple[str, str], ...]:
    """The words in which two captions differ, as `Rewrite.changed`, without "a" becoming "an"."""
    before, after = ([m.span() for m in re.finditer(r"\w+(?:['’\-]\w+)*", t)] for t in (old, new))
    one, two = [old[a:b].lower() for a, b in before], [new[a:b].lower() for a, b in after]
    found = []
    for _, i, j, k, m in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if one[i:j] == two[k:m]:
            continue
        while i < j and one[i] in ARTICLES:
            i += 1
        while k < m and two[k] in ARTICLES:
            k += 1
        was = reference(old, (before[i][0], before[j - 1][1])) if i < j else ""
        now = reference(new, (after[k][0], after[m - 1][1])) if k < m else ""
        found += [(was, now)] if was or now else []
    return tuple(found)
