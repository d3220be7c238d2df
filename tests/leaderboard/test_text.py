"""The tables on a terminal."""

from pathlib import Path

import pytest
from small_sweeps import write_failed, write_run

from tocsin.jobs import State
from tocsin.leaderboard.board import build
from tocsin.leaderboard.text import WIDTH, number, render, spread


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, (width, seed, value) in enumerate([(16, 1, 0.5), (16, 2, 0.7), (32, 1, 0.4)]):
        write_run(
            tmp_path / str(place), {"model.d_model": width, "model.note": "[red]" * 9}, seed=seed, value=value
        )
    write_run(tmp_path / "3", {}, model="pca", value=0.3)
    write_failed(tmp_path / "4", {"model.d_model": 64}, state=State.FAILED, error="[bold]out of memory")
    return tmp_path


def test_lines_fit_the_width_and_hold_the_numbers(folder: Path) -> None:
    text = render(build([folder]))
    assert max(map(len, text.splitlines())) <= WIDTH
    (best,) = [line for line in text.splitlines() if line.split()[:2] == ["1", "mae"]]
    assert "mae d_model=16" in best
    assert "0.600 ± 0.141" in best
    assert "+0.300" in best
    assert best.split()[-1] == "2"  # seeds
    assert "pca (baseline)" in text
    assert "1 job(s) without a result: 1 failed" in text
    assert "[bold]out of memory" in " ".join(text.split())  # signs of markup are text


def test_jobs_without_a_result_are_named_or_only_counted(folder: Path) -> None:
    for place in range(5, 30):
        write_failed(
            folder / str(place), {"model.d_model": place}, state=State.PRUNED, error="others were better"
        )
    board = build([folder])
    text = render(board)
    assert "26 job(s) without a result: 1 failed, 25 pruned" in text
    assert " ".join(text.split()).count("others were better") == 19
    assert "and 6 more: see leaderboard.html" in text
    counted = render(board, errors=False)
    assert "26 job(s) without a result: 1 failed, 25 pruned" in counted
    assert "others were better" not in counted
    assert "more: see" not in counted


def test_a_file_gets_no_signs_of_colours(folder: Path) -> None:
    board = build([folder])
    assert "\x1b[" not in render(board)
    assert "\x1b[" in render(board, color=True)


def test_of_many_lines_the_best_and_the_best_baseline_are_shown(tmp_path: Path) -> None:
    for width in range(30):
        write_run(tmp_path / str(width), {"model.d_model": width}, value=0.5 + width / 100)
    text = render(build([tmp_path]), top=3)
    assert [f"d_model={width}" in text for width in (29, 28, 27, 26)] == [True, True, True, False]
    assert "largest deviation" in text
    assert "28 more line(s) in leaderboard.csv" in text  # 32 less three and the baseline


def test_reasons_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "0", {}, metric="image_auroc", pretrained=False)
    assert "Without a rank: mae: from scratch: random weights" in render(build([tmp_path]))


def test_numbers() -> None:
    assert [number(value) for value in (0.12345, -0.5, 12.345, 1234.5, float("nan"))] == [
        "0.123",
        "-0.500",
        "12.3",
        "1.23e+03",
        "\N{EN DASH}",
    ]
    assert [spread(values) for values in ([], [0.5], [0.5, 0.7])] == ["\N{EN DASH}", "0.500", "0.600 ± 0.141"]
