"""The tables of a sweep."""

import json
from pathlib import Path
from typing import Any

import pytest

from tocsin.errors import TocsinError
from tocsin.results_table import cell, read_rows, tables, transfer, update_page


def write_run(folder: Path, model: str, seed: int, entity: str, vus: float | None) -> None:
    run = {"model": model, "data": "series", "seed": seed, "git": "abc", "finished": "2026-11-24T10:00:00"}
    sections: dict[str, Any] = {
        "run": run,
        "data": {"source": f"smd/{entity}.npz"},
        "test": {"vus_pr": vus, "point_f1": 0.5, "series_f1": 0.25},
        "oracle": {"point_f1": 0.75, "series_f1": 0.875},
        "baselines": {"random": {"vus_pr": 0.1}, "abs_z": {"vus_pr": 0.2}},
        "timing": {"fit_s": 12.0, "test_items_per_s": 1234.5},
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(sections))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two models, two seeds, two entities; `mae` has not run on one of them with seed 2."""
    values = {("mae", 1, "a"): 0.4, ("mae", 1, "b"): 0.6, ("mae", 2, "a"): 0.7}
    values |= {("pca", seed, entity): 0.25 for seed in (1, 2) for entity in "ab"}
    for number, ((model, seed, entity), vus) in enumerate(values.items()):
        write_run(tmp_path / "sweep" / str(number), model, seed, entity, vus)
    return tmp_path / "sweep"


def test_means_over_entities_then_over_seeds(sweep: Path) -> None:
    lines = tables(read_rows([sweep])).splitlines()
    assert lines[2] == "| | smd |"
    assert lines[4:8] == [
        "| random | 0.100 |",
        "| largest deviation | 0.200 |",
        "| pca | 0.250 ± 0.000 |",
        "| mae | 0.600 ± 0.141 |",  # 0.5 with seed 1, 0.7 with seed 2
    ]


def test_oracle_numbers_stand_apart_and_baselines_have_none(sweep: Path) -> None:
    oracle = tables(read_rows([sweep])).split("**")[6]
    assert "0.750 ± 0.000 | 0.875 ± 0.000" in oracle
    assert "random" not in oracle


def test_undefined_values_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "0", "mae", 1, "a", None)
    write_run(tmp_path / "1", "mae", 1, "b", 0.5)
    rows = [row for row in read_rows([tmp_path]) if row.model == "mae"]
    assert cell(rows, lambda sections: sections["test"]["vus_pr"]) == "0.500"
    assert cell(rows, lambda sections: None) == "\N{EN DASH}"


def test_page_keeps_what_stands_around_its_block(sweep: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n\nBefore.\n")
    update_page(page, "bench", [sweep])
    first = page.read_text()
    page.write_text(first + "\nAfter.\n")
    update_page(page, "bench", [sweep])
    assert page.read_text() == first + "\nAfter.\n"
    assert first.startswith("# Mine\n\nBefore.\n\n## bench\n\n<!-- begin bench")
    assert "- **mae, seed 2, is missing on smd/b: its means are over the others**" in first
    assert "seeds 1, 2; commit abc; finished 2026-11-24" in first


def test_a_folder_without_runs_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match=r"no metrics\.json below"):
        read_rows([tmp_path])
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(TocsinError, match=r"is not a metrics\.json of a run"):
        read_rows([tmp_path])


def test_a_block_without_an_end_is_left_alone(sweep: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "<!-- begin bench: written by tocsin.results_table -->\nMy words\n"
    page.write_text(text)
    with pytest.raises(TocsinError, match="has no line '<!-- end bench -->'"):
        update_page(page, "bench", [sweep])
    assert page.read_text() == text


def write_image_run(folder: Path, model: str, domain: str, auroc: float, pretrained: bool) -> None:
    run = {"model": model, "data": "hdmap", "seed": 1, "git": "abc", "finished": "2026-11-24"}
    sections: dict[str, Any] = {
        "run": run | {"pretrained": pretrained},
        "data": {"source": f"maps/{domain}"},
        "test": {"image_auroc": auroc, "image_f1": 0.5, "pixel_auroc": None, "aupro": None},
        "oracle": {"image_f1": 0.75},
        "baselines": {"brightness": {"image_auroc": 0.6}},
        "timing": {"fit_s": 12.0, "test_items_per_s": 99.0},
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(sections))


def test_domains_of_images_have_a_column_each_and_undefined_tables_are_left_out(tmp_path: Path) -> None:
    write_image_run(tmp_path / "0", "draem", "domain_A", 0.9, pretrained=True)
    write_image_run(tmp_path / "1", "draem", "domain_B", 0.8, pretrained=True)
    made = tables(read_rows([tmp_path]))
    assert made.splitlines()[:6] == [
        "**Image AUROC**",
        "",
        "| | domain_A | domain_B |",
        "| --- | --- | --- |",
        "| brightness | 0.600 | 0.600 |",
        "| draem | 0.900 | 0.800 |",
    ]
    assert "Pixel" not in made


def test_transfer_between_domains_is_a_matrix_of_means_over_seeds(tmp_path: Path) -> None:
    for number, (domain, own, other) in enumerate([("A", 0.9, 0.5), ("A", 0.7, 0.6), ("B", 0.8, 0.4)]):
        write_image_run(tmp_path / str(number), "draem", domain, own, pretrained=True)
        path = tmp_path / str(number) / "metrics.json"
        sections = json.loads(path.read_text())
        sections["run"]["seed"] = number
        sections["targets"] = {"B" if domain == "A" else "A": {"image_auroc": other}}
        path.write_text(json.dumps(sections))
    matrix = transfer(read_rows([tmp_path]))["draem"]
    assert (matrix.sources, matrix.targets) == (["A", "B"], ["A", "B"])
    assert matrix.values == [[pytest.approx(0.8), pytest.approx(0.55)], [0.4, 0.8]]
    assert "| A | 0.800 | 0.550 |" in tables(read_rows([tmp_path]))


def test_random_weights_are_no_result(tmp_path: Path) -> None:
    write_image_run(tmp_path / "0", "draem", "domain_A", 0.9, pretrained=True)
    write_image_run(tmp_path / "1", "patchcore", "domain_A", 0.99, pretrained=False)
    assert "patchcore" not in tables(read_rows([tmp_path]))
    with pytest.raises(TocsinError, match="all these runs have random weights"):
        read_rows([tmp_path / "1"])


def write_classes(folder: Path, *, seed: int, accuracy: float, **run: object) -> None:
    test = {"accuracy": accuracy, "macro_f1": accuracy, "auroc": 0.9, "ece": 0.1}
    sections = {
        "run": {
            "model": "classifier",
            "data": "defects",
            "seed": seed,
            "git": "abc",
            "finished": "2026-11-25T10:00:00",
        }
        | run,
        "data": {"source": "data/casting"},
        "test": test,
        "val": {"train_val_gap": 0.01},
        "baselines": {"majority": {**test, "accuracy": 0.5, "macro_f1": 0.33}},
        "timing": {"fit_s": 10.0, "test_items_per_s": 50.0},
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(sections))


def test_classifiers_have_rows_by_their_tags_and_say_what_began_from_scratch(tmp_path: Path) -> None:
    write_classes(tmp_path / "0", seed=1, accuracy=0.9, tags=["full"])
    write_classes(tmp_path / "1", seed=2, accuracy=0.8, tags=["full"])
    write_classes(tmp_path / "2", seed=1, accuracy=0.7, tags=["full without MixUp"])
    write_classes(tmp_path / "3", seed=1, accuracy=0.6, pretrained=False)
    made = tables(read_rows([tmp_path]))
    assert "| | casting accuracy | casting macro F1 | casting AUROC |" in made
    assert "| classifier: full | 0.850 ± 0.071 |" in made
    assert "| classifier: full without MixUp | 0.700 |" in made
    assert "| classifier: from scratch | 0.600 |" in made
    assert "| majority | 0.500 | 0.330 |" in made
    assert "| classifier: full | 0.010 ± 0.000 | 0.100 ± 0.000 |" in made  # the gap


def test_a_source_of_one_part_is_its_own_entity(tmp_path: Path) -> None:
    write_classes(tmp_path / "0", seed=1, accuracy=0.9)
    text = (tmp_path / "0" / "metrics.json").read_text()
    (tmp_path / "0" / "metrics.json").write_text(text.replace("data/casting", "castings"))
    assert {row.dataset for row in read_rows([tmp_path])} == {"castings"}
