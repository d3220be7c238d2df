"""Checkpoints that are missing, damaged, hostile or foreign, and writing that is all or nothing."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from tocsin.checkpoints import REQUIRED, find_last, read_checkpoint, replace_with_copy, write_checkpoint
from tocsin.errors import TocsinError


def checkpoint() -> dict[str, object]:
    return {
        "state_dict": {"weight": torch.arange(3.0)},
        "stage": {"index": 0},
        "config": {"seed": 1},
        "choices": {"model": "pca"},
        "dims": {"window": 10},
        "data": {"scaler": {"center": [0.5]}},
    }


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_round_trip(tmp_path: Path) -> None:
    write_checkpoint(checkpoint(), tmp_path / "a.ckpt")
    read = read_checkpoint(str(tmp_path / "a.ckpt"))
    assert torch.equal(read.pop("state_dict")["weight"], torch.arange(3.0))
    expected = checkpoint()
    del expected["state_dict"]
    assert read == expected


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TocsinError, match=r"none\.ckpt: there is no such file; checkpoints lie in <run>"):
        read_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"PK\x03\x04 half a zip", bytes(100), b"\x80\x02}q\x00."]
)
def test_garbage_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.ckpt"
    path.write_bytes(content)
    with pytest.raises(
        TocsinError, match=r"garbage\.ckpt (is not a readable checkpoint|was not written by)"
    ) as found:
        read_checkpoint(path)
    assert "\n" not in str(found.value)


def test_half_a_checkpoint_is_refused(tmp_path: Path) -> None:
    write_checkpoint(checkpoint(), tmp_path / "a.ckpt")
    content = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(TocsinError, match=r"half\.ckpt is not a readable checkpoint"):
        read_checkpoint(tmp_path / "half.ckpt")


@pytest.mark.parametrize("by_torch", [True, False])
def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, by_torch: bool) -> None:
    trap = tmp_path / "trap"
    content = {**checkpoint(), "config": Hostile(trap)}
    path = tmp_path / "hostile.ckpt"
    if by_torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(
        TocsinError, match=r"hostile\.ckpt is not a readable checkpoint of plain data"
    ) as found:
        read_checkpoint(path)
    assert "\n" not in str(found.value)
    assert "weights_only" not in str(found.value)  # torch's advice is to load it all the same
    assert not trap.exists()


def test_foreign_contents_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "foreign.ckpt")
    with pytest.raises(
        TocsinError, match=r"was not written by train\.py: it has no stage, config, choices, dims, data"
    ):
        read_checkpoint(tmp_path / "foreign.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(TocsinError, match=f"it has no {', '.join(REQUIRED)}"):
        read_checkpoint(tmp_path / "list.ckpt")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint(checkpoint(), path)
    before = path.read_bytes()

    def half(obj: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(checkpoint(), path)
    assert path.read_bytes() == before


def test_write_leaves_no_other_file(tmp_path: Path) -> None:
    write_checkpoint(checkpoint(), tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(b"old")
    replace_with_copy(tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    assert (tmp_path / "b.ckpt").read_bytes() == (tmp_path / "a.ckpt").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "b.ckpt"]


def test_last_checkpoint_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(
        TocsinError, match=r"ckpt_path=last: .*last\.ckpt does not exist; start the run without"
    ):
        find_last(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert find_last(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"
