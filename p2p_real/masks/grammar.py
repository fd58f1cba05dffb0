"""The text of a mask: sources, joined by ``|``, ``&`` and ``-``, turned round by ``~``.

    mask   = part { ("|" | "-") part }            union and difference, from left to right
    part   = factor { "&" factor }                intersection binds tighter
    factor = "~" factor | "(" mask ")" | source   turning round binds tightest
    source = KIND [ ":" TEXT ]                    words:red ball, box:0.1,0.2,0.5,0.6, diffedit

A minus counts only with a blank before and after it, so words and file names may hold one. A text
with one of ``| & ~ ( )`` in it stands in double quotes: ``file:"a (1).png"``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..numbers import OptionError

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<sign>[|&~()]|-(?=\s|$))
      | (?P<kind>[A-Za-z][\w-]*)
        (?:\s*:\s*(?:"(?P<quoted>[^"]*)"|(?P<text>(?:(?!\s-\s)[^|&~()"])*)))?
    )""",
    re.VERBOSE,
)


class MaskError(OptionError):
    """A mask that cannot be read or made; names the place."""


@dataclass(frozen=True)
class Source:
    """A leaf: a kind of source and what it is told."""

    kind: str
    text: str

    def __str__(self) -> str:
        plain = self.text if not re.search(r"[|&~()]|\s-\s", self.text) else f'"{self.text}"'
        return f"{self.kind}:{plain}" if self.text else self.kind


@dataclass(frozen=True)
class Not:
    """What is outside."""

    of: Node

    def __str__(self) -> str:
        return f"~{self.of}" if isinstance(self.of, Source | Not) else f"~({self.of})"


@dataclass(frozen=True)
class Join:
    """Two masks joined by ``|``, ``&`` or ``-``."""

    sign: str
    left: Node
    right: Node

    def __str__(self) -> str:
        tight = self.sign == "&"
        left = f"({self.left})" if tight and _loose(self.left) else str(self.left)
        loose = _loose(self.right) or (tight and isinstance(self.right, Join))
        return f"{left} {self.sign} " + (f"({self.right})" if loose else str(self.right))


Node = Source | Not | Join


def _loose(node: Node) -> bool:
    return isinstance(node, Join) and node.sign != "&"


def leaves(node: Node) -> list[Source]:
    """The sources of a mask, from left to right."""
    if isinstance(node, Source):
        return [node]
    if isinstance(node, Not):
        return leaves(node.of)
    return leaves(node.left) + leaves(node.right)


def parse(text: str, option: str = "--mask-from") -> Node:
    """The mask that a text describes.

    Raises:
        MaskError: names the character at which it cannot be read.

    Example:
        >>> print(parse("words:red ball|box:0,0,0.5,1 - file:keep.png"))
        words:red ball | box:0,0,0.5,1 - file:keep.png
    """
    return _Reader(text, option).read()


class _Reader:
    """One pass over a text, from left to right."""

    def __init__(self, text: str, option: str) -> None:
        self.text, self.option, self.at = text, option, 0
        self.found: re.Match[str] | None = None
        self.next()

    def next(self) -> None:
        """Read one token; ``found`` is None at the end."""
        rest = re.compile(r"\s*$").match(self.text, self.at)
        if rest:
            self.at, self.found = len(self.text), None
            return
        self.found = _TOKEN.match(self.text, self.at)
        if self.found is None:
            raise self.wrong("no source and no sign starts here")

    def take(self) -> re.Match[str]:
        assert self.found is not None
        token = self.found
        self.at = token.end()
        self.next()
        return token

    def sign(self) -> str:
        """The sign that comes next, or an empty text."""
        return (self.found["sign"] or "") if self.found else ""

    def wrong(self, why: str) -> MaskError:
        place = len(self.text) - len(self.text[self.at :].lstrip())
        rest = self.text[place:]
        where = f"at character {place + 1}, before {rest[:20]!r}" if rest else "at its end"
        return MaskError(f"{self.option} {self.text!r}: {why}, {where}")

    def read(self) -> Node:
        node = self.mask()
        if self.found is not None:
            raise self.wrong("expected |, & or - between two masks")
        return node

    def mask(self) -> Node:
        node = self.part()
        while self.sign() in ("|", "-"):
            sign = self.take()["sign"]
            node = Join(sign, node, self.part())
        return node

    def part(self) -> Node:
        node = self.factor()
        while self.sign() == "&":
            self.take()
            node = Join("&", node, self.factor())
        return node

    def factor(self) -> Node:
        if self.sign() == "~":
            self.take()
            return Not(self.factor())
        if self.sign() == "(":
            self.take()
            node = self.mask()
            if self.sign() != ")":
                raise self.wrong("a bracket is not closed")
            self.take()
            return node
        if self.found is None or self.sign():
            raise self.wrong("expected a source such as words:ball")
        token = self.take()
        text = token["quoted"] if token["quoted"] is not None else token["text"]
        return Source(token["kind"].lower(), (text or "").strip())
