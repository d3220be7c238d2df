"""What every request passes before anything else looks at it: names of the server, sites, keys, sizes.

Sources: Fetch Metadata (W3C) and the Origin header (RFC 6454) tell requests that a page of another site makes a
browser send; the Host header tells names that were bent to this machine (DNS rebinding).
"""

import base64
import binascii
import ipaddress
import logging
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tocsin.service.answers import Refused, problem
from tocsin.service.keys import holder
from tocsin.service.settings import Settings

log = logging.getLogger(__name__)

OPEN = "/health"  # the only address that needs no key
UPLOADS = re.compile(r"/v1/datasets/?|/v1/models/[^/]+/score/?")
UPLOAD_KINDS = ("multipart/form-data", "image/")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS = ("GET", "HEAD")
ASK = {"WWW-Authenticate": 'Basic realm="Tocsin", charset="UTF-8"'}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Gate:
    """Middleware that lets in what may come in.

    Attributes:
        app: What it guards.
        settings: Of the server.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self.names = {name.lower() for name in (*LOCAL_NAMES, settings.host, *settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_site(scope, headers)
            self._check_key(scope, headers)
            limit = self._limit(scope, headers)
        except Refused as refused:
            await _refuse(refused, scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await _measured(self.app, scope, receive, send, limit)

    # --- checks -----------------------------------------------------------------------------------------------

    def _check_host(self, headers: Headers) -> None:
        """A server for this machine, or one that was told its names, answers to no other name."""
        if not self.settings.local and not self.settings.hosts:
            return
        name = _host_name(headers.get("host", ""))
        if name not in self.names:
            raise Refused(
                421, f"this server is not called '{name}'; if that is the name of a proxy, add it to hosts"
            )

    def _check_site(self, scope: Scope, headers: Headers) -> None:
        """No page of another site may make a browser change anything here, or listen."""
        if scope["type"] == "http" and scope["method"] in SAFE_METHODS:
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site in ("same-origin", "none") or (site is None and origin is None):
            return
        parts = urlsplit(origin or "null")
        at_home = parts.netloc.lower() == headers.get("host", "").lower()
        if site is None and (at_home or _host_name(parts.netloc) in self.settings.hosts):
            return
        raise Refused(403, f"refused, as a page of another site asked for it: {origin or site}")

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        if not self.settings.keys or (scope["type"] == "http" and scope["path"] == OPEN):
            return
        key = _key_of(headers)
        if key is None:
            raise Refused(401, "a key is needed: send Authorization: Bearer <key>", ASK)
        if holder(key, self.settings.keys) is None:
            log.warning("refused a key that is not known, from %s", (scope.get("client") or ["?"])[0])
            raise Refused(
                401, "the key is not known here; python -m tocsin.service.keys <name> makes one", ASK
            )

    def _limit(self, scope: Scope, headers: Headers) -> int:
        """Most bytes of the body."""
        limits, kind = self.settings.limits, headers.get("content-type", "").lower()
        upload = UPLOADS.fullmatch(scope["path"]) and kind.startswith(UPLOAD_KINDS)
        name = "upload_mb" if upload else "body_mb"
        limit = int(getattr(limits, name) * 2**20)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal():
            raise Refused(400, "Content-Length is no number of bytes; leave it out, or mend it")
        if len(length) > 18 or int(length) > limit:
            raise _too_large(limit)
        return limit


def _host_name(netloc: str) -> str:
    """Name or address in `name:port`, in small letters; empty for what is none."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]@/\s]*))(?::\d*)?", netloc)
    if not found:
        return ""
    if found.group(1):
        try:
            return str(ipaddress.ip_address(found.group(1)))
        except ValueError:
            return ""
    return found.group(2).lower().rstrip(".")


def _key_of(headers: Mapping[str, str]) -> str | None:
    """The key that a request gives."""
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return rest.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return headers.get("x-api-key")


# --- answers ------------------------------------------------------------------------------------------------


def _too_large(limit: int) -> Refused:
    return Refused(
        413,
        f"the body is larger than {limit / 2**20:g} MB; send less, or raise limits.body_mb or limits.upload_mb",
        {"Connection": "close"},
    )


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer before anything else is read; a socket is never opened."""
    response = problem(refused.status, str(refused), {**HEADERS, **(refused.headers or {})})
    if scope["type"] == "websocket":
        await receive()  # that a client wants to connect: servers expect it to be heard before the answer
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)  # prefixes its messages for a socket by itself
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": str(refused)})


async def _measured(app: ASGIApp, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
    """Pass a request on, its body cut off at the limit, and its answer with headers that keep browsers careful."""
    taken = 0
    begun = False

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return message if taken <= limit else {"type": "http.disconnect"}

    async def guarded(message: Message) -> None:
        nonlocal begun
        if taken > limit and not begun:
            return  # what the application makes of half a body is not the answer
        if message["type"] == "http.response.start":
            begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    try:
        await app(scope, counted, guarded)
    except ClientDisconnect:
        if taken <= limit:
            raise
    if taken > limit and not begun:
        await _refuse(_too_large(limit), scope, receive, send)
