"""Every test starts from the same state and must leave none behind.

Each test runs with fixed seeds, in an empty working directory and without network. What it leaves in the
environment, working directory, torch defaults, threads or pyplot is mended, and fails that test by name.
"""

import gc
import os
import random
import socket
import sys
import threading
import time

import numpy as np
import pytest

# Set by pytest, by Lightning's seeding and by libraries on first use; restored, but no fault of the test.
HARMLESS_ENV = (
    "PYTEST_",
    "PL_",
    "CUBLAS_",
    "CUDA_",
    "KMP_",
    "OMP_",
    "TORCH",
    "PYTORCH_",
    "TRITON_",
    "TF_",
    "GRPC_",
    "MPL",
    "LD_LIBRARY_PATH",  # OpenCV adds its own when first imported
)
# Threads that libraries start once for the whole process.
HARMLESS_THREADS = ("fsspecIO", "tqdm", "pytest", "execnet", "MainThread")
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
THREAD_GRACE_S = 2.0


class NetworkBlocked(OSError):
    """A test tried to leave this machine."""


def _guard(connect):
    def guarded(self, address):
        if isinstance(address, tuple) and address[0] not in (*LOOPBACK, socket.gethostname()):
            raise NetworkBlocked(f"tests need no network, but this one connects to {address}")
        return connect(self, address)

    return guarded


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    patch = pytest.MonkeyPatch()
    for method in ("connect", "connect_ex"):
        patch.setattr(socket.socket, method, _guard(getattr(socket.socket, method)))
    source = os.environ.get("PYTHONPATH")
    if source:  # relative entries would be lost on subprocesses of tests, which run elsewhere
        patch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, source.split(os.pathsep))))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def _empty_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cwd")


@pytest.fixture(autouse=True)
def _police_leaks(_no_network, _empty_folder):
    env, threads, home = dict(os.environ), set(threading.enumerate()), os.getcwd()
    states = random.getstate(), np.random.get_state()
    os.chdir(_empty_folder)
    random.seed(0)
    np.random.seed(0)
    torch_rng = _seed_torch()
    yield
    leaks = [
        *_env_leaks(env),
        *_folder_leaks(_empty_folder),
        *_torch_leaks(torch_rng),
        *_thread_leaks(threads),
        *_figure_leaks(),
    ]
    os.chdir(home)
    random.setstate(states[0])
    np.random.set_state(states[1])
    if leaks:
        pytest.fail("the test leaves behind: " + "; ".join(leaks), pytrace=False)


def _env_leaks(before):
    names = [name for name in {*before, *os.environ} if before.get(name) != os.environ.get(name)]
    for name in names:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    return [f"environment variable {name}" for name in sorted(names) if not name.startswith(HARMLESS_ENV)]


def _folder_leaks(folder):
    leaks = [] if os.getcwd() == str(folder) else [f"working directory {os.getcwd()}"]
    for entry in list(folder.iterdir()):
        leaks.append(f"{entry.name} in the working directory (write to tmp_path)")
        entry.rename(folder.parent / f"{folder.name}_leak_{time.monotonic_ns()}")
    return leaks


def _seed_torch():
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    state = torch.get_rng_state()
    torch.manual_seed(0)
    return state


def _torch_leaks(rng_state):
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_default_dtype"):
        return []
    leaks = []
    if torch.get_default_dtype() != torch.float32:
        leaks.append(f"torch default dtype {torch.get_default_dtype()}")
        torch.set_default_dtype(torch.float32)
    if not torch.is_grad_enabled():
        leaks.append("gradients switched off")
        torch.set_grad_enabled(True)
    # A Trainer sets these for its process, and rightly so: restored, but no fault of the test.
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")
    if rng_state is not None:
        torch.set_rng_state(rng_state)
    return leaks


def _thread_leaks(before):
    deadline = time.monotonic() + THREAD_GRACE_S
    while left := [
        thread
        for thread in threading.enumerate()
        if thread not in before
        and not thread.name.startswith(HARMLESS_THREADS)
        and type(thread).__name__ != "TMonitor"  # tqdm's, one per process
    ]:
        if time.monotonic() > deadline:
            break
        gc.collect()  # loaders and writers end their threads when they are collected
        time.sleep(0.02)
    return [f"thread {thread.name}" for thread in left]


def _figure_leaks():
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not hasattr(pyplot, "get_fignums") or not pyplot.get_fignums():
        return []
    count = len(pyplot.get_fignums())
    pyplot.close("all")
    return [f"{count} open pyplot figures"]
