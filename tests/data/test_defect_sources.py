"""Where images of defects come from: folders, tables, drawn castings, a trained run; and what is wrong with them."""

import io
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from test_defects import ready, table
from test_folder import draw

from tocsin.data.defects import Defects
from tocsin.errors import ConfigError, DataError


@pytest.fixture
def two(tmp_path: Path) -> Path:
    draw(tmp_path / "ok", 9, value=50)
    draw(tmp_path / "dent", 9, value=200)
    return tmp_path


# --- tables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            "file,label",
            ["ok/000.png,ok"],
            r"images\.csv: has no column 'path'.*path,label\[,group\], there are file, lab",
        ),
        ("path,lable", ["ok/000.png,ok"], r"no column 'label' \(did you mean 'lable'\?\)"),
        ("path,label", ["ok/000.png,ok", "ok/001.png,"], r"column 'label' is empty in row 1 \(from 0\)"),
        ("path,label", ["ok/000.png,ok", ",ok"], r"column 'path' is empty in row 1"),
        ("path,label,group", ["ok/000.png,ok,"], r"column 'group' is empty in row 0"),
        (
            "path,label",
            ["ok/000.png,ok", "ok/999.png,ok"],
            r"row 1 \(from 0\) names .*ok/999\.png, which is no file",
        ),
        ("path,label", ["ok/000.png,ok", "ok/000.png,dent"], r"row 1 \(from 0\) names .*ok/000\.png again"),
        ("path,label", [], r"images\.csv: holds no row"),
        ("path,label", ['ok/000.png,"ok'], r"images\.csv: is no CSV file"),
        (
            "path,label",
            [*(f"ok/{n:03}.png,ok" for n in range(9)), "dent/000.png,dnet"],
            r"class 'dnet' has 1 image; 3 are needed",
        ),
    ],
)
def test_error_in_a_table_is_named(two: Path, header: str, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as found:
        ready(table(two, *rows, header=header))
    assert "\n" not in str(found.value)


def test_table_may_name_files_by_full_path_and_more_columns(two: Path) -> None:
    rows = [f"{two / name}/{n:03}.png,{n},{name}" for name in ("ok", "dent") for n in range(9)]
    module = ready(table(two, *rows, header="path,camera,label"))
    assert module.classes == ("dent", "ok")
    assert module.source.endswith("/images")


# --- folders ------------------------------------------------------------------------------------------------


def test_root_that_holds_no_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*nowhere is neither a folder nor a CSV file"):
        ready(tmp_path / "nowhere")
    draw(tmp_path / "ok", 3)
    draw(tmp_path, 2)
    with pytest.raises(
        DataError, match=r"two or more, but there are ok and 2 images beside them; set data\.root"
    ):
        ready(tmp_path)
    (tmp_path / "bad").mkdir()
    with pytest.raises(DataError, match="bad: holds no image"):
        ready(tmp_path)


def test_class_of_one_image(two: Path) -> None:
    draw(two / "crack", 1)
    with pytest.raises(DataError, match=r"class 'crack' has 1 image; 3 are needed.*leave the class out"):
        ready(two)


def test_several_classes_without_defects_or_a_wrong_name(two: Path) -> None:
    draw(two / "good", 3)
    with pytest.raises(
        ConfigError, match=r"several classes are called like sound parts: good, ok; .*data\.ok_class"
    ):
        ready(two)
    with pytest.raises(
        ConfigError, match=r"data\.ok_class=okk: there is no such class \(did you mean 'ok'\?\)"
    ):
        ready(two, ok_class="okk")


def test_corrupt_images_are_listed_and_left_out_on_request(
    two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (two / "ok/003.png").write_bytes(b"no image")
    (two / "dent/007.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"dent/007\.png: is empty.*2 such files: 007\.png, 003\.png.*data\.skip_corrupt"
    ):
        ready(two)
    with caplog.at_level(logging.WARNING):
        module = ready(two, skip_corrupt=True)
    assert sum(map(len, module.parts.values())) == 16
    assert "2 images are left out" in caplog.text
    assert "ok/003.png: is damaged" in caplog.text
    assert not any(
        path.name == "003.png" and path.parent.name == "ok" for p in module.parts.values() for path in p.paths
    )


def test_gray_colour_and_deep_images_together(two: Path) -> None:
    rng = np.random.default_rng(0)
    assert cv2.imwrite(str(two / "ok/deep.png"), rng.integers(0, 65536, (9, 31), dtype=np.uint16))
    assert cv2.imwrite(str(two / "ok/colour.png"), rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    tifffile.imwrite(two / "dent/float.tiff", rng.random((11, 7)).astype(np.float32))
    kept, read = (list(ready(two, cache=cache, batch_size=4).train_dataloader()) for cache in (True, False))
    for one, other in zip(kept, read, strict=True):
        assert one.image.shape == (4, 3, 8, 12)
        assert one.image.dtype == torch.float32
        assert 0 <= one.image.min() <= one.image.max() <= 1
        assert torch.equal(one.image, other.image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.0}, "data.val_fraction=0.0 is not between 0 and 1"),
        ({"test_fraction": 1.0}, "data.test_fraction=1.0 is not between 0 and 1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to learn from"),
        ({"phash_distance": 65}, "data.phash_distance=65 is not in 0 to 64"),
        ({"duplicate_correlation": 0.0}, r"data.duplicate_correlation=0.0 is not in \(0, 1\]"),
        ({"effective_beta": 1.0}, "data.effective_beta=1.0 is not between 0 and 1"),
        ({"augment": ["light"]}, r"data.augment\[0\]=light is no transform"),
        ({"n_ok": 0, "root": None}, "data=defects: n_ok=0 is not a positive number"),
    ],
)
def test_bad_options_are_named(two: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        ready(**{"root": two, **options})


# --- the drawn set and a trained run ------------------------------------------------------------------------


def test_castings_are_drawn_kept_and_grouped(tmp_path: Path) -> None:
    options = {"n_defective": 24, "n_ok": 16, "cache_dir": tmp_path, "height": 32, "width": 32}
    module = ready(None, **options)
    summary = module.summary()
    assert summary["source"] == "castings"
    assert {name: sum(counts.values()) for name, counts in summary["classes"].items()} == {
        "defective": 24,
        "ok": 16,
    }
    assert summary["ok_class"] == "ok"
    assert summary["groups"] < 40
    groups = [set(images.groups.tolist()) for images in module.parts.values()]
    assert sum(map(len, groups)) == len(set.union(*groups))
    (folder,) = tmp_path.iterdir()
    before = folder.stat().st_mtime_ns
    again = ready(None, **options)
    assert folder.stat().st_mtime_ns == before
    assert again.summary()["fingerprint"] == summary["fingerprint"]
    assert ready(None, **{**options, "cache_dir": None}).summary()["fingerprint"] == summary["fingerprint"]


def restored(state: dict[str, Any], root: Path) -> Defects:
    """A fresh object with what a checkpoint holds."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    module = Defects(root=root)
    module.restore(torch.load(buffer, weights_only=True))
    module.setup()
    return module


def test_trained_classes_keep_their_places_on_new_data(
    two: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    draw(two / "crack", 4)
    state = ready(two, resize="nearest").scoring_state()
    new = tmp_path_factory.mktemp("new")
    draw(new / "ok", 4)
    draw(new / "dent", 4)
    module = restored(state, new)
    assert module.classes == ("crack", "dent", "ok")
    assert set(module.labels(module.ready.train).tolist()) == {1, 2}
    assert module.dims()["n_classes"] == 3
    assert module.reader.resize == "nearest"
    assert module.reader.size == (8, 12)
    draw(new / "scratch", 4)
    with pytest.raises(
        DataError, match=r"does not know the class scratch; it knows crack, dent, ok: rename it"
    ):
        restored(state, new)
