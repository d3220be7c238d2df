"""Scores over HTTP on loopback: latency and throughput at 1, 8 and 32 clients, batched and one by one, and a stream.

    python benchmarks/service.py --seconds 4 --rows 100000

The server is a process of its own with one thread for torch (OMP_NUM_THREADS), the clients are coroutines of this
one: each keeps a connection and sends its next request when the answer to the last one has come. A request holds the
rows of one window, or one image. The models are made here by short runs of train.py: MAE with its own options, and
with `--tiny` ones of tests/; PatchCore with random weights, which is as fast as with trained ones.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
CLIENTS = (1, 8, 32)
TARGET = 3.0  # throughput of batched over one by one at 32 clients
CHANNELS = ("load", "heat", "flow")
TINY = ("d_model=16", "n_heads=2", "feedforward=16", "encoder_layers=1", "teacher_layers=1")


def environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT / "src")}


def make_models(folder: Path, window: int, side: int, backbone: str, tiny: bool) -> None:
    """Two short runs below `folder`/models."""
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        wave = np.sin(np.arange(3000)[:, None] / (7, 9, 11)) + 0.1 * rng.standard_normal((3000, 3))
        pd.DataFrame(wave, columns=CHANNELS).to_csv(folder / f"{name}.csv", index=False)
    for place, n in (("train/good", 40), ("test/good", 8), ("test/spot", 8)):
        (folder / "images" / place).mkdir(parents=True)
        for index in range(n):
            write_image(folder / "images" / place / f"{index}.png", rng, side, spot="spot" in place)
    quick = ("trainer=cpu", "logger=none", "callbacks=numbers")
    series = ("data=series", "data.train=train.csv", "data.test=test.csv", f"data.window={window}")
    smaller = [f"model.{option}" for option in TINY] if tiny else []
    run(folder, "model=mae", *series, *smaller, *quick, "trainer.max_epochs=2", "hydra.run.dir=models/mae")
    images = ("data=folder", "data.root=images", f"data.height={side}", f"data.width={side}")
    net = ("model.weights=random", f"model.backbone={backbone}")
    run(folder, "model=patchcore", *images, *net, *quick, "hydra.run.dir=models/patchcore")


def write_image(path: Path, rng: np.random.Generator, side: int, *, spot: bool) -> None:
    pixels = rng.integers(90, 110, (side, side), dtype=np.uint8)
    if spot:
        pixels[4:12, 4:12] = 220
    cv2.imwrite(str(path), pixels)


def run(folder: Path, *options: str) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *options]
    subprocess.run(command, check=True, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[int, int]]:
    """A server of the models; its port and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [
        *(sys.executable, "-m", "tocsin.serve", f"port={port}", "models=models", "devices=cpu"),
        *("limits.idle_s=3600", *options),
    ]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


# --- requests -----------------------------------------------------------------------------------------------


