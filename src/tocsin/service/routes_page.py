"""The web page and the description of the API, from files of the package, as they are."""

import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from tocsin.service.answers import Refused

router = APIRouter(include_in_schema=False)

KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}


@cache
def page_files() -> dict[str, tuple[bytes, str, str]]:
    """Content, kind and ETag of each file by name."""
    found = {}
    for file in (files("tocsin.service") / "page").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            found[file.name] = content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return found


@router.get("/")
def index(request: Request) -> Response:
    """The page."""
    return _file(request, "index.html")


@router.get("/docs")
def docs(request: Request) -> Response:
    """The API, described."""
    return _file(request, "docs.html")


@router.get("/page/{name}")
def part(request: Request, name: str) -> Response:
    """A part of the page."""
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    """A file, or that the browser has it already."""
    if name not in page_files():
        raise Refused(404, f"the page has no part {name[:80]}")
    content, kind, tag = page_files()[name]
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if tag in [
        known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")
    ]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
