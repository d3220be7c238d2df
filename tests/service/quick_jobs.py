"""What tests let patch jobs do in place of a training; the seed of a job says what. It runs in another process."""

import os
import signal
import time
from multiprocessing.connection import Connection

from tocsin.service import patch_process
from tocsin.service.patch_process import PatchCall

QUICK, WRONG, DYING, LONG, SILENT, MOVING = range(6)


def run_quick(call: PatchCall, pipe: Connection) -> None:
    """As `run_patch`."""
    seed = int(next(text for text in call.overrides if text.startswith("seed=")).partition("=")[2])
    call.folder.mkdir(parents=True, exist_ok=True)
    with (call.folder / "starts").open("a") as file:
        file.write(f"{os.getpid()} {' '.join(call.of_this_start)}\n")
    if seed == MOVING:  # dies, but not before it has a new checkpoint; the eighth start is the last
        last = call.folder / "checkpoints" / "last.ckpt"
        last.parent.mkdir(exist_ok=True)
        last.write_text("")
        number = len((call.folder / "starts").read_text().splitlines())
        os.utime(last, (number, number))
        seed = DYING if number < 8 else QUICK
    if seed == DYING:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == LONG:
        time.sleep(60)
    if seed == SILENT:
        patch_process.SILENT_S = 0.3
        pipe.poll = lambda seconds: time.sleep(seconds) or False  # as if its server had stopped
        patch_process._end_when_silent(pipe)
    pipe.send_bytes(b"there is no such victim" if seed == WRONG else b"")
