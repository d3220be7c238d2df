"""Databases for tests of the service: SQLite, and PostgreSQL where TOCSIN_PG_URL names a server."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url


def database(kind: str, folder: Path) -> Iterator[str]:
    """URL of an empty database: a new file, or a schema of its own on the server."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'service.db'}"
        return
    server = os.environ.get("TOCSIN_PG_URL")
    if server is None:
        pytest.skip("TOCSIN_PG_URL names no server")
    schema = f"tocsin_{uuid.uuid4().hex}"
    engine = create_engine(server)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    own = make_url(server).update_query_dict({"options": f"-csearch_path={schema}"})
    yield own.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()
