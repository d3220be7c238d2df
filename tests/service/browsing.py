"""A server in a process of its own, for browsers to look at."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def served(folder: Path, *overrides: str) -> Iterator[str]:
    """The address of `python -m tocsin.serve`, which ends with this context."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    given = [f"port={port}", f"folder={folder / 'service'}", "devices=cpu", *overrides]
    environment = {"TOCSIN_CACHE": str(folder / "cache"), **os.environ}
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "tocsin.serve", *given]
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            for _ in range(600):
                try:
                    httpx.get(f"{address}/health").raise_for_status()
                    break
                except httpx.TransportError:
                    assert server.poll() is None, (folder / "server.log").read_text()
                    time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            server.wait(30)
