"""Answers to what cannot be done: always {"error": one line}, with a stack trace in the log alone."""

import logging

import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from tocsin.errors import ConfigError, DataError
from tocsin.service.answers import Failures, Refused, add_handlers

NO_INTEGER = "body.seed: Input should be a valid integer, unable to parse string as an integer"


class Body(BaseModel, extra="forbid"):
    """Of a request."""

    seed: int
    name: str = "a"


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(docs_url=None, openapi_url=None)
    app.add_middleware(Failures)
    add_handlers(app)
    errors = {
        "refused": Refused(409, "taken;\nchoose another", {"Retry-After": "1"}),
        "data": DataError("a.csv: is empty"),
        "config": ConfigError("there is no such victim"),
        "half": DataError("\ud800 is half a character"),
        "locked": OperationalError("INSERT secret", {}, Exception("database is locked")),
        "bug": KeyError("secret of the server"),
    }

    @app.get("/fail/{name}")
    def fail(name: str) -> None:
        raise errors[name]

    @app.post("/body")
    def take(body: Body) -> int:
        return body.seed

    return TestClient(app)


@pytest.mark.parametrize(
    ("name", "status", "line"),
    [
        ("refused", 409, "taken; choose another"),
        ("data", 422, "a.csv: is empty"),
        ("config", 422, "there is no such victim"),
        ("half", 422, "? is half a character"),
        ("locked", 503, "the database does not answer; try again"),
    ],
)
def test_errors_of_ours(client: TestClient, name: str, status: int, line: str) -> None:
    answer = client.get(f"/fail/{name}")
    assert (answer.status_code, answer.json()) == (status, {"error": line})
    assert ("retry-after" in answer.headers) == (name in ("refused", "locked"))


def test_a_mistake_of_ours_is_in_the_log_and_its_number_in_the_answer(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/fail/bug")
    assert answer.status_code == 500
    line = answer.json()["error"]
    assert line.startswith("internal error ")
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line in record.getMessage()
    assert record.exc_info is not None
    assert "secret of the server" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("content", "status", "line"),
    [
        ("{", 400, "the body is no JSON: Expecting property name enclosed in double quotes"),
        ("{}", 422, "body.seed: Field required"),
        (
            '{"seed": "x"}',
            422,
            f"{NO_INTEGER}, not 'x'",
        ),
        ('{"seed": 1, "sed": 1}', 422, "body.sed: Extra inputs are not permitted, not 1"),
        ('{"name": 1}', 422, "body.seed: Field required (and 1 more)"),
        (
            '{"seed": "' + "x" * 999 + '"}',
            422,
            NO_INTEGER,
        ),
        ("[1]", 422, "body: Input should be a valid dictionary or object to extract fields from"),
    ],
)
def test_bodies_that_do_not_fit(client: TestClient, content: str, status: int, line: str) -> None:
    answer = client.post("/body", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (status, {"error": line})


def test_addresses_and_methods_that_are_none(client: TestClient) -> None:
    assert client.get("/none").json() == {"error": "there is no /none; /docs lists what there is"}
    answer = client.get("/body")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {"error": "/body does not know GET; it knows POST"}
