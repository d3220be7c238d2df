"""Metrics against the direct way to compute them: `python benchmarks/metrics.py`."""

import sys
from pathlib import Path

import numpy as np
from report import best_of, row
from sklearn.metrics import f1_score

from tocsin.metrics.functional import best_f1
from tocsin.metrics.vus import vus

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "metrics"))
from reference import vus_by_definition  # kept in one place, for the tests too


def series(n: int, n_events: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,) and labels (N,) of a series with events of 20 to 150 points that score higher."""
    rng = np.random.default_rng(0)
    labels = np.zeros(n, dtype=bool)
    for start in np.linspace(0, n - 200, n_events).astype(int) + rng.integers(0, 50, n_events):
        labels[start : start + rng.integers(20, 150)] = True
    return rng.normal(size=n) + 1.5 * labels, labels


def bench_vus() -> None:
    scores, labels = series(20_000, 10)
    ours_s, ours = best_of(5, lambda: vus(scores, labels, buffer=100))
    peer_s, peer = best_of(1, lambda: vus_by_definition(scores, labels, 100))
    row(
        "VUS-PR/ROC, 20 000 points, W=100: loop over W, thresholds",
        ours_s,
        peer_s,
        np.allclose(ours, peer, 0, 1e-9),
    )


def bench_best_f1() -> None:
    scores, labels = series(100_000, 50)

    def grid() -> float:
        cuts = np.linspace(scores.min(), scores.max(), 81)
        return max(f1_score(labels, scores >= cut) for cut in cuts)

    ours_s, ours = best_of(5, lambda: best_f1(scores, labels))
    peer_s, peer = best_of(1, grid)
    checked = np.isclose(f1_score(labels, scores >= ours.threshold), ours.f1, 0, 1e-12)
    row(
        "best F1, 100 000 points: 81-point scikit-learn grid",
        ours_s,
        peer_s,
        bool(checked) and ours.f1 >= peer,
    )


if __name__ == "__main__":
    bench_vus()
    bench_best_f1()
