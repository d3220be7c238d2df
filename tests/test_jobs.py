"""Records of the jobs of a sweep."""

import json
from pathlib import Path

import pytest

from tocsin.errors import TocsinError
from tocsin.jobs import Job, State, job_key, read_job, read_jobs, write_job


def job(folder: Path, number: int = 0, **fields: object) -> Job:
    return Job(folder=folder / str(number), number=number, overrides=("model=mae", "seed=1"), **fields)


def test_a_record_comes_back_as_it_was(tmp_path):
    begun = job(tmp_path).begin()
    ended = begun.end(State.FAILED, error="no data")
    write_job(ended)
    assert read_job(tmp_path / "0") == ended
    assert ended.state is State.FAILED
    assert ended.error == "no data"
    assert ended.seconds is not None
    assert 0 <= ended.seconds < 60
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["job.json"]


def test_a_new_start_forgets_the_old_end(tmp_path):
    again = job(tmp_path).begin().end(State.FAILED, error="no data").begin()
    assert (again.state, again.error, again.seconds) == (State.RUNNING, None, None)


def test_jobs_are_read_by_number_and_stage(tmp_path):
    for stage in ("full", "quick"):
        for number in (10, 2):
            write_job(job(tmp_path / stage, number))
    found = [(one.folder.parent.name, one.number) for one in read_jobs(tmp_path)]
    assert found == [("full", 2), ("full", 10), ("quick", 2), ("quick", 10)]


def test_the_same_overrides_in_another_order_are_the_same_job():
    assert job_key(["++model.a=1", "seed=2", "hydra.sweep.dir=x"]) == job_key(["seed=2", "model.a=1"])
    assert job_key(["seed=1"]) != job_key(["seed=2"])


def test_no_record_is_none_and_a_damaged_one_an_error(tmp_path):
    assert read_job(tmp_path) is None
    (tmp_path / "job.json").write_text(json.dumps({"number": 1}))
    with pytest.raises(TocsinError, match=r"is not the record of a job: 'state'; delete that folder"):
        read_job(tmp_path)
    (tmp_path / "job.json").write_text("[")
    with pytest.raises(TocsinError, match="is not the record of a job"):
        read_jobs(tmp_path)
