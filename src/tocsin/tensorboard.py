"""Start TensorBoard on runs and sweeps, each run under a name that tells it apart.

    python -m tocsin.tensorboard [multirun/<time>] [--port 6006]

Runs that begin while it is open appear by themselves.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tocsin.errors import TocsinError

HOMES = ("multirun", "outputs")
PAUSE_S = 20.0  # between looks for new runs


def serve(folders: Sequence[Path], port: int) -> None:
    """Start TensorBoard and keep its names up to date until it is interrupted.

    Args:
        folders: Of sweeps or runs. The links for a single sweep are kept in it; those for more are temporary.
        port: Where it listens, on this machine alone.

    Raises:
        TocsinError: There are no runs with event files, or the port is taken.
    """
    from tensorboard import program

    from tocsin.board_links import link_runs

    one = len(folders) == 1 and (folders[0] / "multirun.yaml").is_file()
    with nullcontext(folders[0] / "tensorboard") if one else tempfile.TemporaryDirectory() as place:
        into = Path(place)
        names = link_runs(folders, into)
        if not names:
            raise TocsinError(
                f"no TensorBoard files below {', '.join(map(str, folders))}: logger=tensorboard writes them"
            )
        board = program.TensorBoard()
        board.configure(
            argv=["tensorboard", "--logdir", str(into), "--port", str(port), "--host", "localhost"]
        )
        try:
            address = board.launch()
        except program.TensorBoardServerException as error:
            raise TocsinError(f"{' '.join(str(error).split())}; choose another one with --port") from error
        sys.stdout.write(f"{len(names)} runs at {address}\n")
        sys.stdout.flush()
        while True:
            time.sleep(PAUSE_S)
            link_runs(folders, into)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tocsin.tensorboard",
        description="Start TensorBoard on runs and sweeps, each run under a name that tells it apart.",
    )
    parser.add_argument(
        "folders",
        nargs="*",
        type=Path,
        help=f"of sweeps or runs (default: {' and '.join(HOMES)}, what there is)",
    )
    parser.add_argument("--port", type=int, default=6006, help="default: %(default)s")
    arguments = parser.parse_args()
    folders = arguments.folders or [Path(home) for home in HOMES if Path(home).is_dir()]
    try:
        if not folders:
            raise TocsinError(f"there is no folder {' or '.join(HOMES)} here: give that of a sweep")
        serve(folders, arguments.port)
    except TocsinError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
