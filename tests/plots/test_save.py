import pytest
from matplotlib.image import imread

from tocsin.plots.save import DPI, save
from tocsin.plots.style import new_figure


def test_save_writes_a_white_picture_of_the_right_size_and_nothing_else(tmp_path):
    path = save(new_figure(4, 2), tmp_path / "plots" / "a.png")
    picture = imread(path)
    assert picture.shape[:2] == (2 * DPI, 4 * DPI)
    assert (picture == 1).all()
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_older_file_whole_and_no_leavings(tmp_path, monkeypatch):
    path = save(new_figure(2, 2), tmp_path / "a.png")
    before = path.read_bytes()
    figure = new_figure(4, 4, "new")

    def fail(file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_refused_with_what_is_possible(tmp_path):
    with pytest.raises(ValueError, match=r"cannot write a figure to 'a.gif2': .*png"):
        save(new_figure(1, 1), tmp_path / "a.gif2")
