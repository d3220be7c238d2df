"""The gate: without a key, from another site, by another name or too large, nothing comes in."""

import base64
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from tocsin.service.app import create_app
from tocsin.service.gate import Gate
from tocsin.service.keys import hash_of
from tocsin.service.settings import Limits, Settings

KEY = "a-secret-key"
BASIC = "Basic " + base64.b64encode(f"anyone:{KEY}".encode()).decode()
HOST = "127.0.0.1:8000"
EVIL = "http://evil.example"


def guarded(**changed: Any) -> FastAPI:
    """An application behind the gate that answers with the number of bytes it was sent."""
    app = FastAPI(docs_url="/docs")

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE", "OPTIONS"])
    async def count(request: Request, path: str) -> int:
        return sum([len(part) async for part in request.stream()])

    @app.websocket("/{path:path}")
    async def echo(socket: WebSocket, path: str) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())

    app.add_middleware(Gate, settings=replace(Settings(limits=Limits(body_mb=1, upload_mb=2)), **changed))
    return app


@pytest.fixture
def locked() -> FastAPI:
    return guarded(keys={"you": hash_of("another"), "me": hash_of(KEY)})


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {base64.b64encode(b'a:b').decode()}"},
        {"Authorization": "Basic ???"},
        {
            "Authorization": f"Basic {base64.b64encode(KEY.encode()).decode()}"
        },  # as the user, not the password
        {"Authorization": f"Digest {KEY}"},
        {"X-API-Key": ""},
        {"X-API-Key": hash_of(KEY)},
        {"Authorization": "Bearer wrong", "X-API-Key": KEY},  # what is given first counts
    ],
)
def test_without_a_valid_key_only_health_answers(
    settings: Settings, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = create_app(replace(settings, keys={"me": hash_of(KEY)}))
    client = TestClient(app, base_url=f"http://{HOST}", headers=headers)
    assert client.get("/health").json()["status"] == "ok"
    paths = [getattr(route, "path", "") for route in app.routes]
    for path in {*paths, "/", "/docs", "/openapi.json", "/v1", "/health/", "/HEALTH", "//health", "/none"} - {
        "/health"
    }:
        for method in ("GET", "POST", "HEAD", "DELETE", "OPTIONS"):
            answer = client.request(
                method, path.replace("{name}", "x").replace("{id}", "x"), follow_redirects=False
            )
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith('Basic realm="Tocsin"')
    for path in ("/v1/models/a/stream", "/health"):
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(f"ws://{HOST}{path}"):
            pass
        assert denied.value.status_code == 401
    assert "wrong" not in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {KEY}"}, {"authorization": BASIC}, {"X-API-Key": KEY}]
)
def test_with_a_key_all_is_open(locked: FastAPI, headers: dict[str, str]) -> None:
    client = TestClient(locked, base_url=f"http://{HOST}", headers=headers)
    assert client.post("/v1/datasets", content=b"abc").json() == 3
    with client.websocket_connect(f"ws://{HOST}/stream") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"


