"""Long lines without waste: min/max decimation, time axes, and whether a score needs a log axis."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

COLUMNS = 1500  # about the pixel columns of the widest panel
HEAVY_TAIL = 30.0  # largest over median score from which only a log axis shows both


@dataclass(frozen=True)
class TimeAxis:
    """Positions of the steps on the x axis.

    Attributes:
        x: (N,) float64, not decreasing: steps, the timestamps' own numbers, or days since 1970 for dates.
        label: Text of the x axis.
        dates: Whether x are dates.
    """

    x: np.ndarray
    label: str
    dates: bool

    def apply(self, axes: Axes, ticks: int = 8) -> None:
        """Set limits, ticks and their format (not the label, which only the lowest panel needs).

        Args:
            axes: Whose x axis.
            ticks: At most this many intervals.
        """
        if len(self.x) > 1 and self.x[-1] > self.x[0]:
            axes.set_xlim(float(self.x[0]), float(self.x[-1]))
        if self.dates:
            # Fewer than 6 ticks fail on some ranges; Matplotlib's dates carry no types.
            locator = AutoDateLocator(minticks=3, maxticks=max(ticks, 6))  # type: ignore[no-untyped-call]
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        elif self.label == "time step":
            axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(ticks))

    def part(self, start: int, end: int) -> "TimeAxis":
        """The same axis for steps `start` to `end` (exclusive)."""
        return TimeAxis(self.x[start:end], self.label, self.dates)


def time_axis(timestamps: np.ndarray | None, steps: int) -> TimeAxis:
    """Choose the x axis: timestamps if they are numbers or dates in order, otherwise step numbers.

    Timestamps that run back (several series laid end to end) or cannot be read would draw a wrong line.

    Args:
        timestamps: (N,) numbers, datetime64, or ISO 8601 texts; or None.
        steps: N.
    """
    counted = TimeAxis(np.arange(steps, dtype=np.float64), "time step", dates=False)
    if timestamps is None:
        return counted
    stamps = np.asarray(timestamps)
    dates = not np.issubdtype(stamps.dtype, np.number)
    if dates:
        parsed = pd.to_datetime(pd.Series(stamps), format="ISO8601", errors="coerce", utc=True)
        if bool(parsed.isna().any()):
            return counted
        x = date2num(parsed.to_numpy(dtype="datetime64[ns]"))  # type: ignore[no-untyped-call]
    else:
        x = stamps.astype(np.float64)
    if not np.isfinite(x).all() or bool((np.diff(x) < 0).any()):
        return counted
    return TimeAxis(x, "time" if dates else "timestamp", dates)


def decimate(values: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Steps that draw the same picture: the lowest and the highest value of each pixel column.

    Args:
        values: (N,) numbers; NaN is a gap and is kept only where a whole column is one.
        columns: Pixel columns of the panel.

    Returns:
        (M,) int64 steps in order, M <= 2 * columns + 2; all N steps if there are no more than that.
    """
    (steps,) = values.shape
    if steps <= 2 * columns + 2:
        return np.arange(steps)
    width = -(-steps // columns)
    rows = -(-steps // width)
    padded = np.full(rows * width, np.nan)
    padded[:steps] = values
    table = padded.reshape(rows, width)
    hole = np.isnan(table)
    low = np.where(hole, np.inf, table).argmin(axis=1)
    high = np.where(hole, -np.inf, table).argmax(axis=1)
    first = np.arange(rows) * width
    return np.unique(np.concatenate([[0], first + low, first + high, [steps - 1]]))


def draw_line(axes: Axes, x: np.ndarray, values: np.ndarray, color: str, width: float = 1.1) -> Line2D:
    """Draw a line of any length; a long one is decimated and thinner.

    Args:
        axes: Where to draw.
        x: (N,) float64.
        values: (N,) numbers; what is not finite becomes a gap.
        color: Of the line.
        width: Points, for a line short enough to be drawn whole.
    """
    values = np.asarray(values, dtype=np.float64)
    values = np.where(np.isfinite(values), values, np.nan)
    kept = decimate(values)
    width = width if len(values) <= COLUMNS else min(width, 0.7)
    (line,) = axes.plot(x[kept], values[kept], color=color, linewidth=width, zorder=2)
    return line


def wants_log(values: np.ndarray) -> bool:
    """Whether only a log axis shows both the bulk and the tail.

    True if the values are nonnegative with at most 1 % zeros, and the largest is over 30 times the median.

    Args:
        values: Numbers of any shape; what is not finite is left out.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.min() < 0 or float((finite == 0).mean()) > 0.01:
        return False
    return bool(finite.max() > HEAVY_TAIL * np.median(finite))
