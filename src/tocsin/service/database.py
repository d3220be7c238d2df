"""The database of the service: the catalogue and the jobs, brought up to date at start by Alembic.

SQLite lets readers read while one writes (write-ahead log), and writers wait for each other. Migrations happen under
a lock of the database, so that of several servers that start at once one makes the tables and the others find them.
"""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from tocsin.data.catalog_database import check_file, make_engine
from tocsin.data.checks import one_line
from tocsin.errors import DataError

WAIT_S = 30  # for another who writes
CONNECTIONS = 50  # a little more than the threads that answer requests
LOCK = 0x70C51  # of PostgreSQL, for migrations


def open_database(url: str) -> Engine:
    """Connect to a database, and bring its tables up to date.

    Args:
        url: Of SQLite, whose file is made where it is missing, or of PostgreSQL. A catalogue is taken over.

    Raises:
        ConfigError: The URL is none that can be used.
        DataError: The database cannot be reached, or refuses.
    """
    engine = database_engine(url)
    check_file(engine, new=True)
    try:
        _migrate(engine)
    except DBAPIError as error:
        engine.dispose()
        shown = engine.url.render_as_string(hide_password=True)
        raise DataError(f"{shown}: {one_line(error.orig or error)}") from error
    return engine


def database_engine(url: str) -> Engine:
    """An engine for a database that `open_database` has prepared, as workers need one of their own.

    Raises:
        ConfigError: The URL is none that can be used.
    """
    sqlite = url.startswith("sqlite")
    options = {"connect_args": {"timeout": WAIT_S}} if sqlite else {"pool_pre_ping": True}
    engine = make_engine(url, poolclass=QueuePool, pool_size=5, max_overflow=CONNECTIONS - 5, **options)
    if sqlite:
        event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
