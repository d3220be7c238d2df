"""How a training went: losses, stages, the best epoch, the gap to validation data and the learning rate."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tocsin.plots.gap import draw_gap, gap_pairs
from tocsin.plots.style import (
    CATEGORICAL,
    INK,
    MUTED,
    THRESHOLD,
    TICK_SIZE,
    new_figure,
    outside_legend,
    style_axes,
)

History = Mapping[str, Sequence[tuple[int, float]]]
LARGE_RANGE = 20.0  # largest over smallest value from which a log axis is easier to read
FAR_RATES = 8.0  # largest over median learning rate from which the axis is logarithmic
MAIN_COLORS = {"train_loss": CATEGORICAL[0], "val_loss": CATEGORICAL[2]}


def training_curves(
    history: History,
    stages: Sequence[tuple[int, str]] = (),
    best_epoch: int | None = None,
    title: str = "Training",
) -> Figure:
    """Losses above the gap to the validation data and the learning rate, on one axis of epochs.

    Args:
        history: For each name its epochs, from 1, and values. Names that contain `loss` are losses; names that start
            with `lr` or contain `learning_rate` are learning rates; `train_probe_x` and `val_x` have a panel with the
            gap between them; others are left out.
        stages: First epoch and name of each training stage.
        best_epoch: Of the checkpoint kept; None takes that of the last stage with the highest `val_macro_f1`, or the
            lowest `val_loss` where there is none.
        title: First line.

    Raises:
        ValueError: There is no loss with a finite value.
    """
    pairs, rates = gap_pairs({name: _finite(points) for name, points in history.items()}), _rates(history)
    if not rates and not pairs:
        return loss_curves(history, stages, best_epoch, title)
    figure = new_figure(8, 4.2 + 2.2 * len(pairs) + 1.2 * bool(rates), title)
    ratios = [2.4, *[2.0] * len(pairs), *[1.0] * bool(rates)]
    upper, *others = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    _draw_losses(upper, history, stages, best_epoch)
    best = _best_epoch(history, stages, best_epoch) if pairs else None
    for axes, (metric, curves) in zip(others, pairs.items(), strict=False):
        draw_gap(axes, metric, *curves, best)
    if rates:
        _draw_rates(others[-1], history)
    for axes in (upper, *others[:-1]):
        axes.set_xlabel("")
    curves_of_gaps = _handles(others[0]) if pairs else []  # the same in each panel
    outside_legend(figure, [*_handles(upper), *curves_of_gaps], 3)
    return figure


def loss_curves(
    history: History,
    stages: Sequence[tuple[int, str]] = (),
    best_epoch: int | None = None,
    title: str = "Loss",
) -> Figure:
    """Training and validation losses with stage boundaries and the best epoch.

    Arguments as in `training_curves`.

    Raises:
        ValueError: There is no loss with a finite value.
    """
    figure = new_figure(8, 4.2, title)
    axes = figure.subplots()
    _draw_losses(axes, history, stages, best_epoch)
    outside_legend(figure, _handles(axes))
    return figure


def learning_rate(history: History, title: str = "Learning rate") -> Figure:
    """The learning rate of each optimizer or parameter group; `history` as in `training_curves`.

    Raises:
        ValueError: There is no learning rate.
    """
    if not _rates(history):
        raise ValueError(f"no learning rate in the history: it holds {', '.join(history) or 'nothing'}")
    figure = new_figure(8, 3.2, title)
    axes = figure.subplots()
    _draw_rates(axes, history)
    if len(axes.lines) > 1:
        outside_legend(figure, _handles(axes))
    return figure


def _draw_losses(
    axes: Axes, history: History, stages: Sequence[tuple[int, str]], best_epoch: int | None
) -> None:
    """Fill one panel with losses, stages and the best epoch."""
    losses = {name: curve for name in history if "loss" in name and (curve := _finite(history[name])).size}
    if not losses:
        raise ValueError(f"no finite loss in the history: it holds {', '.join(history) or 'nothing'}")
    values = _all_values(losses.values())
    if values.min() > 0 and values.max() > LARGE_RANGE * values.min():
        axes.set_yscale("log")
    for name, curve in sorted(losses.items(), key=lambda item: (item[0] not in MAIN_COLORS, item[0])):
        curve = _broken(curve, [epoch for epoch, _ in stages])
        _draw_curve(axes, name, curve, MAIN_COLORS.get(name) or _spare_color(len(axes.lines)))
    first, last = _span(losses.values())
    for number, (epoch, name) in enumerate(stages):
        if epoch > first:
            axes.axvline(epoch - 0.5, color=MUTED, linestyle="-", linewidth=0.9, zorder=1.5)
        following = stages[number + 1][0] if number + 1 < len(stages) else last + 1
        axes.text(
            (max(epoch, first) + following - 1) / 2,
            1.01,
            name,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=TICK_SIZE,
            color=MUTED,
            parse_math=False,
        )
    best = _best(losses.get("val_loss"), stages, _best_epoch(history, stages, best_epoch))
    if best is not None:
        axes.plot(
            [best[0]],
            [best[1]],
            marker="*",
            markersize=13,
            color=THRESHOLD,
            markeredgecolor="white",
            linestyle="none",
            zorder=5,
            label=f"best epoch {best[0]} (val_loss {best[1]:.4g})",
        )
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    style_axes(axes, "epoch", f"loss{' (log scale)' if axes.get_yscale() == 'log' else ''}")
    _narrow_log_ticks(axes)


def _draw_rates(axes: Axes, history: History) -> None:
    """Fill one panel with learning rates."""
    rates = _rates(history)
    values = _all_values(rates.values())
    if values.min() > 0 and values.max() > FAR_RATES * np.median(
        values
    ):  # not for a cosine, for decades of steps
        axes.set_yscale("log")
    for name, curve in rates.items():
        _draw_curve(axes, name, curve, INK if len(rates) == 1 else _spare_color(len(axes.lines)))
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, 1.08 * max(float(values.max()), 1e-12))  # no marker is cut
        axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    style_axes(axes, "epoch", f"learning rate{' (log)' if axes.get_yscale() == 'log' else ''}", ticks=4)
    _narrow_log_ticks(axes)


def _spare_color(number: int) -> str:
    """A colour which neither main loss has."""
    spare = [color for color in CATEGORICAL if color not in MAIN_COLORS.values()]
    return spare[number % len(spare)]


def _draw_curve(axes: Axes, name: str, curve: np.ndarray, color: str) -> None:
    """One (E, 2) curve; few epochs get markers, because a single point draws no line."""
    marker = "o" if len(curve) <= 25 else ""
    axes.plot(curve[:, 0], curve[:, 1], color=color, linewidth=1.6, marker=marker, markersize=3.5, label=name)


def _broken(curve: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """A curve (E, 2) with a gap before each stage: losses of different stages cannot be compared."""
    cuts = np.unique(np.searchsorted(curve[:, 0], starts)) if len(starts) else np.empty(0, np.int64)
    inner = cuts[(cuts > 0) & (cuts < len(curve))]
    return np.insert(curve, inner, np.nan, axis=0)


def _all_values(curves: Iterable[np.ndarray]) -> np.ndarray:
    """The values of curves (E, 2), end to end."""
    return np.concatenate([curve[:, 1] for curve in curves])


def _narrow_log_ticks(axes: Axes) -> None:
    """Label 1, 2 and 5 of each decade where a log axis spans too few decades for powers of ten alone."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log" and high < 300 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _rates(history: History) -> dict[str, np.ndarray]:
    """Learning rates by name, each (E, 2)."""
    named = {
        name: _finite(history[name]) for name in history if name.startswith("lr") or "learning_rate" in name
    }
    return {name: curve for name, curve in named.items() if curve.size}


