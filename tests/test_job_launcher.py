"""What all launchers share, with one that runs nothing: which jobs run, under which number, in which folder."""

import logging
import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf.basecontainer import BaseContainer

from tocsin import cli
from tocsin.errors import ConfigError
from tocsin.job_launcher import JobLauncher
from tocsin.jobs import Job, State, read_job, read_jobs, write_job
from tocsin.sweep_job import JobCall, death, record_death, run_job

CONF = """\
seed: 0
other: 1
ckpt_path: null
hydra:
  output_subdir: null
  job: {name: train, chdir: false}
  sweep: {dir: %s, subdir: "${hydra:job.num}"}
  job_logging: {root: null}
  hydra_logging: {root: null}
"""


class Pretended(JobLauncher):
    """Ends each job as its seed says: a negative one fails, 0 is left as it is, as if the sweep had been killed."""

    def __init__(self, *, retry_failed: bool = False) -> None:
        super().__init__(retry_failed=retry_failed)
        self.ran: list[int] = []

    def run(self, calls: Sequence[JobCall]) -> Iterator[Job]:
        for call in calls:
            self.ran.append(call.job.number)
            write_job(begun := call.job.begin())
            seed = call.config.seed
            ended = (
                begun.end(State.FAILED, error="bad seed")
                if seed < 0
                else begun.end(State.FINISHED, value=seed / 2)
            )
            if seed:
                write_job(ended)
            yield ended if seed else begun


