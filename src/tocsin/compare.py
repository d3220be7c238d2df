"""Compare two finished runs of one kind, before and after: what changed in the configuration, and what it brought.

    python -m tocsin.compare outputs/<before> outputs/<after> [--output folder]

It writes compare.md and compare.png. Two classifiers that were tested on the same images are compared image by image:
with the interval of each difference, and McNemar's test.
"""

import argparse
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tocsin.errors import TocsinError
from tocsin.finished_runs import Pairs, Run, better, pair, read_run
from tocsin.metrics.bootstrap import PairedDifference, paired_difference
from tocsin.metrics.classification import confusion, selective_error
from tocsin.metrics.functional import roc_curve
from tocsin.plots.comparison import Curves, Measured, comparison
from tocsin.plots.save import save

NONE = "\N{EN DASH}"
FACTS = ("model", "data", "seed", "git", "device", "precision", "finished")
COSTS = (
    ("timing", "fit_s"),
    ("timing", "epochs"),
    ("timing", "test_items_per_s"),
    ("resources", "parameters"),
)

MAX_POINTS = 2000  # of a ROC curve
NOT_SHARES = ("nll", "brier", "false_alarms_per_1000", "detection_delay")  # no place on an axis of shares


def compare(first: Path, second: Path, output: Path | None = None) -> Path:
    """Write compare.md and compare.png.

    Args:
        first: Folder of the run before.
        second: Folder of the run after.
        output: Folder to write to; None takes `compare` in that of the second run.

    Returns:
        The path of compare.md.

    Raises:
        TocsinError: A folder is not that of a finished run, or the runs measured nothing in common.
    """
    before, after = read_run(first), read_run(second)
    if not _shared(before, after):
        kinds = [", ".join(run.sections["test"]) or "nothing" for run in (before, after)]
        raise TocsinError(
            f"the test metrics of {first} ({kinds[0]}) and {second} ({kinds[1]}) have none in common"
        )
    found = pair(before, after)
    difference = paired_difference(*found[:4]) if isinstance(found, Pairs) else None
    folder = second / "compare" if output is None else output
    save(_figure(before, after), folder / "compare.png")
    parts = [_head(before, after), _remark(found, difference), _metrics(before, after, difference)]
    parts += [_classes(before, after), _configuration(before, after), "![compare](compare.png)"]
    path, text = folder / "compare.md", "\n\n".join(part for part in parts if part)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)
    return path


# --- the page -------------------------------------------------------------------------------------------------


def _head(before: Run, after: Run) -> str:
    runs = [run.sections["run"] for run in (before, after)]
    rows = [[fact, *(str(run.get(fact, NONE)) for run in runs)] for fact in FACTS]
    return "# Before and after\n\n" + _table(
        ["", f"before: `{before.folder}`", f"after: `{after.folder}`"], rows
    )


def _remark(found: Pairs | str, difference: PairedDifference | None) -> str:
    if isinstance(found, str) or difference is None:
        return f"**{found}**" if found else ""
    return (
        f"Both were tested on the same {len(found.labels)} images. {difference.only_first_right} only the first run "
        f"got right, {difference.only_second_right} only the second; exact McNemar test p = {difference.p_value:.3g}."
    )


def _metrics(before: Run, after: Run, difference: PairedDifference | None) -> str:
    """Test metrics, then validation metrics and costs."""
    intervals = {} if difference is None else difference.metrics
    head = ["", "before", "after", "difference", ""] + ["95 % interval of the difference"] * bool(intervals)
    parts = []
    for title, section in {"Test": "test", "Validation": "val"}.items():
        rows = []
        a, b = (run.sections.get(section, {}) for run in (before, after))
        for name in [*a, *(name for name in b if name not in a)]:
            row = _metric_row(name, a.get(name), b.get(name))
            if intervals:
                known = intervals.get(name) if section == "test" else None
                row.append("" if known is None else _interval(known.low, known.high))
            rows.append(row)
        if rows:
            parts.append(f"## {title}\n\n{_table(head, rows)}")
    costs = [
        (name, *(run.sections.get(part, {}).get(name) for run in (before, after))) for part, name in COSTS
    ]
    rows = [_metric_row(*cost) for cost in costs if cost[1:] != (None, None)]
    return "\n\n".join([*parts, f"## Cost\n\n{_table(head[:5], rows)}"] if rows else parts)


