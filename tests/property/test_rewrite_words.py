"""Laws of rewriting, over any prompt that these words can make."""

from __future__ import annotations

import re

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from captioning.grammar import article_for
from captioning.rewrite import RewriteError, add, compose, find_word, remove, style, swap, tidy

NOUNS = ["cat", "elephant", "ball", "apple", "wedding dress", "unicorn", "t-shirt", "mug", "hour"]
ADJECTIVES = ["red", "orange", "old", "fluffy", "metal", "shiny"]
LINKS = [" and ", " on ", ", ", " with ", " in front of ", " holding ", " sitting on "]
WORDS = st.sampled_from(NOUNS + ADJECTIVES)


@st.composite
def phrases(draw: st.DrawFn) -> str:
    words = [*draw(st.lists(st.sampled_from(ADJECTIVES), max_size=2)), draw(st.sampled_from(NOUNS))]
    text = " ".join(words)
    article = draw(st.sampled_from(["", "the ", f"{article_for(text)} ", "two "]))
    return article + text


@st.composite
def prompts(draw: st.DrawFn) -> str:
    text = draw(phrases())
    for _ in range(draw(st.integers(0, 3))):
        text += draw(st.sampled_from(LINKS)) + draw(phrases())
    return text + draw(st.sampled_from(["", ".", "!"]))


@st.composite
def prompts_and_words(draw: st.DrawFn) -> tuple[str, str]:
    """A prompt, and a word that is in it: to draw both apart would throw most draws away."""
    prompt = draw(prompts())
    there = [word for word in NOUNS + ADJECTIVES if re.search(rf"\b{word}\b", prompt)]
    return prompt, draw(st.sampled_from(there))


def is_clean(text: str) -> bool:
    return (
        text == text.strip()
        and "  " not in text
        and not re.search(r"\s[,.!]", text)
        and not re.search(r",\s*,", text)
    )


@settings(deadline=None)
@given(drawn=prompts_and_words(), new=st.sampled_from(["dog", "owl", "blue cube", "green eel"]))
def test_swapping_there_and_back_gives_the_same_prompt(drawn: tuple[str, str], new: str) -> None:
    prompt, old = drawn
    there = swap(prompt, {old: new})
    assert there.target != prompt
    assert is_clean(there.target)
    assert swap(there.target, {new: old}).target == prompt
    assert len(there.changed) == len(find_word(prompt, old))
    for source_word, target_word in there.changed:
        assert len(find_word(prompt, source_word)) == 1
        assert len(find_word(there.target, target_word)) == 1


@settings(deadline=None)
@given(drawn=prompts_and_words(), new=WORDS)
def test_articles_always_agree_after_a_swap(drawn: tuple[str, str], new: str) -> None:
    prompt, old = drawn
    assume(old != new)
    target = swap(prompt, {old: new}).target
    for match in re.finditer(r"\b(an?) (?=(\S+))", target):
        assert match[1] == article_for(target[match.end() :]), target


@settings(deadline=None)
@given(drawn=prompts_and_words())
def test_removing_leaves_a_clean_sentence_without_the_word(drawn: tuple[str, str]) -> None:
    prompt, word = drawn
    try:
        target = remove(prompt, word).target
    except RewriteError:
        return
    assert is_clean(target), target
    assert not re.search(rf"\b{word}\b", target)
    assert not re.search(r"\b(and|on|with|of|in|front|an?|the)[.!]?$", target), target
    assert not re.search(r"\b(a|an|the) (a|an|the|and|on|with)\b", target), target
    nouns_left = sum(len(re.findall(rf"\b{n}\b", target)) for n in NOUNS)
    nouns = sum(len(re.findall(rf"\b{n}\b", prompt)) for n in NOUNS if n != word)
    assert nouns_left == nouns, target  # nothing else that is seen goes away with it


@settings(deadline=None)
@given(prompt=prompts(), phrase=phrases())
def test_adding_and_styling_keep_the_words(prompt: str, phrase: str) -> None:
    added, styled = add(prompt, phrase), style(prompt, "oil painting")
    assert is_clean(added.target)
    assert is_clean(styled.target)
    assert re.findall(r"\w+", added.target) == re.findall(r"\w+", f"{prompt} {phrase}")
    assert re.findall(r"\w+", styled.target)[4:] == re.findall(r"\w+", prompt)
    assert compose(prompt, additions=[phrase]) == added


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=60))
def test_any_text_goes_through_without_a_crash(text: str) -> None:
    for target in (tidy(text), add(text, "a hat").target):
        assert target == " ".join(target.split())
    for call in (lambda: remove(text, "cat"), lambda: swap(text, {"cat": "dog"})):
        try:
            outcome = call().target
        except RewriteError as error:
            outcome = str(error)
        assert "\n" not in outcome


@settings(deadline=None)
@given(prompt=prompts(), more=prompts())
def test_tidying_twice_changes_no_more(prompt: str, more: str) -> None:
    assert tidy(tidy(f"{prompt} {more}")) == tidy(f"{prompt} {more}")