def test_a_socket_is_refused_before_it_opens_by_any_server(locked: FastAPI) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", HOST.encode())], "query_string": b""}
    anyio.run(locked, scope, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


# --- sites and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # no browser
        ({"Origin": f"http://{HOST}"}, 200),
        ({"Origin": EVIL}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),  # another server of this machine
        ({"Origin": f"http://{HOST}.evil.example"}, 403),
        ({"Origin": "http://proxy.example"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": f"http://{HOST}"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9999"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": EVIL}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing_and_hear_nothing(headers: dict[str, str], status: int) -> None:
    client = TestClient(guarded(hosts=("proxy.example",)), base_url=f"http://{HOST}", headers=headers)
    for method in ("POST", "DELETE", "OPTIONS"):
        assert client.request(method, "/v1/patches").status_code == status
    assert client.get("/v1/patches").status_code == 200
    if status == 200:
        with client.websocket_connect(f"ws://{HOST}/") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "hello"
        return
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect(f"ws://{HOST}/"):
        pass


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST.:80", 200),
        ("[::1]:8000", 200),
        ("[0:0:0:0:0:0:0:1]", 200),
        ("proxy.example", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("evil.example#127.0.0.1", 421),
        ("[::1].evil.example", 421),
        ("127.0.0.1:8000:1", 421),
        ("", 421),
    ],
)
def test_a_local_server_answers_to_its_names_alone(host: str, status: int) -> None:
    client = TestClient(guarded(hosts=("proxy.example",)), headers={"Host": host})
    answer = client.get("/v1/datasets")
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"].startswith("this server is not called '")
        with pytest.raises(WebSocketDenialResponse), client.websocket_connect(f"ws://{HOST}/"):
            pass


def test_a_public_server_answers_to_every_name_until_it_is_told_its_own() -> None:
    keys = {"keys": {"me": hash_of(KEY)}, "host": "0.0.0.0"}
    headers = {"Host": "any.example", "X-API-Key": KEY}
    assert TestClient(guarded(**keys), headers=headers).get("/").status_code == 200
    assert TestClient(guarded(**keys, hosts=("a.example",)), headers=headers).get("/").status_code == 421


# --- sizes --------------------------------------------------------------------------------------------------


async def parts(megabytes: float) -> AsyncIterator[bytes]:
    for _ in range(int(megabytes * 16)):
        yield bytes(1 << 16)


def streamed(app: FastAPI, path: str, megabytes: float, kind: str) -> httpx.Response:
    """A request whose body comes in parts, without a length."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            return await client.post(path, content=parts(megabytes), headers={"Content-Type": kind})

    return anyio.run(send)


@pytest.mark.parametrize(
    ("path", "kind", "limit"),
    [
        ("/v1/patches", "application/json", 1),
        ("/v1/patches", "multipart/form-data; boundary=a", 1),
        ("/v1/datasets", "application/json", 1),
        ("/v1/datasets", "multipart/form-data; boundary=a", 2),
        ("/v1/models/a/score", "image/png", 2),
        ("/v1/models/a/score", "text/csv", 1),
        ("/v1/models/a/b/score", "image/png", 1),
    ],
)
def test_bodies_end_at_the_limit_whether_or_not_they_say_how_long_they_are(
    path: str, kind: str, limit: int
) -> None:
    app = guarded()
    client = TestClient(app, base_url=f"http://{HOST}")
    for length, status in ((limit << 20, 200), ((limit << 20) + 1, 413)):
        answer = client.post(path, content=bytes(length), headers={"Content-Type": kind})
        assert answer.status_code == status
    assert streamed(app, path, limit, kind).json() == limit << 20
    answer = streamed(app, path, limit + 1, kind)
    assert answer.status_code == 413
    assert answer.json()["error"].startswith(f"the body is larger than {limit} MB; send less")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "²"])
def test_lengths_that_are_none(length: str) -> None:
    headers = {"Content-Length": length.encode()}
    answer = TestClient(guarded(), base_url=f"http://{HOST}").post("/", content=b"", headers=headers)
    assert (answer.status_code, "is no number of bytes" in answer.text) == (400, True)
    headers = {"Content-Length": "9" * 30}
    assert (
        TestClient(guarded(), base_url=f"http://{HOST}").post("/", content=b"", headers=headers).status_code
        == 413
    )


def test_the_limit_holds_for_what_the_routes_read(settings: Settings) -> None:
    """The framework answers half a body in a way of its own, which does not come through."""
    app = create_app(replace(settings, limits=Limits(body_mb=1, upload_mb=1)))
    with TestClient(app, base_url=f"http://{HOST}"):
        answer = streamed(app, "/v1/datasets", 2, "application/x-www-form-urlencoded")
    assert (answer.status_code, list(answer.json())) == (413, ["error"])


# --- answers ------------------------------------------------------------------------------------------------


@pytest.fixture
def answers(server: TestClient) -> list[httpx.Response]:
    return [
        server.get("/health"),
        server.get("/v1/datasets"),
        server.get("/none"),
        server.post("/v1/datasets"),
    ]


def test_headers_that_keep_browsers_careful(answers: list[httpx.Response]) -> None:
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


def test_sockets_of_a_closed_server(server: TestClient) -> None:
    with (
        pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
        server.websocket_connect(f"ws://{HOST}/none"),
    ):
        pass