def _finite(points: Sequence[tuple[int, float]]) -> np.ndarray:
    """(E, 2) float64 epochs and values in order of epochs, without what is not finite."""
    curve = np.array(points, dtype=np.float64).reshape(-1, 2)
    curve = curve[np.isfinite(curve).all(axis=1)]
    return curve[np.argsort(curve[:, 0], kind="stable")]


def _span(curves: Iterable[np.ndarray]) -> tuple[float, float]:
    """First and last epoch of all curves (E, 2)."""
    epochs = np.concatenate([curve[:, 0] for curve in curves])
    return float(epochs.min()), float(epochs.max())


def _best(
    curve: np.ndarray | None, stages: Sequence[tuple[int, str]], best_epoch: int | None
) -> tuple[int, float] | None:
    """Epoch and val_loss to mark: the lowest of the last stage, the last of equals, or the epoch given."""
    if curve is None:
        return None
    wanted = curve[:, 0] >= max((epoch for epoch, _ in stages), default=0)
    if best_epoch is not None:
        wanted = curve[:, 0] == best_epoch
    if not wanted.any():
        return None
    epoch, loss = min(curve[wanted][::-1], key=lambda point: float(point[1]))
    return int(epoch), float(loss)


def _best_epoch(history: History, stages: Sequence[tuple[int, str]], given: int | None) -> int | None:
    """The epoch given, else that of the last stage with the best `val_macro_f1`, the last of equals; or None."""
    curve = _finite(history.get("val_macro_f1", ()))
    curve = curve[curve[:, 0] >= max((epoch for epoch, _ in stages), default=0)][
        ::-1
    ]  # as checkpoints are kept
    return given if given is not None or not len(curve) else int(curve[curve[:, 1].argmax(), 0])


def _handles(axes: Axes) -> list[Line2D]:
    """Legend entries of the named lines of a panel."""
    return [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
