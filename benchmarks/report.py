"""One printed row per benchmark: ours and the peer on the same work, and whether both computed the same."""

from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


def best_of(n: int, work: Callable[[], T]) -> tuple[float, T]:
    """Shortest of `n` wall times of `work` in seconds, and its last result."""
    times = []
    for _ in range(n):
        start = perf_counter()
        result = work()
        times.append(perf_counter() - start)
    return min(times), result


def row(name: str, ours_s: float, peer_s: float, equal: bool) -> None:
    """Print one benchmark: seconds of both sides, their ratio, and the check of equality."""
    same = "same result" if equal else "RESULTS DIFFER"
    print(f"{name:<58} {ours_s:>11.5f} s {peer_s:>11.3f} s {peer_s / ours_s:>8.0f}x  {same}", flush=True)
