"""Which images tell most about a detector, and what each of its decisions was worth."""

from typing import NamedTuple

import numpy as np

FOUND, MISSED, FALSE_ALARM, BORDERLINE = "found", "missed", "false alarm", "borderline"
ALARM, NO_ALARM = "alarm", "no alarm"
_ORDER = (FOUND, MISSED, FALSE_ALARM, ALARM, BORDERLINE, NO_ALARM)


class TellingImage(NamedTuple):
    """An image worth looking at.

    Attributes:
        position: Its place in the arrays given.
        role: Why: `found`, `missed`, `false alarm` or `borderline`; without labels, `alarm`, `borderline` or
            `no alarm`.
    """

    position: int
    role: str


def telling_images(
    scores: np.ndarray, labels: np.ndarray | None, threshold: float, n: int
) -> list[TellingImage]:
    """The images that say most about a detector: its best finds, worst misses, false alarms and close calls.

    The roles take turns, so that each is there if it occurs; no image comes twice.

    Args:
        scores: (N,) higher = more anomalous; images whose score is not finite are left out.
        labels: (N,) bool, true = anomalous; None if unknown.
        threshold: In units of the score; an alarm is `score >= threshold`.
        n: At most this many images.

    Returns:
        Grouped by role. The most telling come first: highest of the found and of the false alarms, lowest of the
        missed, nearest to the threshold of the borderline ones.

    Raises:
        ValueError: Shapes differ, or `n` is not positive.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or (labels is not None and np.shape(labels) != scores.shape):
        shape = None if labels is None else np.shape(labels)
        raise ValueError(f"scores has shape {scores.shape} and labels {shape}: give (N,) of each")
    if n < 1:
        raise ValueError(f"n={n} is not positive")
    queues = _queues(scores, None if labels is None else np.asarray(labels).astype(bool), threshold)
    taken: dict[int, str] = {}
    while len(taken) < n and any(queues.values()):
        for role, queue in queues.items():
            while queue and queue[0] in taken:
                queue.pop(0)
            if queue and len(taken) < n:
                taken[queue.pop(0)] = role
    chosen = [TellingImage(position, role) for position, role in taken.items()]
    return sorted(chosen, key=lambda image: _ORDER.index(image.role))


def verdict(score: float, label: bool | None, threshold: float) -> str:
    """What an alarm or its absence is worth: `found`, `missed`, `false alarm`; `no alarm`, `alarm`."""
    alarm = score >= threshold
    if label is None:
        return ALARM if alarm else NO_ALARM
    if label:
        return FOUND if alarm else MISSED
    return FALSE_ALARM if alarm else NO_ALARM


def _queues(scores: np.ndarray, labels: np.ndarray | None, threshold: float) -> dict[str, list[int]]:
    """Indices for each role, the most telling first."""
    finite, alarm = np.isfinite(scores), scores >= threshold

    def ranked(chosen: np.ndarray, key: np.ndarray) -> list[int]:
        places = np.flatnonzero(chosen & finite)
        return [int(index) for index in places[np.argsort(key[places], kind="stable")]]

    near = ranked(np.ones_like(finite), np.abs(scores - threshold))
    if labels is None:
        return {ALARM: ranked(alarm, -scores), BORDERLINE: near, NO_ALARM: ranked(~alarm, scores)}
    return {
        FOUND: ranked(alarm & labels, -scores),
        MISSED: ranked(~alarm & labels, scores),
        FALSE_ALARM: ranked(alarm & ~labels, -scores),
        BORDERLINE: near,
    }
