"""Rank finished runs, on screen and in files.

    python -m tocsin.leaderboard multirun/<time> [outputs] [--output folder] [--top 20]

Reads every metrics.json and job.json below the folders, prints one table for each set of test data, and writes
leaderboard.csv and leaderboard.html. Runs that differ in the seed only are one line.
"""

import argparse
import os
import sys
from pathlib import Path

from tocsin.errors import TocsinError


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tocsin.leaderboard",
        description="Rank finished runs: mean and standard deviation over seeds, compared with the best baseline. "
        "Prints a table for each set of test data and writes leaderboard.csv and leaderboard.html.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, help="folders of sweeps or runs; all below them is read"
    )
    parser.add_argument("--output", type=Path, help="folder to write to (default: the first of the folders)")
    parser.add_argument(
        "--top", type=int, default=20, help="lines of a table on screen (default: %(default)s)"
    )
    arguments = parser.parse_args()
    from tocsin.leaderboard.board import build  # after --help, which needs none of it
    from tocsin.leaderboard.files import write
    from tocsin.leaderboard.text import render

    try:
        board = build(arguments.folders)
    except TocsinError as error:
        parser.error(str(error))
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    sys.stdout.write(render(board, top=max(1, arguments.top), color=color))
    output = arguments.output or arguments.folders[0]
    try:
        paths = write(board, output)
    except OSError as error:
        parser.error(f"cannot write into {output}: {error.strerror}; give another folder with --output")
    sys.stdout.write("".join(f"{path}\n" for path in paths))


if __name__ == "__main__":
    main()
