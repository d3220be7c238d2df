"""The catalogue on SQLite, and on a PostgreSQL server where TOCSIN_PG_URL names one."""

import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_coco import draw_image, small_coco, write_coco
from sqlalchemy import Engine, create_engine, delete, event, false, text
from sqlalchemy.engine import make_url

from tocsin.data import catalog
from tocsin.data.catalog import delete_dataset, import_coco, import_yolo, list_datasets, main
from tocsin.data.catalog_database import shown_url
from tocsin.data.catalog_reader import read_catalog
from tocsin.data.coco_json import read_coco
from tocsin.data.yolo_txt import read_yolo
from tocsin.errors import ConfigError, DataError


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: a new file, or a schema of its own on the server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'catalog.db'}"
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


def written(root: Path, content: dict[str, Any] | None = None) -> tuple[Path, Path]:
    """A COCO file and the folder of its images."""
    file = write_coco(root, content or small_coco())
    return file, root / "images"


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements sent to any database meanwhile."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)


def many(n_images: int) -> dict[str, Any]:
    rng = np.random.default_rng(n_images)
    return {
        "images": [
            {"id": 5 * i + 1, "file_name": f"{i}.png", "height": 32, "width": 32} for i in range(n_images)
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": 5 * int(rng.integers(n_images)) + 1,
                "category_id": int(rng.choice([1, 18])),
                "bbox": [*rng.uniform(0, 10, 2).tolist(), *rng.uniform(1, 20, 2).tolist()],
                "iscrowd": int(rng.integers(2)),
            }
            for i in range(4 * n_images)
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    }


# --- reading what was imported ------------------------------------------------------------------------------


