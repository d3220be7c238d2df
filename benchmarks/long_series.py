"""Seconds and memory of predict.py on ever longer series: `python benchmarks/long_series.py [--full]`.

The series lie in memory-mapped files. Each is the beginning of the next, so that their scores must agree.
Memory is the largest resident set of the process (ru_maxrss): it counts the interpreter with torch, and also
those pages of the mapped file that are in memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
N_CHANNELS, CHUNK = 8, 100_000
LONGEST = 10_000_000
MAX_RATIO, MAX_MIB = 13.0, 2048  # for ten times the steps


class Measured(NamedTuple):
    """One call of predict.py."""

    seconds: float
    mib: float
    scores: np.ndarray


def draw(path: Path, n_steps: int) -> None:
    """Write (N, C) float32 random walks that return to 0, chunk by chunk."""
    values = np.lib.format.open_memmap(path, "w+", np.float32, (n_steps, N_CHANNELS))
    for begin in range(0, n_steps, CHUNK):
        steps = np.arange(begin, min(begin + CHUNK, n_steps))
        noise = np.random.default_rng(begin).normal(size=(len(steps), N_CHANNELS))
        values[steps] = np.sin(steps[:, None] / np.arange(20, 20 + N_CHANNELS)) + 0.1 * noise


def run(*command: str) -> tuple[float, float]:
    """Seconds and peak resident MiB of a Python process on one thread."""
    begin = perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{errors}")
    return perf_counter() - begin, usage.ru_maxrss / 1024


def train(model: str, folder: Path) -> Path:
    """Checkpoint of a training that only just runs."""
    draw(folder / "train.npy", 20_000)
    run_dir = folder / model
    data = ("data=series", f"data.path={folder / 'train.npy'}")
    options = ("debug=fast", "trainer.max_epochs=4", "trainer=cpu", f"hydra.run.dir={run_dir}")
    run("train.py", f"model={model}", *data, *options)
    return run_dir / "checkpoints" / "best.ckpt"


def predict(checkpoint: Path, series: Path, output: Path) -> Measured:
    """Score a file with windows that do not overlap."""
    seconds, mib = run(
        "predict.py",
        f"ckpt_path={checkpoint}",
        f"input={series}",
        f"output={output}",
        "contributions=false",
        "++data.score_stride=100",
        "trainer=cpu",
    )
    with np.load(output) as stored:
        return Measured(seconds, mib, stored["score"])


def agree(shorter: np.ndarray, longer: np.ndarray) -> bool:
    """Whether the scores of a series are those of the beginning of a longer one, but for its last window."""
    inner = len(shorter) - 200
    return bool(np.allclose(shorter[:inner], longer[:inner], rtol=1e-4, atol=1e-6))


def bench(model: str, sizes: list[int], folder: Path) -> bool:
    """Print a row per size; whether memory, growth of time, and scores are as they should be."""
    checkpoint = train(model, folder)
    passed, last = True, None
    for n_steps in sizes:
        series = folder / f"{n_steps}.npy"
        if not series.exists():
            draw(series, n_steps)
        now = predict(checkpoint, series, folder / f"{n_steps}.npz")
        good = now.mib <= MAX_MIB and len(now.scores) == n_steps and bool(np.isfinite(now.scores).all())
        text = "finite scores" if good else "MEMORY OR SCORES WRONG"
        if last is not None:
            ratio, most = now.seconds / last.seconds, MAX_RATIO * n_steps / len(last.scores) / 10
            same = agree(last.scores, now.scores)
            text += f", {ratio:.1f} times the time, {'same' if same else 'DIFFERENT'} scores"
            good = good and same and ratio <= most
        print(
            f"predict.py, {model}, {n_steps:>10,} steps x {N_CHANNELS}".ljust(58)
            + f" {now.seconds:>11.2f} s {n_steps / now.seconds:>11,.0f} steps/s {now.mib:>6.0f} MiB  {text}",
            flush=True,
        )
        passed, last = passed and good, now
    return passed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", type=int, nargs="*", default=[100_000, 1_000_000], help="steps, ascending")
    parser.add_argument("--full", action="store_true", help=f"and {LONGEST:,} steps")
    parser.add_argument("--models", nargs="+", default=["mae", "pca"])
    arguments = parser.parse_args()
    lengths = arguments.sizes + [LONGEST] * arguments.full
    with tempfile.TemporaryDirectory() as temporary:
        results = [bench(model, lengths, Path(temporary)) for model in arguments.models]
    wanted = f"{MAX_MIB} MiB, {MAX_RATIO:g} times the time for ten times the steps, and the same scores"
    sys.exit(0 if all(results) else f"missed: at most {wanted}")
