"""`hydra/launcher=basic`: one job after another, each in a process of its own.

All are forked from one process that has imported what they need: a job starts at once, with fresh memory and a fresh
GPU, and takes nothing with it when it dies.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle
from omegaconf import OmegaConf

from tocsin.job_launcher import JobLauncher
from tocsin.jobs import Job, death
from tocsin.sweep_job import JobCall, record_death, run_pickled


class ProcessLauncher(JobLauncher):
    """Runs the jobs of a sweep in turn.

    Args:
        retry_failed: Run jobs again that failed when the sweep ran before.
    """

    def run(self, calls: Sequence[JobCall]) -> Iterator[Job]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_modules(calls))
        for call in calls:
            sys.stdout.flush()
            process = context.Process(target=run_pickled, args=(cloudpickle.dumps(call), dict(os.environ)))
            process.start()
            try:
                process.join()
            finally:  # an interrupted sweep leaves no job behind
                process.terminate()
                process.join()
            assert process.exitcode is not None
            yield record_death(call.job, death(process.exitcode))


def _modules(calls: Sequence[JobCall]) -> list[str]:
    """Modules that jobs like the first will import: the pipeline, and those of its targets."""
    targets: set[str] = set()
    for call in calls[:1]:
        for name, node in OmegaConf.to_container(call.config, resolve=False).items():  # type: ignore[union-attr]
            targets.update(_targets(node) if name != "hydra" else ())
    return ["tocsin.pipeline", *sorted({target.rpartition(".")[0] for target in targets})]


def _targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a part of a configuration."""
    if isinstance(node, dict):
        yield from (node[key] for key in node if key == "_target_")
        for inner in node.values():
            yield from _targets(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _targets(inner)
