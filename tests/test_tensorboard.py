"""TensorBoard on a sweep, as a browser shows it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from small_sweeps import write_run
from test_pipeline import command

from tocsin import tensorboard

NAMES = ["model=mae", "model=pca"]
# The pages of TensorBoard are made of shadow roots, which the text of the document does not reach into.
ALL_TEXT = """
const parts = [];
const walk = node => {
  if (node.nodeType === Node.TEXT_NODE) parts.push(node.textContent);
  if (node.shadowRoot) walk(node.shadowRoot);
  for (const child of node.childNodes ?? []) walk(child);
};
walk(document.body);
return parts.join(" ");
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """TensorBoard, started on a sweep of two small runs."""
    cwd = tmp_path_factory.mktemp("tensorboard")
    done = command(
        "train.py", "-m", "model=mae,pca", "seed=1", "data.total_length=20000", "trainer=cpu",
        "trainer.max_epochs=2", "hydra.sweep.dir=sweep", cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tocsin.tensorboard", "sweep", "--port", str(port)],
        cwd=cwd, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"2 runs at http://localhost:{port}/\n"
        yield f"http://localhost:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        process.stdout.close()


def fetched(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/data/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def until(done: Any, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


@pytest.mark.slow
def test_runs_are_shown_by_name_with_pictures_and_curves(address: str) -> None:
    assert until(lambda: sorted(fetched(address, "runs")) == NAMES)
    assert until(lambda: "plots/signal" in fetched(address, "plugin/images/tags").get(NAMES[1], {}))
    assert until(lambda: "test" in fetched(address, "plugin/pr_curves/tags").get(NAMES[0], {}))


@pytest.mark.slow
def test_hparams_lists_the_runs_with_options_and_metrics(
    address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.get(f"{address}/#hparams")

        def shown() -> bool:
            text = browser.execute_script(ALL_TEXT)
            wanted = [*NAMES, "MaskedAutoencoder", "WindowPCA", "model.teacher_share", "test/vus_pr"]
            return all(word in text for word in wanted)

        assert until(shown), browser.execute_script(ALL_TEXT)[-3000:]


def test_what_cannot_be_shown_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "0", {})
    monkeypatch.chdir(tmp_path)
    for arguments, message in {
        (): "there is no folder multirun or outputs here",
        ("nowhere",): "nowhere: there is no such folder",
        (str(tmp_path),): f"no TensorBoard files below {tmp_path}: logger=tensorboard writes them",
    }.items():
        monkeypatch.setattr(sys, "argv", ["tensorboard", *arguments])
        with pytest.raises(SystemExit, match="2"):
            tensorboard.main()
        assert message in capsys.readouterr().err
