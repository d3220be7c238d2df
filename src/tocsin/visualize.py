"""Draws the pictures of a finished run, sweep or two-stage search again.

    python -m tocsin.visualize run=multirun/<time>
    python -m tocsin.visualize run=outputs/<model>/<data>/<time>

Of a search or a sweep: tables and `visualization/` in its folder. Of a run: `plots/` in its folder, as far as its
checkpoint, its data and its scores allow; what cannot be drawn is named.
"""

import argparse
import logging
import sys
from pathlib import Path

from tocsin.errors import TocsinError


def visualize(folder: Path) -> list[str]:
    """Draw everything that a folder allows.

    Args:
        folder: Of a run, a sweep or a search.

    Returns:
        One line for each thing that could not be drawn, with the reason.

    Raises:
        TocsinError: There is no such folder, or it is none of these.
    """
    from tocsin.jobs import read_jobs
    from tocsin.run_pictures import draw_run
    from tocsin.search.pictures import draw_study, draw_sweep
    from tocsin.search.plan import read_plan
    from tocsin.search.run import read_study, write_tables

    if not folder.is_dir():
        raise TocsinError(f"run={folder}: there is no such folder; give that of a run or of a sweep")
    if read_plan(folder) is not None:
        study = read_study(folder)
        write_tables(study)
        return draw_study(study)
    if not (folder / "metrics.json").is_file() and read_jobs(folder):
        return draw_sweep(folder)
    missing = draw_run(folder, folder / "plots")
    for line in missing:
        logging.getLogger(__name__).warning("not drawn: %s", line)
    return missing


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tocsin.visualize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="run=FOLDER", help="folder of a run, a sweep or a two-stage search")
    given = parser.parse_args().run
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        visualize(Path(given.removeprefix("run=")))
    except TocsinError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
