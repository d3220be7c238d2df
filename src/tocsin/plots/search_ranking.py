"""What a full stage shows: the order of its jobs, whether the quick one foretold it, and what it nearly missed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tocsin.plots.style import (
    INK,
    MUTED,
    NORMAL,
    PREDICTED,
    THRESHOLD,
    TICK_SIZE,
    new_figure,
    outside_legend,
    style_axes,
)

SHOWN = 30  # jobs in the ranking
OVERALL, DIVERSE = PREDICTED, THRESHOLD


class Promoted(NamedTuple):
    """A job of the full stage.

    Attributes:
        name: What sets it apart.
        quick: Its quality in quick.
        full: Its quality in full; NaN = failed.
        overall: Whether it was among the best of all in quick, and not only the best of a value.
    """

    name: str
    quick: float
    full: float
    overall: bool


def ranking_chart(jobs: Sequence[Promoted], metric: str, mode: str, title: str = "Ranking in full") -> Figure:
    """The best jobs in full, the best on top; a hollow dot is the same job in quick.

    Args:
        jobs: In any order.
        metric: What the qualities are.
        mode: `min` or `max`: which is better.
        title: First line.

    Raises:
        ValueError: No job has finished.
    """
    sign = -1.0 if mode == "max" else 1.0
    done = sorted((job for job in jobs if np.isfinite(job.full)), key=lambda job: sign * job.full)
    if not done:
        raise ValueError("no job of the full stage has finished: there is no ranking")
    shown = done[:SHOWN]
    longest = max(len(job.name) for job in shown)
    figure = new_figure(6.0 + 0.062 * longest, 1.7 + 0.24 * len(shown), title)
    axes = figure.subplots()
    for row, job in enumerate(shown):
        color = OVERALL if job.overall else DIVERSE
        axes.plot([job.quick, job.full], [row, row], color=MUTED, linewidth=0.8, alpha=0.6, zorder=1)
        axes.plot([job.quick], [row], "o", color="white", markeredgecolor=color, markersize=5, zorder=2)
        axes.plot([job.full], [row], "o", color=color, markersize=6.5, markeredgecolor="white", zorder=3)
    more = f", {len(done) - len(shown)} more not shown" if len(done) > len(shown) else ""
    style_axes(axes, metric, "", f"{len(done)} jobs{more}")
    axes.set_yticks(range(len(shown)), [job.name for job in shown], fontsize=TICK_SIZE, parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    outside_legend(
        figure, [*_kinds(), _dot("in full", NORMAL, hollow=False), _dot("in quick", NORMAL, hollow=True)], 2
    )
    return figure


def quick_against_full(
    jobs: Sequence[Promoted],
    metric: str,
    correlations: tuple[float, float],
    curve: np.ndarray,
    title: str = "Did quick foretell full?",
) -> Figure:
    """Both qualities of each job, beside the best of the first jobs of the quick order.

    Args:
        jobs: In any order.
        metric: What the qualities are.
        correlations: Kendall's and Spearman's; NaN where they are undefined.
        curve: (N,) best quality in full among the first 1 to N jobs of the quick order.
        title: First line.

    Raises:
        ValueError: No job has finished.
    """
    done = [job for job in jobs if np.isfinite([job.quick, job.full]).all()]
    if not done:
        raise ValueError("no job of the full stage has finished: there is nothing to compare")
    figure = new_figure(10, 4.6, title)
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
    for job in done:
        color = OVERALL if job.overall else DIVERSE
        left.plot([job.quick], [job.full], "o", color=color, markersize=6, alpha=0.8, markeredgecolor="white")
    kendall, spearman = correlations
    known = f"Kendall {kendall:.2f}, Spearman {spearman:.2f}, " if np.isfinite(correlations).all() else ""
    style_axes(
        left,
        f"{metric} in quick",
        f"{metric} in full",
        f"{known}{len(done)} job{'' if len(done) == 1 else 's'}",
    )
    places = np.arange(1, len(curve) + 1)
    right.plot(places, curve, color=INK, linewidth=1.6, drawstyle="steps-post")
    reached = np.flatnonzero(curve == curve[-1])
    if reached.size:
        right.axvline(places[reached[0]], color=THRESHOLD, linestyle="--", linewidth=1.2)
    style_axes(
        right,
        "jobs promoted by the quick order alone",
        f"best {metric} in full",
        f"the best one is number {places[reached[0]]} in quick" if reached.size else "",
    )
    outside_legend(figure, _kinds())
    return figure


def _kinds() -> list[Line2D]:
    return [
        _dot("promoted among the best of all", OVERALL, hollow=False),
        _dot("promoted as the best of a value alone", DIVERSE, hollow=False),
    ]


def _dot(label: str, color: str, *, hollow: bool) -> Line2D:
    face = "white" if hollow else color
    return Line2D([], [], marker="o", linestyle="none", color=face, markeredgecolor=color, label=label)
