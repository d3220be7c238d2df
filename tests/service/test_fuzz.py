"""The API as its own description allows it, and as it does not: no 5xx, no stack trace, every answer as described."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi import checks
from uploads import coco_files, zipped

from tocsin.service.app import create_app
from tocsin.service.settings import Limits, Settings

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
KNOWN = {"/v1/models": "mae--series", "/v1/datasets": "none", "/v1/patches": "0123456789abcdef"}
QUIET = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],  # what fails is told as it is, and not made smaller
    "derandomize": True,
}


@pytest.fixture(scope="module")
def session(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """To a server with a data set and models, whose workers rest."""
    folder = tmp_path_factory.mktemp("fuzzed")
    options = Settings(
        folder=folder,
        database=f"sqlite:///{folder / 'service.db'}",
        models=models,
        devices="cpu",
        hosts=(asgi.HOST,),
        limits=Limits(body_mb=1, upload_mb=1, unpacked_mb=4, rows=2000, pixels=100_000, queued=20),
    )
    app = create_app(options)
    with asgi.get_client(app, max_stream_events=3) as session:
        files = {"file": ("a.zip", zipped(coco_files()))}
        answer = session.post("/v1/datasets", data={"name": "street"}, files=files)
        assert answer.status_code == 201, answer.text
        with ThreadPoolExecutor(8) as pool:  # the threads that will answer all requests start now
            assert {len(answer.json()) for answer in pool.map(session.get, ["/v1/models"] * 64)} == {2}
        yield session


SCHEMA = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS = [result.ok() for result in SCHEMA.get_all_operations()]
WITH_BODY = [operation for operation in OPERATIONS if operation.method == "post"]
each = pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
modes = pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)


def check(case: Any, session: Any, excluded: Sequence[Any] = ()) -> None:
    answer = case.call(session=session, base_url=f"http://{asgi.HOST}")
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    if answer.status_code >= 400 and case.method != "HEAD":
        assert list(answer.json()) == ["error"]
        assert "\n" not in answer.json()["error"]
        assert 0 < len(answer.json()["error"]) < 2000
    case.validate_response(answer, checks=[one for one in CHECKS if one not in excluded])


def named(case: Any) -> Any:
    """The same case for what is there, so that it comes further than the search for a name."""
    prefix = "/".join(case.path.split("/")[:3])
    if case.path_parameters and "name" in case.path_parameters:
        case.path_parameters["name"] = KNOWN[prefix]
    if isinstance(case.body, dict) and "dataset" in case.body:
        case.body["dataset"] = "street"
    return case


def ask(operation: Any, mode: GenerationMode, session: Any, count: int, *, known: bool) -> None:
    """Requests as described, or with one part that is not."""
    try:
        strategy = operation.as_strategy(generation_mode=mode)
        excluded = (
            [checks.negative_data_rejection] if known else []
        )  # the faulty part may be the one that is replaced

        @settings(max_examples=count, **QUIET)
        @given(case=strategy)
        def run(case: Any) -> None:
            check(named(case) if known else case, session, excluded)

        run()
    except Unsatisfiable:
        assert mode == GenerationMode.NEGATIVE  # it takes nothing that could be faulty


@each
def test_a_few_requests_for_what_is_there(operation: Any, session: Any) -> None:
    ask(operation, GenerationMode.POSITIVE, session, 4, known=True)


@pytest.mark.parametrize("operation", WITH_BODY, ids=[operation.label for operation in WITH_BODY])
def test_a_few_requests_with_a_fault(operation: Any, session: Any) -> None:
    ask(operation, GenerationMode.NEGATIVE, session, 8, known=False)


@pytest.mark.slow
@each
@modes
def test_many_requests(operation: Any, mode: GenerationMode, session: Any) -> None:
    ask(operation, mode, session, 300, known=False)


@pytest.mark.slow
@each
@modes
def test_many_requests_for_what_is_there(operation: Any, mode: GenerationMode, session: Any) -> None:
    ask(operation, mode, session, 300, known=True)
