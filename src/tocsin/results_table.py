"""Tables in Markdown from the metrics.json files of a sweep, written into a marked block of a page.

    python -m tocsin.results_table multirun/<time> --page docs/results/time_series.md --name ts_benchmark

Data sets stand in columns, methods in rows; first the scores that need no model. A value is the mean over the
entities of a data set (domains and categories of images have a column each), then mean and standard deviation over
seeds. Runs with other `tags` are rows of their own. Oracle numbers have a table of their own. Runs with random
weights where pretrained ones belong are left out; classifiers, which learn all the same, are marked as from scratch.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from tocsin.errors import TocsinError

# First in every table, in this order.
BASELINES = (
    *("random", "majority", "abs_z", "brightness", "pca", "kmeans", "iforest", "pixel_gaussian"),
    *("clean", "gray", "white", "noise", "mosaic", "shuffled"),  # images without a patch, and controls
)
NAMES = {"abs_z": "largest deviation", "clean": "no patch"}
NONE = "\N{EN DASH}"

ORACLE = "Oracle: the best F1 that any threshold could have reached (an upper bound, not a result)"
# Title of a table, then its columns: head, section of metrics.json, metric.
SERIES_TABLES = {
    "VUS-PR": {"": ("test", "vus_pr")},
    "Point F1 and series F1 at the threshold from validation data": {
        "point": ("test", "point_f1"),
        "series": ("test", "series_f1"),
    },
    ORACLE: {"point": ("oracle", "point_f1"), "series": ("oracle", "series_f1")},
    "Cost of an entity: seconds of training, items scored per second": {
        "train s": ("timing", "fit_s"),
        "items/s": ("timing", "test_items_per_s"),
    },
}
IMAGE_TABLES = {
    "Image AUROC": {"": ("test", "image_auroc")},
    "Image F1 at the threshold from validation data": {"": ("test", "image_f1")},
    "Pixel AUROC and AUPRO": {"AUROC": ("test", "pixel_auroc"), "AUPRO": ("test", "aupro")},
    ORACLE: {"": ("oracle", "image_f1")},
    "Cost: seconds of training, images scored per second": {
        "train s": ("timing", "fit_s"),
        "images/s": ("timing", "test_items_per_s"),
    },
}
CLASS_TABLES = {
    "Test images": {
        "accuracy": ("test", "accuracy"),
        "macro F1": ("test", "macro_f1"),
        "AUROC": ("test", "auroc"),
    },
    "Accuracy of training images minus that of validation images; calibration error; share of unsure answers": {
        "gap": ("val", "train_val_gap"),
        "ECE": ("test", "ece"),
        "unsure": ("test", "unsure_rate"),
    },
    "Cost: seconds of training, images classified per second": {
        "train s": ("timing", "fit_s"),
        "images/s": ("timing", "test_items_per_s"),
    },
}
PATCH_TABLES = {
    "Average precision for persons on test images (the lower, the more the detector lost)": {
        "AP50": ("test", "ap50"),
        "AP50-95": ("test", "ap50_95"),
        "det-AP50": ("test", "det_ap50"),
        "AP50 of those who wear a patch": ("test", "ap50_targets"),
    },
    "Of the persons found without a patch, the share lost, and the share with no detection near (overlap of 0.1)": {
        "lost at 0.25": ("test", "vanish_25"),
        "lost at 0.5": ("test", "vanish_50"),
        "unseen at 0.25": ("test", "unseen_25"),
        "unseen at 0.5": ("test", "unseen_50"),
    },
    "AP50 under the strongest control minus AP50 under the patch": {
        "all persons": ("test", "ap50_beyond_control"),
        "those who wear it": ("test", "ap50_targets_beyond_control"),
    },
    "Cost: seconds of training": {"train s": ("timing", "fit_s")},
}

Value = Callable[[dict[str, Any]], float | None]


@dataclass(frozen=True)
class Row:
    """The numbers of one method on one entity.

    Attributes:
        model: The method.
        dataset: Column of the tables.
        entity: Which of the data set's series.
        seed: Seed of the training.
        sections: As in metrics.json.
    """

    model: str
    dataset: str
    entity: str
    seed: int
    sections: dict[str, Any]


class Transfer(NamedTuple):
    """A quality for each pair of domains.

    Attributes:
        sources: S domains trained on.
        targets: T domains tested on.
        values: S rows of T numbers; NaN where a pair was not measured.
    """

    sources: list[str]
    targets: list[str]
    values: list[list[float]]


def read_rows(folders: Sequence[Path]) -> list[Row]:
    """All runs below some folders, and the scores without a model that were measured beside them.

    Raises:
        TocsinError: There is no metrics.json, or one cannot be read.
    """
    paths = sorted(path for folder in folders for path in folder.glob("**/metrics.json"))
    if not paths:
        raise TocsinError(f"no metrics.json below {', '.join(map(str, folders))}: give the folder of a sweep")
    rows: dict[tuple[str, str, str, int], Row] = {}
    for path in paths:
        try:
            sections = json.loads(path.read_text())
            run, source = sections["run"], sections["data"].get("source")
        except (json.JSONDecodeError, KeyError) as error:
            raise TocsinError(f"{path} is not a metrics.json of a run: {error}") from error
        if not run.get("pretrained", True) and not _of_classes(sections):
            continue
        parts = Path(source or run["data"]).parts
        dataset, entity = parts[-2:][0], parts[-1]
        if _of_images(sections) or _of_classes(sections) or _of_patches(sections):
            dataset = entity
        own = Row(method_name(run), dataset, entity, run["seed"], sections)
        free = [Row(name, dataset, entity, 0, {"test": test}) for name, test in sections["baselines"].items()]
        for row in (own, *free):
            rows.setdefault((row.model, row.dataset, row.entity, row.seed), row)
    if not rows:
        raise TocsinError(
            "all these runs have random weights where pretrained ones belong: they are no results"
        )
    return list(rows.values())


def tables(rows: Sequence[Row]) -> str:
    """The tables of a page: ranking, F1 at the threshold, oracle, cost."""
    first = rows[0].sections
    kinds = ((_of_classes, CLASS_TABLES), (_of_images, IMAGE_TABLES), (_of_patches, PATCH_TABLES))
    shown = next((tables for is_kind, tables in kinds if is_kind(first)), SERIES_TABLES)
    parts = []
    for title, columns in shown.items():
        values = {name: _metric(section, metric) for name, (section, metric) in columns.items()}
        if (made := table(rows, values)).count("\n") > 1:  # more than its head
            parts.append(f"**{title}**\n\n{made}")
    for model, matrix in transfer(rows).items():
        lines = ["| | " + " | ".join(matrix.targets) + " |", "| --- " * (len(matrix.targets) + 1) + "|"]
        for source, measured in zip(matrix.sources, matrix.values, strict=True):
            cells = [NONE if math.isnan(number) else _rounded(number) for number in measured]
            lines.append(f"| {source} | " + " | ".join(cells) + " |")
        parts.append(
            f"**Image AUROC of {model}, trained on a row and tested on a column**\n\n" + "\n".join(lines)
        )
    return "\n\n".join(parts)


def transfer(rows: Sequence[Row]) -> dict[str, Transfer]:
    """Image AUROC on the own and on further domains, mean over seeds, for each model that was tested on some."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        tested = {row.dataset: row.sections["test"], **row.sections.get("targets", {})}
        if len(tested) > 1:
            for target, test in tested.items():
                pair = found.setdefault(row.model, {}).setdefault((row.dataset, target), [])
                pair.append(test["image_auroc"])
    matrices = {}
    for model, pairs in found.items():
        sources = sorted({source for source, _ in pairs})
        targets = sorted({target for _, target in pairs})
        values = [
            [statistics.fmean(pairs[s, t]) if (s, t) in pairs else math.nan for t in targets] for s in sources
        ]
        matrices[model] = Transfer(sources, targets, values)
    return matrices


