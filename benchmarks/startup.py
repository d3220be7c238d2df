"""Seconds until `train.py --help` answers, and what `import tocsin` loads: `python benchmarks/startup.py`."""

import subprocess
import sys
from pathlib import Path

from report import best_of, row

ROOT = Path(__file__).parents[1]
TARGET_S = 1.5


def python(*arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def bench() -> bool:
    help_s, text = best_of(5, lambda: python("train.py", "--help"))
    torch_s, _ = best_of(3, lambda: python("-c", "import torch"))
    loaded = python("-c", "import sys, tocsin; print('torch' in sys.modules)").strip()
    answered = "model=" in text and loaded == "False"
    row("train.py --help, nothing heavy loaded: import torch", help_s, torch_s, answered)
    return answered and help_s <= TARGET_S


if __name__ == "__main__":
    sys.exit(0 if bench() else f"missed: an answer in {TARGET_S} s, and import tocsin without torch")
