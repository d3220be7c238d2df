"""Pictures inside of the page: those of the runs made smaller, and how options relate to the metric."""

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tocsin.leaderboard.board import Table
from tocsin.leaderboard.rows import Row

# What shows best how a run of each kind does; the first of them that there are.
TELLING = (
    *("signal", "anomaly_maps", "detections", "confusion", "confusion_matrix"),
    *("average_precision", "score_histogram", "precision_recall"),
)
MAX_OF_A_RUN = 2
SIDE = 860  # most pixels across
QUALITY = 74  # of JPEG: thin lines and small text stay clear, and WebP takes ten times as long to write
DPI = 150  # of the picture of options
MAX_OPTIONS = 9  # axes of the picture of options
MIN_LINES = 3


class Picture(NamedTuple):
    """A picture inside of the page.

    Attributes:
        name: What it shows.
        source: As a `data:` address.
        width: Pixels.
        height: Pixels.
    """

    name: str
    source: str
    width: int
    height: int


def of_rows(rows: Sequence[Row]) -> list[list[Picture]]:
    """Pictures of the run nearest to the mean of each row; a file that cannot be read is left out."""
    wanted = [_files(row) for row in rows]
    flat = list(dict.fromkeys(path for paths in wanted for path in paths))
    with ThreadPoolExecutor(max_workers=4) as pool:  # the codecs run without Python's lock
        made = dict(zip(flat, pool.map(_smaller, flat), strict=True))
    return [[picture for path in paths if (picture := made[path]) is not None] for paths in wanted]


def of_options(table: Table) -> Picture | None:
    """Options that differ between the entries of a table, and the metric they lead to; None if too few do."""
    from tocsin.plots.parallel_coordinates import parallel_coordinates

    rows = [row for row in table.rows if row.entry is not None]
    names = list(dict.fromkeys(name for row in rows for name in row.options))
    options: dict[str, Sequence[str | None]] = {
        name: [row.options.get(name) for row in rows] for name in names[:MAX_OPTIONS]
    }
    models = [row.name for row in rows]
    if len(set(models)) > 1:
        options = {"model": models, **options}
    if len(rows) < MIN_LINES or not names:
        return None
    figure = parallel_coordinates(
        options,
        np.array([row.mean for row in rows]),
        metric_name=table.kind.title,
        title=f"{table.title}: options and {table.kind.title}",
    )
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    pixels = cv2.cvtColor(drawn, cv2.COLOR_RGBA2BGR)
    return _encoded("options", pixels, "webp", 80)


def _files(row: Row) -> list[Path]:
    runs = [run for run in row.runs if (run.folder / "plots").is_dir()]
    if not runs:
        return []
    nearest = min(runs, key=lambda run: abs(row.values.get(run.seed, float("inf")) - row.mean))
    paths = [nearest.folder / "plots" / f"{name}.png" for name in TELLING]
    return [path for path in paths if path.is_file()][:MAX_OF_A_RUN]


def _smaller(path: Path) -> Picture | None:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        return None
    H, W = pixels.shape[:2]
    share = SIDE / max(H, W)
    if share < 1:
        size = (max(1, round(W * share)), max(1, round(H * share)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return _encoded(path.stem, pixels, "jpeg", QUALITY)


def _encoded(name: str, pixels: np.ndarray, form: str, quality: int) -> Picture:
    chosen = cv2.IMWRITE_WEBP_QUALITY if form == "webp" else cv2.IMWRITE_JPEG_QUALITY
    done, content = cv2.imencode(f".{form}", pixels, [chosen, quality])
    assert done
    height, width = pixels.shape[:2]
    address = f"data:image/{form};base64,{base64.b64encode(content.tobytes()).decode()}"
    return Picture(name, address, width, height)