def table(rows: Sequence[Row], columns: dict[str, Value]) -> str:
    """One Markdown table: methods in rows, every column of values for each data set."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    models = sorted({row.model for row in rows}, key=_place)
    heads = [f"{dataset} {name}".strip() for dataset in datasets for name in columns]
    lines = ["| | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for model in models:
        cells = [
            cell([row for row in rows if (row.model, row.dataset) == (model, dataset)], value)
            for dataset in datasets
            for value in columns.values()
        ]
        if any(text != NONE for text in cells):
            lines.append(f"| {NAMES.get(model, model)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(rows: Sequence[Row], value: Value) -> str:
    """Mean over entities, then mean ± standard deviation over seeds; a dash where nothing is defined."""
    means: list[float] = []
    for seed in sorted({row.seed for row in rows}):
        found = [number for row in rows if row.seed == seed if (number := value(row.sections)) is not None]
        if found:
            means.append(statistics.fmean(found))
    if not means:
        return NONE
    mean = _rounded(statistics.fmean(means))
    return mean if len(means) < 2 else f"{mean} ± {_rounded(statistics.stdev(means))}"


def notes(rows: Sequence[Row], folders: Sequence[Path]) -> str:
    """What was run: commands, seeds, entities, commits; and which methods lack some entities."""
    trained = [row for row in rows if "run" in row.sections]
    lines = [f"- `python train.py -m {' '.join(overrides)}`" for overrides in _commands(folders)]
    every = {(row.dataset, row.entity) for row in rows}
    for dataset in dict.fromkeys(row.dataset for row in rows):
        entities = sorted(entity for owner, entity in every if owner == dataset)
        if entities != [dataset]:
            lines.append(f"- {dataset}: " + ", ".join(Path(entity).stem for entity in entities))
    seeds = sorted({row.seed for row in trained})
    commits = sorted({str(row.sections["run"]["git"]) for row in trained})
    dates = sorted({row.sections["run"]["finished"][:10] for row in trained})
    lines.append(
        f"- seeds {', '.join(map(str, seeds))}; commit {', '.join(commits)}; finished {', '.join(dates)}"
    )
    for model in sorted({row.model for row in trained}, key=_place):
        for seed in sorted({row.seed for row in trained if row.model == model}):
            done = {(row.dataset, row.entity) for row in trained if (row.model, row.seed) == (model, seed)}
            begun = {dataset for dataset, _ in done}  # where it has no run at all, a dash says so
            if missing := sorted(pair for pair in every - done if pair[0] in begun):
                names = ", ".join(f"{dataset}/{Path(entity).stem}" for dataset, entity in missing)
                lines.append(
                    f"- **{model}, seed {seed}, is missing on {names}: its means are over the others**"
                )
    return "\n".join(lines)


def update_page(page: Path, name: str, folders: Sequence[Path]) -> None:
    """Write notes and tables of a sweep into the block `name` of a page; the rest of it stays as it is."""
    rows = read_rows(folders)
    begin, end = f"<!-- begin {name}: written by tocsin.results_table -->", f"<!-- end {name} -->"
    block = f"{begin}\n\n{notes(rows, folders)}\n\n{tables(rows)}\n\n{end}"
    text = page.read_text() if page.exists() else f"# Results\n\n{begin}\n{end}\n"
    if begin not in text:
        text = f"{text.rstrip()}\n\n## {name}\n\n{begin}\n{end}\n"
    before, rest = text.split(begin, 1)
    if end not in rest:
        raise TocsinError(f"{page} has no line '{end}' after '{begin}': put it where the tables end")
    page.parent.mkdir(parents=True, exist_ok=True)
    temporary = page.with_name(f".{page.name}.tmp")
    temporary.write_text(before + block + rest.split(end, 1)[1])
    temporary.replace(page)


def _of_images(sections: Mapping[str, Any]) -> bool:
    return "image_auroc" in sections["test"]


def _of_classes(sections: Mapping[str, Any]) -> bool:
    return "macro_f1" in sections["test"]


def _of_patches(sections: Mapping[str, Any]) -> bool:
    return "ap50" in sections["test"]


def method_name(run: Mapping[str, Any]) -> str:
    """Name of a row: the model, the words the run was tagged with, and whether it began with random weights."""
    marks = [*run.get("tags", []), *([] if run.get("pretrained", True) else ["from scratch"])]
    return f"{run['model']}: {', '.join(marks)}" if marks else str(run["model"])


def _metric(section: str, name: str) -> Value:
    return lambda sections: sections.get(section, {}).get(name)


def _place(model: str) -> tuple[int, str]:
    return (BASELINES.index(model) if model in BASELINES else len(BASELINES), model)


def _rounded(number: float) -> str:
    """Three digits after the point below 1, as many as are worth it above."""
    return f"{number:.3f}" if abs(number) < 1 else f"{number:.{max(0, 2 - int(math.log10(abs(number))))}f}"


def _commands(folders: Iterable[Path]) -> list[list[str]]:
    """Overrides of each sweep, as its multirun.yaml tells them."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob("**/multirun.yaml")):
            overrides = list(OmegaConf.load(path).hydra.overrides.task)
            if overrides not in found:
                found.append(overrides)
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tocsin.results_table", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of sweeps or runs")
    parser.add_argument("--page", type=Path, required=True, help="Markdown file to write into")
    parser.add_argument("--name", default="ts_benchmark", help="block of the page (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        update_page(arguments.page, arguments.name, arguments.folders)
    except TocsinError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
