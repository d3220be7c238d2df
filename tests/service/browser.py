"""A server in a process of its own and a headless Chromium that looks at it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1200,1500",
)


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


@contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(executable_path=DRIVER))
    try:
        yield browser
    finally:
        browser.quit()
