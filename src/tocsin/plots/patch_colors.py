"""The colours of conditions, the same in all figures of a patch: clean green, the attack vermilion, controls gray."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from tocsin.plots.style import CATEGORICAL, INK, MUTED, THRESHOLD

CLEAN, ATTACK = "clean", "patch"
CLEAN_COLOR, ATTACK_COLOR, CONTROL_COLOR = CATEGORICAL[2], THRESHOLD, "#94A3B8"


class LineStyle(NamedTuple):
    """How a line is drawn."""

    color: str
    dashes: Literal["-", "--", ":"] = "-"


_CONTROLS = (
    LineStyle(CONTROL_COLOR),
    LineStyle(MUTED, "--"),
    LineStyle(INK, ":"),
    LineStyle(CONTROL_COLOR, "--"),
    LineStyle(MUTED),
    LineStyle(CONTROL_COLOR, ":"),
)


def condition_color(name: str) -> str:
    """Of the bar of `clean`, of `patch`, or of a control, which any other name is."""
    return {CLEAN: CLEAN_COLOR, ATTACK: ATTACK_COLOR}.get(name, CONTROL_COLOR)


def condition_lines(names: Sequence[str]) -> dict[str, LineStyle]:
    """The line of each condition: controls are gray, and differ in their shade and dashes."""
    controls = [name for name in names if name not in (CLEAN, ATTACK)]
    gray = {name: _CONTROLS[place % len(_CONTROLS)] for place, name in enumerate(controls)}
    return {name: gray.get(name, LineStyle(condition_color(name))) for name in names}
