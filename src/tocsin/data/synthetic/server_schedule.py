"""When anomalies happen on the simulated server, of which type, and for how long.

Source: time-series specification, section 9.4 (duration ranges, gaps, ratio). With 15 events of each of the
twelve types, log-uniform durations would fill about 10 % of the default series, twice what is allowed. So
durations are lo * (hi / lo) ** (u ** g) with u uniform and the smallest g >= 1 that keeps the anomalous steps
within the budget: g = 1 is log-uniform, a larger g leans toward the short end of every type's range alike.
Types of at most `BRIEF` steps cost next to nothing and stay log-uniform.
"""

from dataclasses import dataclass

import numpy as np

# Steps from the first to the last labelled one, ramps and recovery included.
DURATIONS = {
    "point_spike": (1, 3),
    "contextual": (1, 30),
    "level_shift": (60, 1500),
    "trend": (200, 1500),
    "memory_leak": (300, 1500),
    "frequency_change": (100, 600),
    "amplitude_change": (100, 600),
    "correlation_break": (60, 600),
    "noise_burst": (20, 200),
    "flatline": (10, 200),
    "saturation": (30, 300),
    "cascade": (30, 300),
}
ANOMALY_TYPES = tuple(DURATIONS)
BRIEF = 30
DRAFTS = 24  # placements from which the most even one is taken
ROUND_FACTOR = 1.5  # anomalous steps to plan with per round, in units of the least possible
MIN_GAP = 200  # normal steps between two events

# One event of each type, all as short as they may have to be, and the normal steps around them.
_ROUND_STEPS = sum(high if high <= BRIEF else low for low, high in DURATIONS.values())
_ROUND_SPAN = _ROUND_STEPS + MIN_GAP * (len(DURATIONS) + 1)


@dataclass(frozen=True)
class PlannedEvent:
    """One anomaly to come: `kind` of `ANOMALY_TYPES` on steps `start` to `end` (exclusive)."""

    kind: str
    start: int
    end: int


def plan_events(
    start: int, stop: int, budget: int, busy: np.ndarray, rng: np.random.Generator, *, every_type: bool
) -> list[PlannedEvent]:
    """Spread events over the steps `start` to `stop`, in rounds that hold each type once in random order.

    Args:
        start: First step that may be anomalous is `start + MIN_GAP`.
        stop: Last step that may be anomalous is before `stop - MIN_GAP`.
        budget: Most anomalous steps.
        busy: (N,) in [0, 1], the rank of the load at each step.
        rng: Source of all randomness.
        every_type: Whether each type must come at least once; otherwise a part of a round is enough.

    Raises:
        ValueError: If `every_type` and one event of each type does not fit.
    """
    span = stop - start
    usual = ROUND_FACTOR * _ROUND_STEPS
    rounds = int(min(budget / usual, 0.8 * span / (usual + MIN_GAP * len(DURATIONS))))
    if rounds == 0 and every_type and (budget < _ROUND_STEPS or span < _ROUND_SPAN):
        raise ValueError(
            f"total_length leaves {span} test steps, at most {budget} of them anomalous, but the "
            f"{len(DURATIONS)} anomaly types need >= {_ROUND_SPAN} and >= {_ROUND_STEPS}; raise "
            "total_length, the share of the test part or anomaly_ratio"
        )
    order = [rng.permutation(len(DURATIONS)) for _ in range(max(rounds, int(every_type)))]
    if not order:
        order = [_part_of_round(span, budget, rng)]
    kinds = np.concatenate(order)
    if len(kinds) == 0:
        return []
    lengths = _durations(kinds, min(budget, span - MIN_GAP * (len(kinds) + 1)), rng)
    if rounds > 2:
        kinds, lengths = _even_order(kinds.reshape(rounds, -1), lengths.reshape(rounds, -1), rng)
    drafts = [_starts(start, stop, kinds, lengths, busy, rng) for _ in range(DRAFTS)]
    starts = min(drafts, key=lambda draft: _unevenness(np.array(draft), kinds, lengths, busy))
    return [
        PlannedEvent(ANOMALY_TYPES[k], int(s), int(s + d))
        for k, s, d in zip(kinds, starts, lengths, strict=True)
    ]


