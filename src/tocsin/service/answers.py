"""What is answered when a request cannot be done: one line that names the thing and the fix, never a stack trace."""

import logging
import secrets
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tocsin.errors import TocsinError

log = logging.getLogger(__name__)

MEANINGS = {
    400: "The request cannot be read",
    401: "No valid key was given",
    403: "A browser sent it for another site",
    404: "There is none",
    405: "The address knows no such method",
    406: "It cannot be answered in the form that was asked for",
    409: "It contradicts what is there",
    413: "It is larger than the server takes",
    415: "It is of no kind that is taken",
    421: "The server is not called that",
    422: "It is understood, but faulty",
    429: "There are too many already; try again later",
    500: "A mistake of the server, by the number in its log",
    503: "The server is busy; try again",
}
COMMON = (400, 401, 403, 405, 413, 421, 500, 503)  # which every address may give


class Refused(TocsinError):
    """A request that is answered with a status of its own.

    Attributes:
        status: 400 to 499, or 503.
        headers: That go with it.
    """

    def __init__(self, status: int, line: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(line)
        self.status, self.headers = status, headers


class Problem(BaseModel):
    """What went wrong, and what to do."""

    error: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Description, for OpenAPI, of the answers of a route that are problems."""
    return {status: {"model": Problem, "description": MEANINGS[status]} for status in statuses}


def problem(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer of a status with one line."""
    text = " ".join(line.split()).encode(errors="replace").decode()  # halves of characters cannot be sent
    return JSONResponse({"error": text}, status_code=status, headers=headers)


def add_handlers(app: FastAPI) -> None:
    """Let an application answer errors of its routes in one form."""
    app.add_exception_handler(TocsinError, _of_tocsin)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(OperationalError, _of_database)
    app.add_exception_handler(ClientDisconnect, _of_disconnect)


def _of_tocsin(request: Request, error: Exception) -> JSONResponse:
    """Of `Refused` as it says; other errors of ours are of what was sent."""
    if isinstance(error, Refused):
        return problem(error.status, str(error), error.headers)
    return problem(422, str(error))


def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    line, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == 404 and line == "Not Found":
        line = f"there is no {request.url.path}; /docs lists what there is"
    if error.status_code == 405:
        line = f"{request.url.path} does not know {request.method}; it knows {headers.get('Allow', 'others')}"
    return problem(error.status_code, line, headers)


def _of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first, more = error.errors()[0], len(error.errors()) - 1
    line = f"{_place(first['loc'])}: {first['msg']}{_given(first)}"
    if first["type"] == "json_invalid":
        return problem(400, f"the body is no JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    return problem(422, f"{line} (and {more} more)" if more else line)


def _place(location: Sequence[Any]) -> str:
    """Where in a request, such as `body.seed`."""
    return ".".join(str(part) for part in location) or "the request"


def _given(fault: dict[str, Any]) -> str:
    """What was given there, if it is short."""
    value = fault.get("input")
    if not isinstance(value, str | int | float | bool):
        return ""
    text = repr(value)
    return f", not {text}" if len(text) <= 60 else ""


def _of_database(request: Request, error: Exception) -> JSONResponse:
    """A database that is locked for too long, or gone for a while."""
    log.warning("%s %s: %s", request.method, request.url.path, error)
    return problem(503, "the database does not answer; try again", {"Retry-After": "5"})


def _of_disconnect(request: Request, error: Exception) -> JSONResponse:
    """Nobody is there to read it."""
    return problem(400, "the connection ended before the request did; send it again")


class Failures:
    """Middleware that logs a mistake of ours with its stack trace, and answers with no more than its number."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            if begun:
                raise  # too late for an answer: the server ends the connection
            number = secrets.token_hex(4)
            log.exception("internal error %s: %s %r", number, scope["method"], scope["path"])
            await problem(500, f"internal error {number}")(scope, receive, send)