@pytest.fixture
def sweep_dir(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


@pytest.fixture(autouse=True)
def _state_of_hydra() -> Iterator[None]:
    """Hydra sets up logging and its own state for the whole process; all as it was afterwards."""
    root, config = logging.getLogger(), HydraConfig.instance().cfg
    level, handlers = root.level, list(root.handlers)
    instances, resolvers = Singleton._instances, dict(BaseContainer._resolvers)
    yield
    Singleton._instances, BaseContainer._resolvers = instances, resolvers
    HydraConfig.instance().cfg = config
    root.setLevel(level)
    root.handlers[:] = handlers


def prepared(launcher: JobLauncher, folder: Path, task: object = None) -> JobLauncher:
    setup_globals()
    conf = folder.parent / "conf"
    conf.mkdir(exist_ok=True)
    (conf / "train.yaml").write_text(CONF % folder)
    (conf / "hydra" / "launcher").mkdir(
        parents=True, exist_ok=True
    )  # instead of Hydra's own, which is taken out
    (conf / "hydra" / "launcher" / "basic.yaml").write_text("_target_: none")
    cli._prefer_files(conf)
    loader = ConfigLoaderImpl(create_config_search_path(str(conf)))
    config = loader.load_configuration("train", ["seed=1,2"], run_mode=RunMode.MULTIRUN)
    HydraConfig.instance().set_config(config)
    from hydra._internal.callbacks import Callbacks

    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    launcher.setup(hydra_context=context, task_function=task, config=config)  # type: ignore[arg-type]
    return launcher


def launch(folder: Path, *seeds: int, first: int = 0, **options: bool) -> tuple[list[float], list[int]]:
    """Values, and the numbers of the jobs that ran."""
    launcher = prepared(Pretended(**options), folder)
    returned = launcher.launch([[f"seed={seed}"] for seed in seeds], first)
    return [job.return_value for job in returned], launcher.ran


def test_a_failed_job_is_nan_and_the_others_go_on(sweep_dir):
    values, ran = launch(sweep_dir, 4, -1, 6)
    assert values[0] == 2.0
    assert math.isnan(values[1])
    assert values[2] == 3.0
    assert ran == [0, 1, 2]
    assert [job.folder for job in read_jobs(sweep_dir)] == [sweep_dir / str(number) for number in range(3)]


def test_what_is_finished_is_not_run_again_but_its_value_returned(sweep_dir):
    first, _ = launch(sweep_dir, 4, 6)
    assert launch(sweep_dir, 4, 6) == (first, [])


def test_more_values_run_only_what_is_new_under_numbers_of_their_own(sweep_dir):
    launch(sweep_dir, 4, 6)
    values, ran = launch(sweep_dir, 2, 4, 6, 8)
    assert values == [1.0, 2.0, 3.0, 4.0]
    assert sorted(ran) == [2, 3]
    overrides = {job.number: job.overrides for job in read_jobs(sweep_dir)}
    assert overrides == {0: ("seed=4",), 1: ("seed=6",), 2: ("seed=2",), 3: ("seed=8",)}


def test_the_order_of_overrides_and_plus_signs_make_no_other_job(sweep_dir):
    launcher = prepared(Pretended(), sweep_dir)
    launcher.launch([["seed=4", "other=2"]], 0)
    again = prepared(Pretended(), sweep_dir)
    assert again.launch([["++other=2", "seed=4"]], 0)[0].return_value == 2.0
    assert again.ran == []


def test_a_job_named_twice_runs_once(sweep_dir):
    assert launch(sweep_dir, 4, 4, 6) == ([2.0, 2.0, 3.0], [0, 2])


def test_failed_jobs_run_again_on_request_only(sweep_dir):
    launch(sweep_dir, 4, -1)
    values, ran = launch(sweep_dir, 4, -1)
    assert math.isnan(values[1])
    assert ran == []
    assert launch(sweep_dir, 4, -1, retry_failed=True)[1] == [1]


def test_an_interrupted_job_runs_again_in_its_folder(sweep_dir):
    launch(sweep_dir, 4, 0)
    assert read_job(sweep_dir / "1").state is State.RUNNING
    assert launch(sweep_dir, 0)[1] == [1]


def test_batches_count_on(sweep_dir):
    launch(sweep_dir, 4, 6)
    assert launch(sweep_dir, 8, 10, first=2)[1] == [2, 3]


def test_two_sweeps_in_one_folder_are_refused(sweep_dir):
    inside, leave = threading.Event(), threading.Event()

    class Waiting(Pretended):
        def run(self, calls):
            inside.set()
            leave.wait(30)
            yield from super().run(calls)

    with _in_thread(lambda: prepared(Waiting(), sweep_dir).launch([["seed=4"]], 0)):
        assert inside.wait(30)
        try:
            with pytest.raises(ConfigError, match=re.escape(f"{sweep_dir}: another sweep runs there")):
                launch(sweep_dir, 6)
        finally:
            leave.set()
    assert launch(sweep_dir, 4)[1] == []


@contextmanager
def _in_thread(work) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


# --- one job ------------------------------------------------------------------------------------------------------


def _half(cfg):
    return cfg.seed / 2


def _resumes(cfg):
    return float(cfg.ckpt_path == "last")


def _raises(cfg):
    raise ConfigError("seed is odd")


def _has_a_bug(cfg):
    return {}["seed"]


def called(folder: Path, task) -> JobCall:
    launcher = prepared(Pretended(), folder, task)
    return launcher._calls([(7, ["seed=4"])])[0]


@pytest.mark.parametrize(
    ("task", "state", "value", "error"),
    [
        (_half, State.FINISHED, 2.0, None),
        (_raises, State.FAILED, None, "seed is odd"),
        (_has_a_bug, State.FAILED, None, "KeyError: 'seed'"),
    ],
)
def test_a_job_leaves_its_record(sweep_dir, task, state, value, error):
    ended = run_job(called(sweep_dir, task))
    assert (ended.state, ended.value, ended.error, ended.number) == (state, value, error, 7)
    assert read_job(sweep_dir / "7") == ended


def test_a_job_goes_on_from_its_last_checkpoint_if_it_has_one(sweep_dir):
    call = called(sweep_dir, _resumes)
    assert run_job(call).value == 0.0
    (sweep_dir / "7" / "checkpoints").mkdir()
    (sweep_dir / "7" / "checkpoints" / "last.ckpt").touch()
    assert run_job(call).value == 1.0


def test_a_job_with_a_checkpoint_of_its_own_keeps_it(sweep_dir):
    launcher = prepared(Pretended(), sweep_dir, _resumes)
    call = launcher._calls([(7, ["ckpt_path=other.ckpt"])])[0]
    (sweep_dir / "7" / "checkpoints").mkdir(parents=True)
    (sweep_dir / "7" / "checkpoints" / "last.ckpt").touch()
    assert not call.resumes


def test_a_dead_process_is_recorded_unless_its_work_was_done(tmp_path):
    job = Job(folder=tmp_path / "0", number=0, overrides=())
    died = record_death(job, death(-9))
    assert died.state is State.FAILED
    assert died.error == "killed (SIGKILL): by hand, or because the machine ran out of memory"
    write_job(done := job.begin().end(State.FINISHED, value=1.0))
    assert record_death(job, death(1)) == done
    assert death(3) == "its process ended with exit code 3"
    assert death(-11) == "killed by signal SIGSEGV"
