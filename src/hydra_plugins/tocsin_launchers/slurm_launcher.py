"""`hydra/launcher=slurm`: an array of jobs of a cluster, which waits its turn and survives being preempted.

Slurm announces the end of a job's time, or that others go first, by a signal; submitit then puts the job back into
the queue, and its next start goes on from its last checkpoint.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tocsin.errors import ConfigError
from tocsin.job_launcher import JobLauncher
from tocsin.jobs import Job
from tocsin.sweep_job import JobCall, record_death, run_job


class Requeued:
    """A job that may be stopped and started again: what submitit calls, and calls again."""

    def __call__(self, call: JobCall) -> Job:
        """Run the job, from its last checkpoint if it has one."""
        return run_job(call)

    def checkpoint(self, call: JobCall) -> Any:
        """What to start again: the same, as the folder of the job tells how far it came."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, call)


class SlurmLauncher(JobLauncher):
    """Runs the jobs of a sweep as an array of Slurm jobs.

    Args:
        folder: Scripts and output of the jobs.
        resources: What a job takes, in the words of submitit's executors.
        max_num_timeout: How often a job whose time is over goes back into the queue.
        cluster: `slurm`, or `local` to try it out without one.
        poll_s: Seconds between two looks at the jobs.
        retry_failed: Run jobs again that failed when the sweep ran before.
    """

    def __init__(
        self,
        *,
        folder: str,
        resources: Mapping[str, Any],
        max_num_timeout: int = 10,
        cluster: str = "slurm",
        poll_s: float = 10.0,
        retry_failed: bool = False,
    ) -> None:
        super().__init__(retry_failed=retry_failed)
        self.folder = folder
        self.resources = {name: value for name, value in resources.items() if value is not None}
        self.max_num_timeout = max_num_timeout
        self.cluster = cluster
        self.poll_s = poll_s

    def run(self, calls: Sequence[JobCall]) -> Iterator[Job]:
        try:
            import submitit
        except ImportError as error:
            raise ConfigError(
                f"hydra/launcher=slurm needs submitit: pip install 'tocsin[sweep]' ({error})"
            ) from error
        if not calls:
            return
        try:
            executor = submitit.AutoExecutor(
                self.folder, cluster=self.cluster, slurm_max_num_timeout=self.max_num_timeout
            )
            executor.update_parameters(**self.resources)
        except (RuntimeError, ValueError, NameError) as error:  # no Slurm here, or an option it does not know
            raise ConfigError(f"hydra/launcher=slurm: {' '.join(str(error).split())}") from error
        submitted = executor.map_array(Requeued(), calls)
        jobs = {job.job_id: call.job for job, call in zip(submitted, calls, strict=True)}
        for done in submitit.helpers.as_completed(submitted, poll_frequency=self.poll_s):
            raised = done.exception()
            if raised is None:
                yield done.result()
            else:
                yield record_death(jobs[done.job_id], _reason(raised, done.paths.stderr))


def _reason(error: BaseException, log: object) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"its process died: {type(error).__name__}: {text[:200]} (see {log})"