def request(path: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(body.decode())
    return body


async def client(port: int, sent: bytes, until: float) -> list[float]:
    """Seconds of each request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times = []
    while time.perf_counter() < until:
        begin = time.perf_counter()
        writer.write(sent)
        await answer(reader)
        times.append(time.perf_counter() - begin)
    writer.close()
    return times


async def load(
    port: int, sent: bytes, n_clients: int, seconds: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Latencies of the requests and, beside them, of /health, in s; and requests per s."""
    await client(port, sent, time.perf_counter() + 0.5)
    begin = time.perf_counter()
    health = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    *many, beside = await asyncio.gather(
        *(client(port, sent, begin + seconds) for _ in range(n_clients)),
        pinging(port, health, begin + seconds),
    )
    times = np.concatenate(many)
    return times, np.array(beside), len(times) / (time.perf_counter() - begin)


async def pinging(port: int, sent: bytes, until: float) -> list[float]:
    """Seconds of a request each 50 ms: how long the event loop keeps others waiting."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times = []
    while time.perf_counter() < until:
        begin = time.perf_counter()
        writer.write(sent)
        await answer(reader)
        times.append(time.perf_counter() - begin)
        await asyncio.sleep(0.05)
    writer.close()
    return times


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    folder: Path, sent: dict[str, bytes], units: dict[str, int], seconds: float, rounds: int
) -> dict[str, tuple[float, float]]:
    """Print a row per model, way and number of clients.

    Both ways take turns, and the best round of each counts, because other work on the machine comes and goes.

    Returns:
        By model, batched over one by one at 32 clients: throughput, and requests per second of CPU of the server.
    """
    rates: dict[tuple[str, str], tuple[float, float]] = {}
    with server(folder, "limits.batch=1") as single, server(folder, "folder=batched") as batched:
        ways = {"one by one": single, "batched": batched}
        for model, one in sent.items():
            for n_clients in CLIENTS:
                found: dict[str, list[tuple[float, float, str]]] = {way: [] for way in ways}
                for way, (port, pid) in [*ways.items()] * rounds:
                    begin = cpu_s(pid)
                    times, health, rate = asyncio.run(load(port, one, n_clients, seconds))
                    per_cpu = len(times) / max(cpu_s(pid) - begin, 1e-9)
                    found[way].append((rate, per_cpu, described(times, health, rate, units[model])))
                for way, rows in found.items():
                    rate, _, text = max(rows)
                    per_cpu = max(row[1] for row in rows)
                    print(
                        f"{model:<10} {way:<11} {n_clients:>3} clients: {text}, {per_cpu:.1f} per s of CPU",
                        flush=True,
                    )
                    rates[model, way] = rate, per_cpu
    return {
        model: tuple(b / a for a, b in zip(rates[model, "one by one"], rates[model, "batched"], strict=True))
        for model in sent
    }


def described(times: np.ndarray, health: np.ndarray, rate: float, units: int) -> str:
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1e3
    return (
        f"p50 {p50:>7.1f} ms, p99 {p99:>7.1f} ms, {rate:>6.1f} requests/s, {rate * units:>7.0f} "
        f"{'rows' if units > 1 else 'images'}/s, /health p99 {np.quantile(health, 0.99) * 1e3:.0f} ms"
    )


# --- a stream -----------------------------------------------------------------------------------------------


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)
    return int(line.split()[1]) / 1024


async def stream(port: int, pid: int, n_rows: int) -> None:
    """Send rows as fast as they are answered, and print speed and memory."""
    from websockets.asyncio.client import connect

    rng = np.random.default_rng(1)
    async with connect(f"ws://127.0.0.1:{port}/v1/models/mae/stream", ping_interval=None) as socket_:

        async def send(n: int) -> None:
            for row in rng.standard_normal((n, len(CHANNELS))).round(4).tolist():
                await socket_.send(json.dumps(row))

        async def receive(n: int) -> None:
            for _ in range(n):
                json.loads(await socket_.recv())["alarm"]

        async def both(n: int) -> float:
            begin = time.perf_counter()
            await asyncio.gather(send(n), receive(n))
            return time.perf_counter() - begin

        await both(2000)
        before = resident_mb(pid)
        parts = [(await both(n_rows // 4), resident_mb(pid)) for _ in range(4)]
    seconds = sum(part for part, _ in parts)
    after = ", ".join(f"{memory:.1f}" for _, memory in parts)
    print(
        f"stream of {n_rows} rows: {n_rows / seconds:.0f} rows/s; RSS {before:.1f} MB before, then {after} MB"
    )


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000, help="of the stream")
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--backbone", default="resnet18", help="of PatchCore")
    parser.add_argument("--folder", type=Path, help="keeps the models, for the next time")
    parser.add_argument("--tiny", action="store_true", help="an MAE of 16 numbers per patch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        if not (folder / "models").is_dir():
            make_models(folder, arguments.window, arguments.side, arguments.backbone, arguments.tiny)
        rows = np.random.default_rng(2).standard_normal((arguments.window, len(CHANNELS))).round(4).tolist()
        image = (folder / "images" / "test" / "spot" / "0.png").read_bytes()
        sent = {
            "mae": request("/v1/models/mae/score", "application/json", json.dumps({"rows": rows}).encode()),
            "patchcore": request("/v1/models/patchcore/score", "image/png", image),
        }
        units = {"mae": arguments.window, "patchcore": 1}
        ratios = measure(folder, sent, units, arguments.seconds, arguments.rounds)
        for model, (rate, per_cpu) in ratios.items():
            print(
                f"{model}: batched / one by one at {CLIENTS[-1]} clients: {rate:.2f} times the throughput (at least "
                f"{TARGET}), {per_cpu:.2f} times the requests per second of CPU"
            )
        if arguments.rows:
            with server(folder) as (port, pid):
                asyncio.run(stream(port, pid, arguments.rows))
    return min(rate for rate, _ in ratios.values()) >= TARGET


if __name__ == "__main__":
    sys.exit(0 if main() else f"missed: {TARGET} times the throughput at {CLIENTS[-1]} clients")
