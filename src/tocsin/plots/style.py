"""One look for every figure: colours, type sizes, light grid, outside legend.

Styles are set on each object and never through `rcParams`, which is global: threads may draw at the same
time. Colours are those of Okabe and Ito (2008), which stay apart for colour-blind readers and in grey print.
"""

from collections.abc import Sequence
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

INK = "#1F2937"  # text and measured signals
MUTED = "#6B7280"  # secondary text
GRID = "#E5E7EB"
NORMAL = "#7B8794"  # the normal class
TRUE = "#E69F00"  # orange: what the labels say
PREDICTED = "#0072B2"  # blue: what the detector says
THRESHOLD = "#D55E00"  # vermilion
MASKED = "#CBD5E1"  # hidden from the model
TEACHER = "#56B4E9"
STUDENT = "#CC79A7"
CATEGORICAL = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

TITLE_SIZE = 12
SUBTITLE_SIZE = 9.5
LABEL_SIZE = 9
TICK_SIZE = 8
AREA_ALPHA = 0.35


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """A white figure outside of pyplot, so that it needs no closing.

    Args:
        width: Inches.
        height: Inches.
        title: Written bold at the upper left.
    """
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(
            title, x=0.01, ha="left", fontsize=TITLE_SIZE, fontweight="bold", color=INK, parse_math=False
        )
    return figure


def style_axes(axes: Axes, xlabel: str = "", ylabel: str = "", subtitle: str = "", ticks: int = 5) -> None:
    """Label the axes, keep a light grid behind the data and drop the upper and right frame.

    Args:
        axes: What to style.
        xlabel: With its unit.
        ylabel: With its unit.
        subtitle: One line above the axes.
        ticks: At most this many intervals on a linear y axis.
    """
    axes.set_xlabel(xlabel, fontsize=LABEL_SIZE, color=INK, parse_math=False)
    axes.set_ylabel(ylabel, fontsize=LABEL_SIZE, color=INK, parse_math=False)
    if subtitle:
        axes.set_title(subtitle, loc="left", fontsize=SUBTITLE_SIZE, color=INK, parse_math=False)
    axes.tick_params(labelsize=TICK_SIZE, colors=MUTED, labelcolor=INK, length=3)
    axes.xaxis.get_offset_text().set_fontsize(TICK_SIZE)
    axes.yaxis.get_offset_text().set_fontsize(TICK_SIZE)
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    if axes.get_yscale() == "linear" and not isinstance(axes.yaxis.get_major_locator(), FixedLocator):
        axes.yaxis.set_major_locator(MaxNLocator(ticks))
    elif axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(numticks=ticks + 1))
        axes.yaxis.set_minor_locator(NullLocator())


def horizontal_ylabel(axes: Axes, label: str, longest: int = 24) -> None:
    """Write a y label level, for panels too low for upright text; a long one is cut with an ellipsis.

    Args:
        axes: What to label.
        label: Name and unit.
        longest: Characters.
    """
    short = label if len(label) <= longest else label[: longest - 1] + "…"
    axes.set_ylabel(
        short, rotation=0, ha="right", va="center", fontsize=LABEL_SIZE, color=INK, parse_math=False
    )


def area_handle(label: str, color: str, alpha: float = AREA_ALPHA) -> Patch:
    """Legend entry of translucent areas."""
    return Patch(facecolor=color, alpha=alpha, edgecolor=color, label=label)


def line_handle(label: str, color: str, style: Literal["-", "--", ":"] = "-") -> Line2D:
    """Legend entry of a line."""
    return Line2D([], [], color=color, linestyle=style, linewidth=1.4, label=label)


def outside_legend(figure: Figure, handles: Sequence[Artist], columns: int = 5) -> None:
    """One legend below all panels, where it cannot cover data."""
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=min(len(handles), columns),
        frameon=False,
        fontsize=LABEL_SIZE,
        labelcolor=INK,
    )
