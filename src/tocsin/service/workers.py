"""The workers of patch jobs: one process per device, and one thread that gives them work and watches them.

The thread claims a job for a device that is free, starts a process for it, and says once a second to the database
and to the process that both are still there. A process that dies takes nothing with it: its job waits again, and
goes on from its last checkpoint. A server that dies is silent; after `LEASE_S` another one, or itself anew, puts its
jobs back. Its processes have ended with it; one that lost its server in another way ends before that time is up
(`SILENT_S`).
"""

import asyncio
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tocsin.errors import ConfigError
from tocsin.jobs import death
from tocsin.service import queue
from tocsin.service.patch_devices import Device, devices_of
from tocsin.service.patch_files import checkpoint_time, job_folder, kept_overrides
from tocsin.service.patch_process import PatchCall, run_patch
from tocsin.service.patch_request import PatchRequest, overrides, run_overrides, victim_source
from tocsin.service.queue import Job
from tocsin.service.settings import Settings

log = logging.getLogger(__name__)

LEASE_S = 15.0  # of silence, after which a job is anyone's
BEAT_S = 1.0
POLL_S = 0.2
_STOP_S = 10.0
PRELOADED = "tocsin.service.patch_preload"


@dataclass
class Worker:
    """A device, and what runs on it.

    Attributes:
        device: What it is.
        job: As claimed; None while it is free.
        process: That runs the job.
        pipe: To that process.
        beaten: When it was last said that both are there.
        said: What the process sent at its end.
    """

    device: Device
    job: Job | None = None
    process: ForkServerProcess | None = None
    pipe: Connection | None = None
    beaten: float = 0.0
    said: str | None = None

    def kill(self) -> None:
        """End the process, if there is one, and forget the job: the device is free."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process.close()
        if self.pipe is not None:
            self.pipe.close()
        self.job = self.process = self.pipe = self.said = None


class PatchWorkers:
    """Runs patch jobs until it is stopped.

    Args:
        settings: Of the server.
        engine: Of its database.
        cache_dir: Where stand-ins are kept; None takes that of `train.py`.
    """

    def __init__(self, *, settings: Settings, engine: Engine, cache_dir: str | None = None) -> None:
        self.settings = settings
        self.engine = engine
        self.cache_dir = cache_dir
        self.workers: list[Worker] = []
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._wake = threading.Event()
        self._stopping = False
        self._looked = 0.0  # for jobs of servers that are gone
        self._thread = threading.Thread(target=self._run, name="patch-workers", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once whether there is a new job, or one was cancelled."""
        self._wake.set()

    def stop(self) -> None:
        """End all processes; their jobs wait for the next server."""
        self._stopping = True
        self._wake.set()
        self._thread.join(_STOP_S)  # while it still imports it has claimed nothing

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._context.set_forkserver_preload([PRELOADED])
        first = self._context.Process(target=os.getpid, daemon=True)
        first.start()  # lets the imports be done before any job is claimed, which could not be beaten meanwhile
        first.join()
        try:
            self.workers = [
                Worker(device=device) for device in devices_of(self.settings.devices, self._context)
            ]
        except ConfigError as error:
            log.error("patch jobs wait: %s", error)
            return
        log.info("patch jobs run on %s", ", ".join(_described(worker.device) for worker in self.workers))
        while not self._stopping:
            hurry = self._wake.wait(POLL_S)
            self._wake.clear()
            try:
                self._step(hurry=hurry)
            except DBAPIError as error:  # a database that is busy or away comes back
                log.warning("the database does not answer: %s", str(error.orig).strip())
            except (
                OSError,
                EOFError,
            ) as error:  # no process could be started; its job waits again after the lease
                log.warning("a patch job could not be started: %s", error)
        self._end()

    def _step(self, *, hurry: bool) -> None:
        for worker in self.workers:
            if worker.process is None:
                continue
            if worker.process.exitcode is not None:
                self._settle(worker)
            elif hurry or time.monotonic() - worker.beaten >= BEAT_S:
                self._beat(worker)
        if time.monotonic() - self._looked >= BEAT_S:
            queue.put_back_lost(self.engine, silent_s=LEASE_S)
            self._looked = time.monotonic()
        while not self._stopping and self._free() and queue.waiting(self.engine):
            worker = self._freest()
            job = queue.claim(self.engine, device=worker.device.name)
            if job is None:
                return
            self._start(worker, job)

    def _free(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.job is None]

    def _freest(self) -> Worker:
        """Of the free workers the one whose device has most free memory: others may use it, too."""
        free = self._free()
        if len(free) == 1:
            return free[0]
        now = [device.index for device in devices_of(self.settings.devices, self._context)]
        return min(free, key=lambda worker: now.index(worker.device.index))

    # --- a job ------------------------------------------------------------------------------------------------

    def _start(self, worker: Worker, job: Job) -> None:
        folder = job_folder(self.settings.folder, job.id)
        checkpoint = checkpoint_time(folder)
        if not queue.begin(self.engine, job, checkpoint=checkpoint):
            return
        gpu = worker.device.index is not None
        try:
            given = kept_overrides(folder) or self._overrides(job, gpu=gpu)
        except ConfigError as error:
            queue.fail(self.engine, job, str(error))
            return
        call = PatchCall(
            overrides=tuple(given),
            of_this_start=tuple(run_overrides(folder, gpu=gpu, cache_dir=self.cache_dir)),
            folder=folder,
            database=self.settings.database,
            gpu=worker.device.visible,
        )
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=run_patch, args=(call, theirs), daemon=True)
        process.start()
        theirs.close()
        worker.job, worker.process, worker.pipe = job, process, ours
        log.info(
            "job %s %s on %s (process %d)",
            job.id,
            "starts" if checkpoint is None else "goes on",
            _described(worker.device),
            process.pid,
        )
        self._beat(worker)

    def _overrides(self, job: Job, *, gpu: bool) -> list[str]:
        try:
            request = PatchRequest.model_validate(dict(job.request))
        except ValidationError as error:  # of a server of another version
            raise ConfigError(f"this server cannot read the request: {error.errors()[0]['msg']}") from error
        victim = victim_source(request.victim, self.settings.models)
        if victim is None:
            raise ConfigError(f"victim={request.victim} is no longer below the models folder")
        return overrides(request, victim=victim, kind="gpu" if gpu else "cpu")

    def _beat(self, worker: Worker) -> None:
        assert worker.job is not None
        assert worker.pipe is not None
        if not queue.beat(self.engine, worker.job):
            log.info("job %s is no longer wanted here", worker.job.id)
            worker.kill()
            return
        try:
            worker.pipe.send_bytes(b"beat")
        except OSError:  # the process has just ended; the next step sees how
            return
        worker.beaten = time.monotonic()

    def _settle(self, worker: Worker) -> None:
        """Record how a process ended, and free its device."""
        assert worker.job is not None
        assert worker.process is not None
        job, code = worker.job, worker.process.exitcode
        assert code is not None
        worker.said = said = (
            _said(worker) if worker.said is None else worker.said
        )  # read once: the database may fail
        if said is None or code != 0:
            log.warning("the process of job %s ended: %s", job.id, death(code))
            queue.put_back(self.engine, job, death(code))
        elif said:
            log.warning("job %s failed: %s", job.id, said)
            queue.fail(self.engine, job, said)
        else:
            log.info("job %s is finished", job.id)
            queue.finish(self.engine, job)
        worker.kill()

    def _end(self) -> None:
        for worker in self.workers:
            job = worker.job
            worker.kill()
            if job is None:
                continue
            try:
                queue.give_back(self.engine, job)
            except DBAPIError as error:  # then it waits for the end of its lease
                log.warning("job %s could not be given back: %s", job.id, str(error.orig).strip())


def _said(worker: Worker) -> str | None:
    """What a process sent at its end; None if it did not come to that."""
    assert worker.pipe is not None
    try:
        return worker.pipe.recv_bytes().decode() if worker.pipe.poll() else None
    except (EOFError, OSError):
        return None


def _described(device: Device) -> str:
    return device.name + (f", {device.free / 2**30:.1f} GiB free" if device.index is not None else "")


@asynccontextmanager
async def patch_workers(
    settings: Settings, engine: Engine, *, cache_dir: str | None = None
) -> AsyncIterator[PatchWorkers]:
    """The workers of a server, for as long as it serves; for `app.state.patch_workers`.

    Args:
        settings: Of the server.
        engine: Of its database, which has the table of jobs.
        cache_dir: Where stand-ins are kept; None takes that of `train.py`.
    """
    workers = PatchWorkers(settings=settings, engine=engine, cache_dir=cache_dir)
    workers.start()
    try:
        yield workers
    finally:
        await asyncio.to_thread(workers.stop)
