"""Files of a job while it runs: lines are read once, whole, and none is lost when the file is cut."""

import json
from pathlib import Path

from tocsin.service.patch_files import (
    Follower,
    checkpoint_time,
    kept_overrides,
    last_line,
    picture_of_patch,
    pictures_of,
    report_of,
)


def line(number: int) -> str:
    return json.dumps({"iteration": number}) + "\n"


def numbers(follower: Follower) -> list[int]:
    found = []
    while more := [number for number, _ in follower.more()]:
        found += more
    return found


def test_follower_reads_each_line_once_and_whole(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    assert numbers(follower) == []
    assert follower.at_end
    file = tmp_path / "progress.jsonl"
    file.write_text(line(1) + line(2) + line(3)[:-4])
    assert numbers(follower) == [1, 2]
    file.write_text(line(1) + line(2) + line(3))
    assert not follower.at_end
    assert numbers(follower) == [3]
    assert follower.at_end


def test_follower_goes_on_after_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text("".join(map(line, range(1, 6))))
    assert numbers(Follower(tmp_path, after=3)) == [4, 5]


def test_follower_survives_a_cut(tmp_path: Path) -> None:
    file, other = tmp_path / "progress.jsonl", tmp_path / "other"
    follower = Follower(tmp_path)
    file.write_text("".join(map(line, range(1, 6))))
    assert numbers(follower) == [1, 2, 3, 4, 5]
    other.write_text("".join(map(line, range(1, 4))))
    other.replace(file)
    assert numbers(follower) == []
    with file.open("a") as grown:
        grown.write("".join(map(line, range(4, 8))))
    assert numbers(follower) == [6, 7]


def test_long_file_is_read_in_parts(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text("".join(map(line, range(1, 20_001))))
    follower = Follower(tmp_path)
    first = list(follower.more())
    assert len(first) < 5000
    assert len(first) + len(numbers(follower)) == 20_000


def test_last_line_is_the_last_whole_one(tmp_path: Path) -> None:
    assert last_line(tmp_path) is None
    file = tmp_path / "progress.jsonl"
    file.write_text('{"iter')
    assert last_line(tmp_path) is None
    file.write_text("".join(map(line, range(1, 9000))) + '{"iter')
    assert last_line(tmp_path) == {"iteration": 8999}


def test_overrides_of_the_first_start_are_kept_without_what_belongs_to_it_alone(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(
        "- data.root=${oc.env:X}\n- ++data.steps_per_epoch=50\n- ckpt_path=null\n- trainer=cpu\n- seed=1\n"
    )
    assert kept_overrides(tmp_path) is None  # nothing to go on from
    assert checkpoint_time(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_text("")
    assert kept_overrides(tmp_path) == ["data.root=${oc.env:X}", "++data.steps_per_epoch=50", "seed=1"]
    assert checkpoint_time(tmp_path) is not None


def test_finished_patch_takes_the_place_of_the_growing_one(tmp_path: Path) -> None:
    assert picture_of_patch(tmp_path) is None
    (tmp_path / "patch_now.png").write_bytes(b"now")
    assert picture_of_patch(tmp_path) == b"now"
    (tmp_path / "patch.png").write_bytes(b"done")
    assert picture_of_patch(tmp_path) == b"done"


def test_report_leaves_out_what_only_concerns_the_machine(tmp_path: Path) -> None:
    assert report_of(tmp_path) is None
    metrics = {"run": {"seed": 1, "git": "abc", "overrides": ["model.victim=/secret"]}, "test": {"ap50": 0.5}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "plots").mkdir()
    for name in ("b.png", "a.png", "notes.txt"):
        (tmp_path / "plots" / name).write_text("")
    expected = {"metrics": {"run": {"seed": 1}, "test": {"ap50": 0.5}}, "pictures": ["a.png", "b.png"]}
    assert report_of(tmp_path) == expected
    assert pictures_of(tmp_path) == ["a.png", "b.png"]
