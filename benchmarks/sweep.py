"""What a sweep costs beyond its runs: 24 quick MAE runs, one after another and on all cores at once with Ray.

    python benchmarks/sweep.py --runs 24 --length 20000

The cost of a run beyond its own training and testing is (time of the command - sum of `timing.fit_s` and
`timing.assess_s`) / runs: imports, composition, reading data, writing files. Both launchers must give the same
numbers. Each run has one thread, so that both add numbers in the same order.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET_S = 1.0
SECTIONS = ("data", "threshold", "val", "test", "oracle", "baselines")


def sweep(
    folder: Path, launcher: str, runs: int, length: int, options: list[str]
) -> tuple[float, list[dict]]:
    """Seconds of the command, and the metrics of its runs."""
    seeds = ",".join(map(str, range(1, runs + 1)))
    command = [
        *(sys.executable, str(ROOT / "train.py"), "-m", "model=mae", "data=sliding", f"seed={seeds}"),
        *(f"data.total_length={length}", "trainer=cpu", "trainer.max_epochs=2", f"hydra/launcher={launcher}"),
        *(f"hydra.sweep.dir={folder}", *options),
    ]
    begin = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=folder.parent,
    )
    seconds = time.perf_counter() - begin
    return seconds, [json.loads((folder / str(run) / "metrics.json").read_text()) for run in range(runs)]


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--length", type=int, default=20_000, help="steps of the series")
    parser.add_argument("--options", nargs="*", default=["callbacks=numbers"], help="of every run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measured = {
            launcher: sweep(
                Path(temporary) / launcher, launcher, arguments.runs, arguments.length, arguments.options
            )
            for launcher in ("basic", "ray")
        }
    own = {
        launcher: sum(run["timing"]["fit_s"] + run["timing"]["assess_s"] for run in metrics)
        for launcher, (_, metrics) in measured.items()
    }
    for launcher, (seconds, _) in measured.items():
        print(f"{launcher}: {seconds:.1f} s, training and testing alone {own[launcher]:.1f} s")
    beyond = (measured["basic"][0] - own["basic"]) / arguments.runs
    basic, ray = ([{name: run[name] for name in SECTIONS} for run in runs] for _, runs in measured.values())
    print(f"a run beyond its own training and testing: {beyond:.2f} s (at most {TARGET_S} s)")
    print(
        f"ray / basic: {measured['ray'][0] / measured['basic'][0]:.2f} of the time on {os.cpu_count()} cores"
    )
    print("the same numbers in all runs" if basic == ray else "THE NUMBERS DIFFER")
    return beyond <= TARGET_S and basic == ray


if __name__ == "__main__":
    sys.exit(0 if main() else f"missed: {TARGET_S} s beyond a run, and the same numbers with both launchers")
