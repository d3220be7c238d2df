"""leaderboard.csv, leaderboard.html, and the command that writes them."""

import csv
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_sweeps import draw, write_failed, write_run

from tocsin.jobs import State
from tocsin.leaderboard import __main__ as command
from tocsin.leaderboard.board import build
from tocsin.leaderboard.files import after_sweep, write
from tocsin.leaderboard.pictures import MAX_OF_A_RUN, of_rows

HOSTILE = "<script>document.title='taken'</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, (width, seed, value) in enumerate([(16, 1, 0.5), (16, 2, 0.7), (32, 1, 0.4), (64, 1, 0.3)]):
        plots = ("signal", "confusion_matrix", "training")
        write_run(
            tmp_path / str(place), {"model.d_model": width}, seed=seed, value=value, plots=plots, job=True
        )
    write_run(tmp_path / "8", {"model.d_model": HOSTILE}, value=0.1)
    write_failed(tmp_path / "9", {"model.d_model": HOSTILE}, state=State.FAILED, error=f"no {HOSTILE}")
    return tmp_path


def test_csv_has_a_line_for_each_entry_with_all_test_metrics(folder: Path) -> None:
    path, _ = write(build([folder]), folder / "out")
    lines = list(csv.DictReader(path.open()))
    assert len(lines) == 6  # four entries, two scores without a model
    best = lines[0]
    assert (best["rank"], best["entry"], best["options"]) == ("1", "mae", "d_model=16")
    assert float(best["vus_pr_mean"]) == pytest.approx(0.6)
    assert float(best["vus_pr_sd"]) == pytest.approx(0.02**0.5)
    assert (best["seeds"], best["n_seeds"], best["n_lost"]) == ("1 2", "2", "0")
    assert best["folders"] == f"{folder / '0'};{folder / '1'}"
    assert float(best["point_f1_mean"]) == 0.25
    assert float(best["train_s"]) == 12
    assert [line["baseline"] for line in lines if line["entry"] == "random"] == ["true"]


class Page(HTMLParser):
    """Tags, addresses and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self._skip = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._skip = tag in ("script", "style")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self._skip = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._skip else data


def test_page_holds_everything_and_asks_for_nothing(folder: Path) -> None:
    _, path = write(build([folder]), folder)
    text = path.read_text()
    page = Page(text)
    outside = [address for address in page.addresses if re.match(r"https?:|//|ftp:", address)]
    assert outside == []
    assert "@import" not in text
    assert "url(" not in text
    links = [address for address in page.addresses if not address.startswith(("data:", "#"))]
    assert all((path.parent / address).is_dir() for address in links)
    assert len(set(links)) == 6  # each run and the failed job
    assert page.tags.count("img") == 1 + 3 * MAX_OF_A_RUN  # options, and three entries
    for shown in ("VUS-PR", "d_model", "0.600", "± 0.141", "1 without a result", "seed 2: 0.700"):
        assert shown in page.text


def test_text_of_runs_is_no_part_of_the_page(folder: Path) -> None:
    _, path = write(build([folder]), folder)
    text = path.read_text()
    assert Page(text).tags.count("script") == 1  # its own
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;document.title") >= 3  # option, error, configuration


def test_pictures_are_of_the_run_nearest_to_the_mean(folder: Path) -> None:
    write_run(folder / "5", {"model.d_model": 16}, seed=3, value=0.61)
    draw(folder / "5" / "plots" / "signal.png", 5)
    rows = build([folder]).tables[0].rows[:1]
    ((picture,),) = of_rows(rows)
    assert picture.name == "signal"
    assert (picture.width, picture.height) == (860, 103)  # of 1000 x 120
    (folder / "5" / "plots" / "signal.png").write_bytes(b"no picture")
    assert of_rows(rows) == [[]]


def test_files_are_written_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(build([folder]), folder)
    before = (folder / "leaderboard.csv").read_text()

    def fail(self: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    write_run(folder / "6", {"model.d_model": 99}, value=0.9)
    with pytest.raises(OSError, match="no space left"):
        write(build([folder]), folder)
    assert (folder / "leaderboard.csv").read_text() == before


def test_after_a_sweep_both_files_lie_in_its_folder(folder: Path) -> None:
    text = after_sweep(folder)
    assert "mae d_model=16" in text
    assert (folder / "leaderboard.csv").is_file()
    assert (folder / "leaderboard.html").is_file()


def test_command(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["leaderboard", str(folder), "--output", str(folder / "out"), "--top", "1"]
    )
    command.main()
    shown = capsys.readouterr().out
    assert "mae d_model=16" in shown
    assert shown.endswith(f"{folder / 'out' / 'leaderboard.csv'}\n{folder / 'out' / 'leaderboard.html'}\n")
    monkeypatch.setattr(sys, "argv", ["leaderboard", str(folder / "nowhere")])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "nowhere: there is no such folder" in capsys.readouterr().err
    (folder / "taken").write_text("a file")
    monkeypatch.setattr(sys, "argv", ["leaderboard", str(folder), "--output", str(folder / "taken")])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert f"cannot write into {folder / 'taken'}: " in capsys.readouterr().err
