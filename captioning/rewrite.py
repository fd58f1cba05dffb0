"""Captions to prompts: pure text. Swap, add and remove words, set a style, and say what changed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from captioning.cleaning import tidy
from captioning.grammar import (
    ARTICLES,
    CONJUNCTIONS,
    DETERMINERS,
    MEDIA,
    PREPOSITIONS,
    VERBS,
    article_for,
    article_like,
    case_like,
    is_participle,
)
from captioning.matching import (
    Edit,
    RewriteError,
    Span,
    WordNotInPrompt,
    apply_edits,
    find_word,
    has_word,
    reference,
    split_reference,
    squash,
    words_of,
)
from captioning.removal import cut

__all__ = [
    "Rewrite",
    "RewriteError",
    "WordNotInPrompt",
    "add",
    "compose",
    "find_word",
    "parse_swap",
    "parse_weight",
    "remove",
    "style",
    "swap",
    "tidy",
]


@dataclass(frozen=True)
class Rewrite:
    """A source prompt, the target prompt, and the words that differ.

    Attributes:
        source: The prompt as given.
        target: The new prompt, single-spaced.
        changed: One (source words, target words) for each place that changed, in the order of
            the text. The source words are "" where words were added, the target words "" where
            they were removed. `#n` marks the n-th of equal words: `find_word` finds the place.
    """

    source: str
    target: str
    changed: tuple[tuple[str, str], ...] = ()


def swap(prompt: str, words: Mapping[str, str]) -> Rewrite:
    """Swaps words or phrases, all at once.

    `{"cat": "dog"}` swaps every "cat", `{"cat#2": "dog"}` the second one; a phrase that contains
    another one goes first. The prompt's case and punctuation stay, "a" and "an" follow the word.

    Args:
        prompt: The source prompt.
        words: What is in the prompt, and what comes in its place.

    Raises:
        WordNotInPrompt: A word is not there, or all its places are taken by longer phrases.
        RewriteError: An empty word, or a swap that changes nothing.
    """
    clean = squash(prompt)
    claims: list[tuple[Span, str]] = []
    for old, new in sorted(words.items(), key=_most_exact_first):
        if not re.search(r"\w", new):
            raise RewriteError(f"nothing to put in the place of {old!r}; to take it out, remove it")
        free = [span for span in find_word(clean, old) if not _overlaps(span, claims)]
        if not free:
            reason = f"{old!r} is taken by another swap in the prompt {clean!r}"
            raise WordNotInPrompt(old, prompt, reason)
        if all(clean[start:end] == squash(new) for start, end in free):
            raise RewriteError(f"swapping {old!r} for {new!r} changes nothing")
        claims += [(span, squash(new)) for span in free]
    if not claims:
        raise RewriteError("no words to swap were given")
    edits: list[Edit] = []
    for (start, end), new in claims:
        before = re.search(r"(?<!\w)(an?|the)(\s+)[\[({\"“‘]*$", clean[:start], re.IGNORECASE)
        text = case_like(clean[start:end], new)
        if before and not _overlaps(before.span(1), claims):
            article = before[1]
            if text.split()[0].lower() in DETERMINERS:  # it brings its own
                edits.append(Edit(before.start(1), before.end(2), ""))
                text = case_like(article if article[0].isupper() else "x", text)
            elif article.lower() != "the":
                shout = text.isupper() and clean[start:end].isupper()
                edits.append(Edit(*before.span(1), article_like(article, text, shout)))
        edits.append(Edit(start, end, text, named=True))
    target, moved = apply_edits(clean, edits)
    changed = tuple((reference(clean, a), reference(target, b)) for a, b in moved)
    return Rewrite(prompt, target, changed)


def add(prompt: str, phrase: str) -> Rewrite:
    """Adds a phrase at the end: "with a hat" and "wearing a hat" by a space, others by a comma.

    Raises:
        RewriteError: An empty phrase.
    """
    clean, text = squash(prompt), squash(phrase).strip(",.; ")
    if not re.search(r"\w", text):
        raise RewriteError("there is nothing to add: the phrase is empty")
    body = clean.rstrip(" .,;!?")
    first = words_of(text)[0].lower()
    runs_on = first in PREPOSITIONS | CONJUNCTIONS | VERBS or is_participle(first)
    glue = "" if not body else " " if runs_on else ", "
    end = clean[len(body) :].strip(" ,;")
    target = f"{body}{glue}{text}{end}"
    start = len(body) + len(glue)
    return Rewrite(prompt, target, (("", reference(target, (start, start + len(text)))),))


def remove(prompt: str, word: str) -> Rewrite:
    """Removes a word or phrase (every one, or with `#n` the n-th) and what would dangle then.

    "a cat and a dog on a mat" without "dog" is "a cat on a mat".

    Raises:
        WordNotInPrompt: It is not there.
        RewriteError: Nothing worth a prompt would be left.
    """
    clean = squash(prompt)
    spans = find_word(clean, word)
    target = clean
    for start, end in reversed(spans):
        target = cut(target, start, end)
    empty = DETERMINERS | CONJUNCTIONS | PREPOSITIONS | VERBS
    if all(left.lower() in empty for left in words_of(target)):
        raise RewriteError(f"without {word!r} nothing is left of the prompt {clean!r}")
    return Rewrite(prompt, target, tuple((reference(clean, span), "") for span in spans))


def style(prompt: str, phrase: str) -> Rewrite:
    """Sets a style: "watercolor painting" before the prompt with "of", "anime style" behind it.

    A prompt that names a medium already ("a photo of ...") has it replaced.

    Raises:
        RewriteError: An empty phrase.
    """
    clean, text = squash(prompt), squash(phrase).strip(",.; ")
    found = words_of(text)
    if not found:
        raise RewriteError("there is no style: the phrase is empty")
    of = found[-1].lower() == "of"
    if not of and found[-1].lower() not in MEDIA:
        return add(prompt, text)
    text = text[:-2].strip() if of else text
    if not re.search(r"\w", text):
        raise RewriteError(f"{phrase!r} is no style; write for example 'a watercolor painting'")
    bare = text.split(" ", 1)[1] if text.split()[0].lower() in ARTICLES and " " in text else text
    full = text if bare != text else f"{article_for(text)} {text}"
    medium = re.match(
        rf"(?:an?|the)\s+((?:[\w\-]+\s+){{0,3}}?(?:{'|'.join(MEDIA)}))\s+of\s", clean, re.I
    )
    if medium:
        old = medium.span(1)
        if clean[slice(*old)].lower() == bare.lower():
            raise RewriteError(f"the prompt {clean!r} has the style {bare!r} already")
        edits = [Edit(0, old[0], case_like(clean[:1] + "x", full[: len(full) - len(bare)]))]
        target, moved = apply_edits(clean, [*edits, Edit(*old, bare, named=True)])
        return Rewrite(prompt, target, ((reference(clean, old), reference(target, moved[0][1])),))
    first = clean.split(" ", 1)[0]
    if first.lower() in DETERMINERS and first[:1].isupper() and not first[1:].isupper():
        clean, full = clean[0].lower() + clean[1:], full[0].upper() + full[1:]
    target = f"{full} of {clean}".strip()
    begin = len(full) - len(bare)
    return Rewrite(prompt, target, (("", reference(target, (begin, len(full)))),))


def compose(
    prompt: str,
    *,
    swaps: Mapping[str, str] | None = None,
    removals: Iterable[str] = (),
    additions: Iterable[str] = (),
    styles: Iterable[str] = (),
) -> Rewrite:
    """Several changes of one prompt, in this order: swaps, removals, additions, styles.

    Returns:
        One Rewrite from the first prompt to the last; equal to the prompt when none was asked.

    Raises:
        RewriteError: As the single changes.
    """
    target = prompt
    changed: list[tuple[str, str]] = []
    steps: list[Callable[[str], Rewrite]] = [partial(swap, words=swaps)] if swaps else []
    steps += [partial(remove, word=word) for word in removals]
    steps += [partial(add, phrase=phrase) for phrase in additions]
    steps += [partial(style, phrase=phrase) for phrase in styles]
    for step in steps:
        result = step(target)
        target = result.target
        changed += result.changed
    kept = [(a, b) for a, b in changed if _is_in(prompt, a) and _is_in(target, b)]
    return Rewrite(prompt, target, tuple(kept))


def parse_swap(text: str) -> tuple[str, str]:
    """`"red ball=blue cube"` is ("red ball", "blue cube").

    Raises:
        RewriteError: Not of the form OLD=NEW.
    """
    old, equals, new = (part.strip() for part in text.partition("="))
    if not equals or not old or "=" in new:
        raise RewriteError(f"a swap is written OLD=NEW, for example cat=dog, not {text!r}")
    if not new:
        raise RewriteError(
            f"the swap {text!r} has nothing after '='; to take {old!r} out, remove it"
        )
    split_reference(old)
    return squash(old), squash(new)


def parse_weight(text: str) -> tuple[str, float]:
    """`"fluffy=2.0"` is ("fluffy", 2.0).

    Raises:
        RewriteError: Not of the form WORD=NUMBER, or the number is not finite.
    """
    word, equals, number = (part.strip() for part in text.rpartition("="))
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not equals or not word or "=" in word or not math.isfinite(weight):
        raise RewriteError(f"a weight is written WORD=NUMBER, for example fluffy=2.0, not {text!r}")
    split_reference(word)
    return squash(word), weight


def _most_exact_first(item: tuple[str, str]) -> tuple[bool, int]:
    text, number = split_reference(item[0])
    return number == 0, -len(text)


def _overlaps(span: Span, claims: Iterable[tuple[Span, str]]) -> bool:
    return any(span[0] < end and start < span[1] for (start, end), _ in claims)


def _is_in(prompt: str, word: str) -> bool:
    return not word or has_word(prompt, word)
