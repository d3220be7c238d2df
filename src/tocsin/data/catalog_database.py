"""Connections to the database of a catalogue, with one clear line for all that can be wrong with its URL.

A URL is `sqlite:///<file>` or `postgresql+psycopg://<user>:<password>@<host>:<port>/<database>`, as SQLAlchemy reads
them. A password is never shown.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from tocsin.data.catalog_tables import Base
from tocsin.data.checks import listed, one_line
from tocsin.errors import ConfigError, DataError

IMPORT = "python -m tocsin.data.catalog import <instances.json> <images/>"


def shown_url(url: str) -> str:
    """The URL without its password.

    Raises:
        ConfigError: It is no URL.
    """
    return _parsed(url).render_as_string(hide_password=True)


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:  # a ValueError of a port that is no number
        raise ConfigError(
            f"{url.split('@')[-1]} is no URL of a database; give sqlite:///<file> or "
            "postgresql+psycopg://<user>:<password>@<host>/<database>"
        ) from error


def make_engine(url: str, **options: Any) -> Engine:
    """An engine that keeps to foreign keys, connected to nothing yet.

    Args:
        url: Of the database.
        options: Of `sqlalchemy.create_engine`.

    Raises:
        ConfigError: The URL is none that can be used.
    """
    parsed = _parsed(url)
    try:
        engine = create_engine(parsed, **options)
    except NoSuchModuleError as error:
        raise ConfigError(
            f"{shown_url(url)}: {parsed.drivername} is no known kind of database; sqlite and postgresql+psycopg are"
        ) from error
    except ImportError as error:  # of the driver
        fix = f"pip install {error.name}"
        if parsed.get_backend_name() == "postgresql":
            fix = "pip install 'psycopg[binary]', and begin the URL with postgresql+psycopg://"
        raise ConfigError(f"{shown_url(url)}: needs a driver: {fix}") from error
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _enforce_foreign_keys)
    return engine


def _enforce_foreign_keys(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def connected(url: str, *, new: bool = False) -> Iterator[Connection]:
    """A connection whose changes are kept if nothing fails, and taken back else.

    Args:
        url: Of the database.
        new: Whether a file of SQLite may be made.

    Raises:
        ConfigError: The URL is none that can be used.
        DataError: The file is missing, or the database refuses what is asked of it.
    """
    engine, shown = make_engine(url, poolclass=NullPool), shown_url(url)
    check_file(engine, new=new)
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        raise DataError(f"{shown}: {one_line(error.orig or error)}") from error
    finally:
        engine.dispose()


def check_file(engine: Engine, *, new: bool) -> None:
    """Check that a file of SQLite is there, or can be made; by itself SQLite would make an empty one.

    Args:
        engine: Of any database.
        new: Whether the file may be made.

    Raises:
        ConfigError: The database would be in memory.
        DataError: The file is missing, or its folder.
    """
    if engine.dialect.name != "sqlite":
        return
    database, shown = engine.url.database, engine.url.render_as_string(hide_password=True)
    if not database or database == ":memory:":
        raise ConfigError(f"{shown}: is a database in memory, gone with this process; give sqlite:///<file>")
    file = Path(database)
    if new and not file.absolute().parent.is_dir():
        raise DataError(f"{shown}: {file.parent} is no folder; make it first")
    if not new and not file.is_file():
        raise DataError(f"{shown}: {file} does not exist; make it with {IMPORT} {shown}")


def check_tables(connection: Connection, shown: str) -> None:
    """Check, with one query, that a database has the tables of a catalogue.

    Raises:
        DataError: It lacks one.
    """
    missing = sorted(Base.metadata.tables.keys() - set(inspect(connection).get_table_names()))
    if missing:
        raise DataError(
            f"{shown}: has no table {listed(missing)}, so is no catalogue; make one with {IMPORT} {shown}"
        )
