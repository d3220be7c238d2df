"""A leaderboard in files: leaderboard.csv and leaderboard.html, each written whole or not at all."""

from pathlib import Path

from tocsin.leaderboard.board import Board, build
from tocsin.leaderboard.csv_file import as_csv
from tocsin.leaderboard.page import as_html
from tocsin.leaderboard.text import render
from tocsin.results import write_files


def write(board: Board, output: Path) -> list[Path]:
    """Write both files.

    Args:
        board: What to write.
        output: Folder, made if it does not exist.

    Returns:
        Their paths.
    """
    contents = {"leaderboard.csv": as_csv(board), "leaderboard.html": as_html(board, output)}
    write_files(output, {name: text.encode() for name, text in contents.items()})
    return [output / name for name in contents]


def after_sweep(sweep_dir: Path, *, top: int = 20) -> str:
    """Write both files into the folder of a sweep.

    Args:
        sweep_dir: Folder of the sweep.
        top: Lines of each table that are returned.

    Returns:
        The tables for a terminal; jobs without a result are counted, for the end of a sweep names them.

    Raises:
        TocsinError: There are no runs in that folder.
    """
    board = build([sweep_dir])
    write(board, sweep_dir)
    return render(board, top=top, errors=False)
