"""`hydra/launcher=ray`, `ray_gpu`, `ray_cluster`: as many jobs at once as there are cores, GPUs or machines.

Ray keeps the processes of jobs on a CPU for the next job, so that imports are paid once in each. A job on a GPU gets
a process of its own, with the GPU in CUDA_VISIBLE_DEVICES before anything is imported.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tocsin.errors import ConfigError
from tocsin.job_launcher import JobLauncher
from tocsin.jobs import Job
from tocsin.sweep_job import JobCall, record_death, run_job


class RayLauncher(JobLauncher):
    """Runs the jobs of a sweep on Ray.

    Args:
        init: Arguments of `ray.init`: address of a cluster, or what this machine offers.
        remote: Arguments of `ray.remote`: what a job takes.
        retry_failed: Run jobs again that failed when the sweep ran before.
    """

    def __init__(
        self, *, init: Mapping[str, Any], remote: Mapping[str, Any], retry_failed: bool = False
    ) -> None:
        super().__init__(retry_failed=retry_failed)
        self.init = dict(init)
        self.remote = dict(remote)

    def run(self, calls: Sequence[JobCall]) -> Iterator[Job]:
        try:
            import ray
        except ImportError as error:
            raise ConfigError(
                f"hydra/launcher=ray needs Ray: pip install 'tocsin[sweep]' ({error})"
            ) from error
        if not calls:
            return
        if not ray.is_initialized():  # it may be, from the batch before
            ray.init(**self.init)
        self._check_resources(ray.cluster_resources())  # type: ignore[no-untyped-call]
        remote = ray.remote(**self.remote)(run_job)
        running = {remote.remote(call): call.job for call in calls}
        while running:
            (ended, *_), _ = ray.wait(list(running), num_returns=1)
            job = running.pop(ended)
            try:
                yield ray.get(ended)
            except ray.exceptions.RayError as error:  # the process, not the job, has failed
                yield record_death(job, _reason(error))

    def _check_resources(self, offered: Mapping[str, Any]) -> None:
        """A job that no machine can ever run would wait for ever."""
        for option, resource in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
            wanted, there = self.remote.get(option) or 0, offered.get(resource, 0)
            if wanted > there:
                raise ConfigError(
                    f"hydra.launcher.remote.{option}={wanted:g}, but there are {there:g} {resource}s; lower it, or "
                    f"set hydra.launcher.init.{option} if there are more"
                )


def _reason(error: Exception) -> str:
    """One line of Ray's long ones."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"its process died: {type(error).__name__}: {text[:200]}"
