"""A launcher without Hydra: jobs whose result is a formula of their overrides."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tocsin.jobs import Job, State, job_key, read_jobs, write_job

Quality = Callable[[dict[str, str], str], float]


def values_of(overrides: Sequence[str]) -> dict[str, str]:
    return {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in overrides)}


class Bench:
    """Runs jobs as a launcher of the project does, and notes which ones it really ran.

    Attributes:
        ran: Folder of each job that was run, below the sweep.
        die_after: Raise as if killed when so many jobs have run.
    """

    def __init__(self, quality: Quality) -> None:
        self.quality = quality
        self.ran: list[str] = []
        self.die_after: int | None = None

    def __call__(self, stage_dir: Path, overrides: Sequence[Sequence[str]]) -> list[float]:
        known = {job.key: job for job in read_jobs(stage_dir)}
        outcomes = []
        for number, own in enumerate(overrides):
            job = known.get(job_key(own))
            if job is None or job.state == State.RUNNING:
                job = self._run(Job(folder=stage_dir / str(number), number=number, overrides=tuple(own)))
            outcomes.append(math.nan if job.value is None else job.value)
        return outcomes

    def _run(self, job: Job) -> Job:
        if self.die_after is not None and len(self.ran) >= self.die_after:
            write_job(job.begin())
            raise KeyboardInterrupt
        self.ran.append(f"{job.folder.parent.name}/{job.number}")
        quality = self.quality(values_of(job.overrides), job.folder.parent.name)
        begun = job.begin()
        if math.isnan(quality):
            ended = begun.end(State.FAILED, error=f"job {job.number} ran out of memory")
        else:
            ended = begun.end(State.FINISHED, value=quality)
            job.folder.joinpath("checkpoints").mkdir(parents=True)
            (job.folder / "checkpoints" / "best.ckpt").write_text(f"{job.folder.parent.name} {job.number}")
            sections = {
                "run": {"started": "2026-11-26T10:00:00", "finished": "2026-11-26T10:00:07"},
                "planted": {"vus_pr": 1 - quality},
                "test": {"vus_pr": 0.5 + quality / 10, "note": "text"},
                "timing": {"fit_s": 2.5},
                "resources": {"parameters": 1234},
            }
            (job.folder / "metrics.json").write_text(json.dumps(sections))
        write_job(ended)
        return ended


def by_formula(values: dict[str, str], stage: str) -> float:
    """Quick: d=2 wins; in full the order of d is turned round."""
    d, seed = int(values["model.d"]), int(values["seed"])
    return abs(d - 2) + seed / 100 if stage == "quick" else 5 - d + seed / 100
