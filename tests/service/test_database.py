"""The database of the service: tables as the code knows them, catalogues taken over, servers that start at once."""

import multiprocessing
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from databases import database
from sqlalchemy import MetaData, inspect, text
from uploads import coco_files

from tocsin.data.catalog import import_coco, list_datasets
from tocsin.data.catalog_tables import Base
from tocsin.errors import ConfigError, DataError
from tocsin.service.database import database_engine, open_database
from tocsin.service.job_table import JobBase


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from database(request.param, tmp_path)


def both() -> MetaData:
    """All tables of the code."""
    metadata = MetaData()
    for base in (Base, JobBase):
        for table in base.metadata.tables.values():
            table.to_metadata(metadata)
    return metadata


def written(folder: Path) -> tuple[Path, Path]:
    for name, content in coco_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "instances.json", folder / "images"


def differences(url: str) -> list[object]:
    engine = database_engine(url)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), both())
    engine.dispose()
    return found


def test_tables_are_those_of_the_code(url: str) -> None:
    open_database(url).dispose()
    assert differences(url) == []
    open_database(url).dispose()  # nothing is left to do


def test_a_catalogue_is_taken_over_and_goes_on(url: str, tmp_path: Path) -> None:
    import_coco(*written(tmp_path / "street"), url)
    open_database(url).dispose()
    assert differences(url) == []
    assert [(row["name"], row["annotations"]) for row in list_datasets(url)] == [("street", 2)]
    import_coco(*written(tmp_path / "park"), url)
    assert [row["name"] for row in list_datasets(url)] == ["park", "street"]


def _open(url: str) -> None:
    open_database(url).dispose()


def test_servers_that_start_at_once(url: str) -> None:
    """Each finds either no table or all of them."""
    context = multiprocessing.get_context("fork")
    servers = [context.Process(target=_open, args=(url,)) for _ in range(6)]
    for server in servers:
        server.start()
    for server in servers:
        server.join(60)
    assert [server.exitcode for server in servers] == [0] * 6
    assert differences(url) == []


def test_a_migration_that_fails_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = database_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE patch_jobs (number INTEGER)"))  # of someone else
    with pytest.raises(DataError, match="patch_jobs"):
        open_database(url)
    assert inspect(engine).get_table_names() == ["patch_jobs"]
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE patch_jobs"))
    engine.dispose()
    open_database(url).dispose()
    assert differences(url) == []


def test_readers_do_not_wait_for_a_writer_and_writers_wait_for_each_other(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as writer, engine.connect() as reader:
        writer.execute(text("INSERT INTO datasets VALUES (1, 'a', 'b', 'c', '2026-01-01')"))
        assert reader.execute(text("SELECT count(*) FROM datasets")).scalar_one() == 0
        assert reader.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert reader.execute(text("PRAGMA busy_timeout")).scalar_one() == 30_000
        assert reader.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    engine.dispose()


def test_databases_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("this is no database, but long enough to be taken for one" * 20)
    with pytest.raises(DataError, match=r"a\.db: file is not a database"):
        open_database(f"sqlite:///{tmp_path / 'a.db'}")
    with pytest.raises(DataError, match="is no folder; make it first"):
        open_database(f"sqlite:///{tmp_path / 'no' / 'a.db'}")
    with pytest.raises(ConfigError, match="is a database in memory"):
        open_database("sqlite://")
    with pytest.raises(ConfigError, match="is no URL of a database"):
        open_database("nonsense")
    sqlite3.connect(tmp_path / "b.db").close()
    open_database(f"sqlite:///{tmp_path / 'b.db'}").dispose()  # an empty file is fine