def _even_order(
    kinds: np.ndarray, lengths: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Order the rounds (R, types) so that time alone says least about anomalies; both flat, (R * types,)."""
    steps = lengths.sum(axis=1) / lengths.sum()
    place = np.linspace(-1, 1, len(steps))
    orders = rng.permuted(np.tile(np.arange(len(steps)), (500, 1)), axis=1)
    outward = np.abs(place) - np.abs(place).mean()
    tells = np.abs(steps[orders] @ place) + np.abs(steps[orders] @ outward)
    order = orders[tells.argmin()]
    return kinds[order].ravel(), lengths[order].ravel()


def _starts(
    start: int,
    stop: int,
    kinds: np.ndarray,
    lengths: np.ndarray,
    busy: np.ndarray,
    rng: np.random.Generator,
) -> list[int]:
    """First steps of events that follow each other in the given order.

    Each round gets an equal share of the time axis, and of 12 candidates each event takes the one whose rank
    of load is farthest (on a circle, which favours no end) from those its type already had: every type meets
    early and late, quiet and busy times alike, so that scores tell about the type and not about its moments.
    """
    types, span = len(DURATIONS), stop - start - MIN_GAP
    rounds = -(-len(kinds) // types)
    position, starts = start, []
    used: dict[int, list[float]] = {}
    for i, (kind, length) in enumerate(zip(kinds.tolist(), lengths.tolist(), strict=True)):
        last = min((i // types + 1) * types, len(kinds))  # the round ends with the event before
        share_end = start + span * (i // types + 1) // rounds
        left = share_end - position - int(lengths[i:last].sum()) - MIN_GAP * (last - i)
        overall = stop - MIN_GAP - position - int(lengths[i:].sum()) - MIN_GAP * (len(kinds) - i)
        reach = min(2 * max(left, 0) / (last - i + 1), overall)
        spare = rng.uniform(0, reach, 12).astype(int)
        rank = busy[position + MIN_GAP + spare + length // 2]
        apart = np.abs(rank[:, None] - np.array([*used.get(kind, []), np.inf]))
        best = int(np.minimum(apart, np.abs(1 - apart)).min(axis=1).argmax())
        used.setdefault(kind, []).append(float(rank[best]))
        position += MIN_GAP + int(spare[best])
        starts.append(position)
        position += length
    return starts


def _unevenness(starts: np.ndarray, kinds: np.ndarray, lengths: np.ndarray, busy: np.ndarray) -> float:
    """How far the types' steps are from seeing all ranks of load alike; 0 is perfect."""
    steps = np.bincount(kinds, lengths, len(DURATIONS))
    cost = 0.0
    for rank, due in ((busy, 0.5), (np.abs(busy - 0.5), 0.25)):
        total = np.concatenate([[0.0], np.cumsum(rank)])
        mean = np.bincount(kinds, total[starts + lengths] - total[starts], len(DURATIONS)) / np.maximum(
            steps, 1
        )
        cost += float((((mean - due)[steps > 0] / due) ** 2).sum())
    return cost


def _part_of_round(span: int, budget: int, rng: np.random.Generator) -> np.ndarray:
    """As many types as fit, in random order: (n,) int type numbers."""
    order = rng.permutation(len(DURATIONS))
    shortest = np.array([low for low, _ in DURATIONS.values()])[order]
    room = (np.cumsum(shortest) <= budget) & (np.cumsum(shortest + MIN_GAP) + MIN_GAP <= span)
    return order[room]


def _durations(kinds: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """Steps per event (n,) int64 whose sum is at most `budget` if the shortest allow it."""
    low, high = np.array(list(DURATIONS.values()), dtype=float)[kinds].T
    u = rng.random(len(kinds))

    def lengths(g: float) -> np.ndarray:
        exponent = np.where(high > BRIEF, g, 1.0)
        return np.asarray(np.round(low * (high / low) ** (u**exponent)), dtype=np.int64)

    least, most = 1.0, 1.0
    while lengths(most).sum() > budget and most < 1e4:
        least, most = most, 2 * most
    for _ in range(30):
        middle = (least + most) / 2
        least, most = (middle, most) if lengths(middle).sum() > budget else (least, middle)
    return lengths(most)
