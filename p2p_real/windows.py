"""How long p2p holds the photo's attention, where the change of words decides it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from edit import EditContext
from edit.align import align
from edit.kinds import changes_light, changes_phrases

logger = logging.getLogger(__name__)

# (cross_replace, self_replace and, if it is less, padding_replace), measured on truth pairs of
# tabletop: 0.8/0.4 leaves light edits and removed things undone; a preset may name light_windows,
# phrase_windows and, where phrases only go, dropped_windows of its own
LIGHT_WINDOWS = (0.2, 0.2)
PHRASE_WINDOWS = (0.4, 0.2)
NAMES = ("cross_replace", "self_replace", "padding_replace")


def with_windows(preset: Mapping[str, Any], context: EditContext) -> Mapping[str, Any]:
    """The preset, with short windows of p2p where the change needs them.

    Raises:
        PromptTooLong: the source is one that the text encoder would cut.
    """
    context.source.check_length()
    pairs = [p for t in context.targets for p in align(context.source, t).pairs]
    if changes_light(pairs):
        why, windows = "the light changes", preset.get("light_windows", LIGHT_WINDOWS)
    elif changes_phrases(pairs):
        why, windows = "a phrase comes or goes", preset.get("phrase_windows", PHRASE_WINDOWS)
        if not changes_phrases(p for p in pairs if p[2] != "dropped"):
            windows = preset.get("dropped_windows", windows)
    else:
        return preset
    if context.first_step:  # edit-friendly may begin after they end
        least = (context.first_step + 1) / context.steps
        windows = [part and max(part, least) for part in windows]
    short = dict(zip(NAMES, windows, strict=False))
    logger.info(
        "%s: the photo's attention is held for %s of the steps (--cross-replace and "
        "--self-replace decide otherwise)",
        why,
        ", ".join(f"{100 * part:.0f} %" for part in windows),
    )
    return {**preset, "p2p": {**preset.get("p2p", {}), **short}}


def light_share(preset: Mapping[str, Any], context: EditContext) -> float:
    """The preset's share of the source's correction for targets that change the light alone.

    Where every place changes and nothing moves, what pulls the photo's own row back to its record
    pulls the edited one nearer to the truth, too; where a thing changes besides, it holds that.
    """
    pairs = [p for t in context.targets for p in align(context.source, t).pairs if p[2] != "same"]
    only = bool(pairs) and all(changes_light([pair]) for pair in pairs)
    return float(preset.get("light_share", 0)) if only else 0.0