@pytest.mark.parametrize("category", ["person", "Dog", 18])
def test_what_comes_out_is_what_the_file_holds(url: str, tmp_path: Path, category: str | int) -> None:
    file, folder = written(tmp_path / "parts", many(30))
    assert import_coco(file, folder, url) == "parts"
    expected, found = read_coco(file).detections(category), read_catalog(url, category=category)
    assert found.paths == expected.paths
    for name in ("sizes", "boxes", "owner", "crowd"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert len(found.boxes) > 20


def test_number_of_queries_does_not_grow(url: str, tmp_path: Path) -> None:
    numbers = []
    for n_images in (3, 80):
        import_coco(*written(tmp_path / str(n_images), many(n_images)), url)
        with counted() as sent:
            assert len(read_catalog(url, dataset=str(n_images))) == n_images
        numbers.append(sum(statement.lstrip().upper().startswith(("SELECT", "PRAGMA")) for statement in sent))
        assert numbers[-1] >= 4
    assert numbers[0] == numbers[1]
    assert numbers[0] <= 8  # five of ours; a driver may ask for versions and settings when it connects


def test_data_sets_keep_apart(url: str, tmp_path: Path) -> None:
    import_coco(*written(tmp_path / "small"), url)
    import_coco(*written(tmp_path / "large", many(10)), url, name="large set")
    assert len(read_catalog(url, dataset="small")) == 3
    assert len(read_catalog(url, dataset="large set")) == 10
    rows = list_datasets(url)
    assert [(row["name"], row["images"], row["categories"], row["annotations"]) for row in rows] == [
        ("large set", 10, 2, 40),
        ("small", 3, 2, 4),
    ]
    assert rows[1]["source"] == str(tmp_path / "small" / "instances.json")
    with pytest.raises(ConfigError, match=r"holds large set, small; choose one with data.dataset=<name>"):
        read_catalog(url)


def test_import_replaces_the_data_set_of_that_name(url: str, tmp_path: Path) -> None:
    file, folder = written(tmp_path / "parts")
    other = many(4)
    for content in (small_coco(), small_coco(), other):
        file, folder = written(tmp_path / "parts", content)
        import_coco(file, folder, url)
        (row,) = list_datasets(url)
        assert row["annotations"] == len(content["annotations"])
    assert len(read_catalog(url)) == 4
    engine = create_engine(url)
    with engine.connect() as connection:  # nothing of the earlier ones is left
        for table, rows in (("images", 4), ("categories", 2), ("annotations", 16)):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == rows
    engine.dispose()


def test_import_that_fails_changes_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_coco(*written(tmp_path / "parts"), url)

    def fail(*arguments: Any) -> None:
        raise DataError("on the way")

    file, folder = written(tmp_path / "parts", many(4))
    monkeypatch.setattr(catalog, "_insert_content", fail)
    with pytest.raises(DataError, match="on the way"):
        import_coco(file, folder, url)
    assert [row["annotations"] for row in list_datasets(url)] == [4]
    assert len(read_catalog(url).boxes) == 3


def test_two_imports_of_one_name_at_a_time(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is later does not see the other's data set, but meets it when it writes its own."""
    file, folder = written(tmp_path / "parts")
    import_coco(file, folder, url)
    monkeypatch.setattr(catalog, "delete", lambda table: delete(table).where(false()))
    with pytest.raises(DataError, match="'parts' is being imported by someone else; try again"):
        import_coco(file, folder, url)


def test_delete_takes_all_of_one_data_set(url: str, tmp_path: Path) -> None:
    import_coco(*written(tmp_path / "one"), url)
    import_coco(*written(tmp_path / "two"), url)
    delete_dataset(url, "one")
    assert [row["name"] for row in list_datasets(url)] == ["two"]
    engine = create_engine(url)
    with engine.connect() as connection:
        for table, rows in (("images", 3), ("categories", 2), ("annotations", 4)):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == rows
    engine.dispose()
    with pytest.raises(ConfigError, match=r"has no data set 'twoo' \(did you mean 'two'\?\); it has two"):
        delete_dataset(url, "twoo")


@pytest.mark.parametrize("name", ["x'; DROP TABLE images; --", 'a "quoted" %s :name', "Größe"])
def test_names_are_bound_and_never_part_of_a_statement(url: str, tmp_path: Path, name: str) -> None:
    content = small_coco()
    content["categories"][0]["name"] = name
    content["images"][0]["file_name"] = f"{name}.png"
    file, folder = written(tmp_path / "parts", content)
    with counted() as sent:
        assert import_coco(file, folder, url, name=name) == name
        found = read_catalog(url, dataset=name, category=name)
        assert found.paths[0].name == f"{name}.png"
        assert len(found.boxes) == 3
        delete_dataset(url, name)
        assert list_datasets(url) == []
    assert sent
    assert not [statement for statement in sent if name in statement]


def test_category_that_is_not_there(url: str, tmp_path: Path) -> None:
    import_coco(*written(tmp_path / "parts"), url)
    with pytest.raises(
        ConfigError, match=r"data set 'parts': data.category=cat is not there; it has 1 person, 18"
    ):
        read_catalog(url, category="cat")


def test_broken_boxes_are_refused_or_left_out(url: str, tmp_path: Path) -> None:
    content = small_coco()
    content["annotations"][3]["bbox"] = [3, 4, -20, 40]
    file, folder = written(tmp_path / "parts", content)
    with pytest.raises(
        DataError, match=r"instances\.json: annotation 4 of sub/a\.png: the box is -20 x 40 pixels"
    ):
        import_coco(file, folder, url)
    import_coco(file, folder, url, skip_broken=True)
    assert len(read_catalog(url).boxes) == 2


def test_images_that_are_gone_or_elsewhere(url: str, tmp_path: Path) -> None:
    file, folder = written(tmp_path / "parts")
    import_coco(file, folder, url)
    (folder / "b.png").unlink()
    with pytest.raises(
        DataError, match=r"data set 'parts': 1 of 3 images are not in .*images: b\.png; copy them"
    ):
        read_catalog(url)
    with pytest.raises(DataError, match=r"instances\.json: 1 of 3 images are not in"):
        import_coco(file, folder, url)
    write_coco(tmp_path / "other", small_coco())
    assert read_catalog(url, folder=tmp_path / "other" / "images").paths[2].parent.parent.name == "other"


# --- folders of YOLO ----------------------------------------------------------------------------------------


def yolo(root: Path) -> Path:
    draw_image(root / "images" / "sub" / "a.png", 40, 80)
    draw_image(root / "images" / "b.png", 50, 50)
    (root / "labels" / "sub").mkdir(parents=True)
    (root / "labels" / "sub" / "a.txt").write_text("0 0.5 0.5 0.5 1.0\n3 0.1 0.1 0.1 0.1\n")
    (root / "classes.txt").write_text("person\ndog\n")
    return root


def test_folder_of_yolo_comes_out_as_it_is_read(url: str, tmp_path: Path) -> None:
    root = yolo(tmp_path / "park")
    assert import_yolo(root, url) == "park"
    assert import_yolo(root, url) == "park"  # in place of the first
    for category in ("person", 3):
        expected, found = read_yolo(root, category), read_catalog(url, category=category)
        assert found.paths == expected.paths
        for name in ("sizes", "boxes", "owner", "crowd"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert len(found.boxes) == 1
    (row,) = list_datasets(url)
    assert (row["images"], row["categories"], row["annotations"]) == (2, 3, 2)


def test_broken_box_of_yolo_changes_nothing_or_is_left_out(url: str, tmp_path: Path) -> None:
    root = yolo(tmp_path / "park")
    import_yolo(root, url)
    (root / "labels" / "b.txt").write_text("0 0.5 0.5 0 0.5\n")
    with pytest.raises(DataError, match=r"labels/b\.txt, line 1: the box is 0 x 25 pixels large"):
        import_yolo(root, url)
    assert [row["annotations"] for row in list_datasets(url)] == [2]
    import_yolo(root, url, skip_broken=True)
    assert [row["annotations"] for row in list_datasets(url)] == [2]


def test_command_for_a_folder_of_yolo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    main(["import-yolo", str(yolo(tmp_path / "park")), url, "--name", "trees"])
    assert capsys.readouterr().out.startswith("trees: 2 images, 3 categories, 2 annotations, imported 20")


# --- databases that cannot be used --------------------------------------------------------------------------


def test_database_without_tables(url: str, tmp_path: Path) -> None:
    if url.startswith("sqlite"):
        sqlite3.connect(tmp_path / "catalog.db").close()
        (tmp_path / "catalog.db").touch()
    for ask in (read_catalog, list_datasets):
        with pytest.raises(
            DataError, match="has no table annotations, categories, datasets, images, so is no cata"
        ):
            ask(url)
    with pytest.raises(
        DataError, match=r"make one with python -m tocsin.data.catalog import <instances.json>"
    ):
        delete_dataset(url, "parts")


def test_missing_file_is_not_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'no.db'}"
    for ask in (read_catalog, list_datasets):
        with pytest.raises(
            DataError, match=r"no\.db does not exist; make it with python -m tocsin\.data\.catalog"
        ):
            ask(url)
    assert not (tmp_path / "no.db").exists()
    with pytest.raises(DataError, match=r"nowhere is no folder; make it first"):
        import_coco(*written(tmp_path / "parts"), f"sqlite:///{tmp_path / 'nowhere' / 'a.db'}")


def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("this is no database, but long enough to be taken for one" * 20)
    with pytest.raises(DataError, match=r"a\.db: file is not a database"):
        read_catalog(f"sqlite:///{tmp_path / 'a.db'}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("person.db", "person.db is no URL of a database; give sqlite:///<file>"),
        ("sqlite://", "is a database in memory, gone with this process"),
        ("sqlite:///:memory:", "is a database in memory, gone with this process"),
        ("oddbase://host/db", "oddbase is no known kind of database; sqlite and postgresql"),
        ("mysql+nodriver://host/db", r"mysql\+nodriver is no known kind of database"),
        ("mysql+pymysql://host/db", "needs a driver: pip install pymysql"),
        ("postgresql://user:secret@host:port/db", "host:port/db is no URL of a database"),
    ],
)
def test_url_that_cannot_be_used(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_catalog(url)
    assert "secret" not in str(caught.value)


def test_driver_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ConfigError, match=r"me:\*\*\*@host/db: needs a driver: pip install 'psycopg\[binary\]', and begin"
    ):
        read_catalog("postgresql+psycopg://me:secret@host/db")


def test_password_is_never_shown() -> None:
    assert shown_url("postgresql+psycopg://me:secret@host/db") == "postgresql+psycopg://me:***@host/db"


# --- command line -------------------------------------------------------------------------------------------


def test_commands(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = written(tmp_path / "parts")
    main(["import", str(file), str(folder), url])
    assert capsys.readouterr().out.startswith("parts: 3 images, 2 categories, 4 annotations, imported 20")
    main(["import", str(file), str(folder), url, "--name", "again"])
    assert capsys.readouterr().out.startswith("again: 3 images")
    main(["list", url])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["again", "parts"]
    main(["delete", url, "again"])
    main(["delete", url, "parts"])
    main(["list", url])
    assert capsys.readouterr().out.splitlines() == ["deleted again", "deleted parts", "no data sets"]


def test_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["import", str(tmp_path / "no.json"), str(tmp_path), f"sqlite:///{tmp_path / 'a.db'}"])
    assert caught.value.code == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("no.json: cannot be read: No such file or directory")
    )
    assert not (tmp_path / "a.db").exists()


def test_help_of_the_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tocsin.data.catalog", "import", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "COCO file, instances.json" in done.stdout
