"""Each kind of leak is found, named, and mended before the next test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAKY = """
import os, socket, threading, time
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pytest, torch

def test_env(): os.environ["TOCSIN_LEAK"] = "1"
def test_env_is_mended(): assert "TOCSIN_LEAK" not in os.environ
def test_cwd(tmp_path): os.chdir(tmp_path)
def test_file(): open("left.txt", "w").close()
def test_file_is_mended(): assert not os.listdir()
def test_dtype(): torch.set_default_dtype(torch.float64)
def test_dtype_is_mended(): assert torch.zeros(1).dtype == torch.float32
def test_deterministic(): torch.use_deterministic_algorithms(True)
def test_deterministic_is_mended(): assert not torch.are_deterministic_algorithms_enabled()
def test_thread(): threading.Thread(target=time.sleep, args=(4,), daemon=True, name="left").start()
def test_figure(): plt.figure()
def test_figure_is_mended(): assert not plt.get_fignums()
def test_network():
    with pytest.raises(OSError, match="need no network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
@pytest.mark.parametrize("i", [0, 1])
def test_seed(i): assert torch.initial_seed() == 0 and torch.rand(1).item() == pytest.approx(0.4962566)
"""


@pytest.mark.slow  # a fresh interpreter that imports torch and waits for a thread
def test_each_leak_is_named_and_mended(tmp_path):
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rE",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    run = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )

    errors = "\n".join(line for line in run.stdout.splitlines() if line.startswith("ERROR"))
    for test, leak in {
        "test_env": "environment variable TOCSIN_LEAK",
        "test_cwd": "working directory",
        "test_file": "left.txt in the working directory",
        "test_dtype": "torch default dtype torch.float64",
        "test_thread": "thread left",
        "test_figure": "1 open pyplot figures",
    }.items():
        assert f"::{test} " in errors, run.stdout
        assert leak in run.stdout
    assert "15 passed, 6 errors" in run.stdout
