"""Masks of the place that may change: read from words, a file, a box, a segmenter; combined."""

from .combine import feather, grow, invert, shrink
from .grammar import MaskError, parse
from .making import EmptyMask, MaskAsked
from .mask import Mask
from .source import MaskSource, Subject, mask_sources

__all__ = [
    "EmptyMask",
    "Mask",
    "MaskAsked",
    "MaskError",
    "MaskSource",
    "Subject",
    "feather",
    "grow",
    "invert",
    "mask_sources",
    "parse",
    "shrink",
]