def _metric_row(name: str, first: float | None, second: float | None) -> list[str]:
    """Cells of one metric: its name, both values, the difference and what that is worth."""
    if first is None or second is None:
        return [name, *(NONE if value is None else _number(value) for value in (first, second)), NONE, ""]
    verdict = {True: "▲ better", False: "▼ worse", None: "=" if first == second else ""}
    gain = second - first
    sign = "+" if gain > 0 else ""
    return [name, _number(first), _number(second), sign + _number(gain), verdict[better(name, first, second)]]


def _interval(low: float, high: float) -> str:
    if math.isnan(low):
        return NONE
    return f"{low:+.4f} to {high:+.4f}{', may be chance' if low <= 0 <= high else ''}"


def _classes(before: Run, after: Run) -> str:
    """F1 of each class that both runs know."""
    a, b = (run.sections.get("per_class", {}) for run in (before, after))
    rows = [_metric_row("f1", a[name]["f1"], b[name]["f1"]) for name in a if name in b]
    named = [[name, *row[1:]] for name, row in zip((name for name in a if name in b), rows, strict=True)]
    return (
        f"## F1 of each class\n\n{_table(['', 'before', 'after', 'difference', ''], named)}" if named else ""
    )


def _configuration(before: Run, after: Run) -> str:
    """Keys whose values differ."""
    a, b = before.config, after.config
    if not a or not b:
        missing = before.folder if not a else after.folder
        return f"## Configuration\n\n{missing} has no .hydra/config.yaml: what differs cannot be told."
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key, NONE) != b.get(key, NONE)]
    rows = [[f"`{key}`", *(f"`{side[key]}`" if key in side else NONE for side in (a, b))] for key in keys]
    return "## Configuration\n\n" + (_table(["", "before", "after"], rows) if rows else "Both are the same.")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float) -> str:
    """Four digits after the point, of large numbers four in all, whole ones as they are."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


# --- the picture ----------------------------------------------------------------------------------------------


def _shared(before: Run, after: Run) -> list[str]:
    """Test metrics that both runs have."""
    a, b = before.sections["test"], after.sections["test"]
    return [name for name in a if a[name] is not None and b.get(name) is not None]


def _figure(before: Run, after: Run) -> Figure:
    """Metrics that both have and that are shares, curves, and the confusion matrices of classifiers."""
    a, b = before.sections["test"], after.sections["test"]
    measured = {
        name: Measured(a[name], b[name], better(name, a[name], b[name]))
        for name in _shared(before, after)
        if not name.endswith(NOT_SHARES) and "threshold" not in name
    }
    names = [
        f"{side}: {run.sections['run']['model']}, {run.folder.name}"
        for side, run in (("before", before), ("after", after))
    ]
    matrices, classes = None, [str(name) for name in before.arrays.get("classes", ())]
    if before.classifies and after.classifies and classes == list(map(str, after.arrays["classes"])):
        matrices = _matrix(before), _matrix(after)
    return comparison((names[0], names[1]), measured, matrices, classes, _curves(before, after))


def _matrix(run: Run) -> np.ndarray:
    probabilities = run.arrays["probabilities"]
    return confusion(run.arrays["labels"], probabilities.argmax(1), probabilities.shape[1])


def _curves(before: Run, after: Run) -> Curves | None:
    """Of classifiers the errors among the surest images, of detectors ROC curves."""
    arrays = before.arrays, after.arrays
    if before.classifies and after.classifies:
        first, second = (selective_error(run["labels"], run["probabilities"]) for run in arrays)
        return Curves(
            first, second, "share of images decided, the surest first", "share of errors among them"
        )
    if not all(_ranks(run) for run in arrays):
        return None
    rocs = (roc_curve(run["scores"], run["labels"], max_points=MAX_POINTS) for run in arrays)
    first, second = (np.stack([roc.false_positive_rate, roc.true_positive_rate], axis=1) for roc in rocs)
    return Curves(first, second, "share of the normal with an alarm", "share of the anomalous with an alarm")


def _ranks(run: Mapping[str, np.ndarray]) -> bool:
    """Whether a run gave scores to items of both kinds."""
    return "scores" in run and "labels" in run and bool(run["labels"].any()) and not bool(run["labels"].all())


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tocsin.compare",
        description="Compare two finished runs: metrics, classes, configuration. Writes compare.md and compare.png.",
    )
    parser.add_argument("run_a", type=Path, help="folder of the run before, outputs/<model>/<data>/<time>")
    parser.add_argument("run_b", type=Path, help="folder of the run after")
    parser.add_argument("--output", type=Path, help="folder to write to (default: <run_b>/compare)")
    arguments = parser.parse_args()
    try:
        page = compare(arguments.run_a, arguments.run_b, arguments.output)
    except TocsinError as error:
        parser.error(str(error))
    sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main()
