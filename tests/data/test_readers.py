import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tocsin.data.readers import join_series, read_folder, read_series, read_train_and_test
from tocsin.errors import DataError, TocsinError

STAMPS = ["2026-01-01 00:00", "2026-01-01 00:01", "2026-01-01 00:02"]


def csv(folder, text, name="a.csv"):
    path = folder / name
    path.write_text(text)
    return path


def refuses(match, call, *args, **options):
    with pytest.raises(DataError, match=match) as caught:
        call(*args, **options)
    assert isinstance(caught.value, TocsinError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def frame(**columns):
    return pd.DataFrame({"timestamp": STAMPS, "a": [1.0, np.nan, 3.0], "b": [4, 5, 6]} | columns)


class TestTables:
    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_reads_time_labels_and_channels(self, tmp_path, suffix):
        path = tmp_path / f"pump.{suffix}"
        table = frame(label=[0, 1, 0])
        table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)

        series = read_series(path, label_column="label")

        np.testing.assert_array_equal(series.values, np.float32([[1, 4], [np.nan, 5], [3, 6]]))
        assert series.values.dtype == np.float32
        assert series.channel_names == ("a", "b")
        assert series.names == ("pump",)
        assert series.labels.tolist() == [False, True, False]
        assert series.timestamps.tolist() == pd.to_datetime(STAMPS).to_numpy("datetime64[us]").tolist()

    def test_channels_are_taken_in_the_order_asked(self, tmp_path):
        series = read_series(csv(tmp_path, "a,b,c\n1,2,3\n4,5,6\n"), channels=["c", "a"])
        assert series.channel_names == ("c", "a")
        assert series.values.tolist() == [[3, 1], [6, 4]]
        assert series.labels is None
        assert series.timestamps is None

    def test_numeric_timestamps_are_kept_as_numbers(self, tmp_path):
        series = read_series(csv(tmp_path, "t,a\n10,1\n30,2\n"), timestamp_column="t")
        assert series.timestamps.tolist() == [10, 30]

    def test_timestamps_across_a_summer_time_change_rise(self, tmp_path):
        text = "time,a\n2026-03-29T01:59:00+01:00,1\n2026-03-29T03:00:00+02:00,2\n"
        gap = np.diff(read_series(csv(tmp_path, text)).timestamps)
        assert gap.tolist() == [np.timedelta64(60, "s")]

    def test_saved_row_index_is_left_out_and_saved_date_index_is_time(self, tmp_path):
        table = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
        table.to_csv(tmp_path / "rows.csv")
        table.set_index(pd.to_datetime(STAMPS)).to_csv(tmp_path / "dates.csv")
        table.set_index(pd.to_datetime(STAMPS)).to_parquet(tmp_path / "dates.parquet")

        assert read_series(tmp_path / "rows.csv").channel_names == ("a",)
        for name in ("dates.csv", "dates.parquet"):
            series = read_series(tmp_path / name)
            assert series.channel_names == ("a",)
            assert series.timestamps[1] == np.datetime64("2026-01-01T00:01")

    def test_empty_timestamp_option_goes_by_the_order_of_rows(self, tmp_path):
        path = csv(tmp_path, "time,a\n2026-01-02,1\n2026-01-01,2\n")
        series = read_series(path, timestamp_column="")
        assert series.values.tolist() == [[1], [2]]
        assert series.timestamps is None

    def test_boolean_labels_and_nullable_integers(self, tmp_path):
        path = tmp_path / "a.parquet"
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "y": [True, False]}).to_parquet(path)
        series = read_series(path, label_column="y")
        assert series.labels.tolist() == [True, False]
        np.testing.assert_array_equal(series.values, [[1], [np.nan]])

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", r"a\.csv: is empty"),
            ("a,b\n", r"has no rows below its header \(2 columns\)"),
            ("a,b\n1,2\n3,x\n", r"column 'b' is not numeric: row 1 \(from 0\) holds 'x'"),
            ("a,b\n1,2\n3,inf\n", r"column 'b' is infinite \(or beyond float32\) in row 1"),
            ("a,b\n1,2\n3,1e39\n", r"column 'b' is infinite \(or beyond float32\) in row 1"),
            ("a,b\n1,2\n3,4,5\n", r"cannot be read as CSV: .*line 3"),
            ("a,b\n1,2,3\n3,4,5\n", r"more fields than the header"),
            ("a;b\n1;2\n", r"columns are separated by ';'"),
            ("0.5,1.25\n0.5,1.5\n", r"the first line holds numbers, not column names"),
            ("time,a\n2026-01-02,1\n2026-01-01,2\n", r"'time' in row 1 \(from 0\), .* is earlier than row 0"),
            ("time,a\n2026-01-02,1\n2026-01-02,2\n", r"'time' in row 1 \(from 0\), .* repeats row 0"),
            ("time,a\n2026-01-02,1\nsoon,2\n", r"'time' cannot be read in row 1 \(from 0\), 'soon'"),
            ("time,a\n2026-01-02,1\n,2\n", r"timestamp column 'time' is empty in row 1"),
            (
                "timestamp,a\n1,1\n2,2\n",
                r"'timestamp' would become a channel, an ever-rising one; set data\.timestamp_column",
            ),
            ("ds\n2026-01-02\n", r"no column is left for channels"),
            ("when,a\n2026-01-02,1\n", r"column 'when' is not numeric: row 0"),
            (",a\n5,1\n7,2\n", r"the first column has no name"),
        ],
    )
    def test_faulty_text_is_refused(self, tmp_path, text, match):
        refuses(match, read_series, csv(tmp_path, text))

    @pytest.mark.parametrize("name", ["label", "is_anomaly", "Anomaly"])
    def test_a_label_left_among_the_channels_is_refused(self, tmp_path, name):
        path = csv(tmp_path, f"a,{name}\n1,0\n2,1\n")
        refuses(
            f"'{name}' would become a channel, and give the answer away.*data.label_column={name}",
            read_series,
            path,
        )
        assert read_series(path, channels=["a"]).channel_names == ("a",)

    @pytest.mark.parametrize(
        ("cell", "match"),
        [("2", "row 1 .* holds 2"), ("", "row 1 .* is empty"), ("bad", "row 1 .* holds bad")],
    )
    def test_faulty_labels_are_refused(self, tmp_path, cell, match):
        path = csv(tmp_path, f"a,y\n1,0\n2,{cell}\n")
        refuses(f"label column 'y' must hold 0 .*{match}", read_series, path, label_column="y")

    def test_a_comma_at_the_end_of_every_row_shifts_nothing(self, tmp_path):
        assert read_series(csv(tmp_path, "a,b\n1,2,\n3,4,\n")).values.tolist() == [[1, 2], [3, 4]]

    def test_labels_may_be_words(self, tmp_path):
        path = csv(tmp_path, "a,y\n1,False\n2,true\n3, 1\n")
        assert read_series(path, label_column="y").labels.tolist() == [False, True, True]

    def test_unknown_names_come_with_the_nearest(self, tmp_path):
        path = csv(tmp_path, "flow,pressure\n1,2\n")
        refuses(
            r"data.channels asks for 'presure'.*did you mean 'pressure'.*flow, pressure",
            read_series,
            path,
            channels=["presure"],
        )
        refuses("data.label_column asks for 'label'", read_series, path, label_column="label")
        refuses("data.timestamp_column asks for 'Flow'.*'flow'", read_series, path, timestamp_column="Flow")
        refuses("data.channels lists 'flow' twice", read_series, path, channels=["flow", "flow"])
        refuses("data.channels is an empty list", read_series, path, channels=[])

    def test_other_faulty_files_are_refused(self, tmp_path):
        (tmp_path / "latin.csv").write_bytes("température\n1\n".encode("latin-1"))
        (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
        pd.DataFrame({"a": [1.0], "when": pd.to_datetime(["2026-01-01"])}).to_parquet(tmp_path / "t.parquet")
        refuses("not UTF-8 text", read_series, tmp_path / "latin.csv")
        refuses("cannot be read as Parquet", read_series, tmp_path / "bad.parquet")
        refuses("column 'when' is not numeric", read_series, tmp_path / "t.parquet")


class TestArrays:
    def test_npy_stays_a_memory_map(self, tmp_path):
        values = np.arange(12, dtype=np.float32).reshape(6, 2)
        np.save(tmp_path / "a.npy", values)
        series = read_series(tmp_path / "a.npy")
        assert isinstance(series.values, np.memmap)
        assert series.channel_names == ("channel_0", "channel_1")
        np.testing.assert_array_equal(series.values, values)

    def test_npy_of_one_dimension_is_one_channel(self, tmp_path):
        np.save(tmp_path / "a.npy", np.arange(5, dtype=np.float32))
        series = read_series(tmp_path / "a.npy")
        assert series.values.shape == (5, 1)
        assert isinstance(series.values, np.memmap)

    def test_other_dtypes_become_float32(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([[1, 2], [3, 4]], dtype=">i4"))
        series = read_series(tmp_path / "a.npy", channels=["channel_1"])
        assert series.values.dtype == np.float32
        assert series.values.tolist() == [[2], [4]]

    def test_npz_with_values_and_label_or_one_array(self, tmp_path):
        np.savez(tmp_path / "a.npz", values=np.ones((3, 2)), label=np.uint8([0, 1, 1]), t=np.arange(3))
        np.savez(tmp_path / "b.npz", anything=np.ones((3, 2)))
        series = read_series(tmp_path / "a.npz", timestamp_column="t")
        assert series.labels.tolist() == [False, True, True]
        assert series.timestamps.tolist() == [0, 1, 2]
        assert read_series(tmp_path / "b.npz").labels is None

    @pytest.mark.parametrize(
        ("array", "match"),
        [
            (np.array([{}, 1], dtype=object), "cannot be read"),
            (np.array(["a", "b"]), "holds <U1, not numbers"),
            (np.ones((2, 2, 2)), r"has shape \(2, 2, 2\)"),
            (np.ones((0, 3)), r"is empty, with shape \(0, 3\)"),
            (np.array([[1.0, 2.0], [3.0, -np.inf]]), "'channel_1' is infinite .* in row 1"),
            (np.array([1.0, 1e39]), "'channel_0' is infinite .* in row 1"),
        ],
    )
    @pytest.mark.parametrize("suffix", ["npy", "npz"])
    def test_faulty_arrays_are_refused(self, tmp_path, array, match, suffix):
        path = tmp_path / f"a.{suffix}"
        np.save(path, array) if suffix == "npy" else np.savez(path, values=array)
        refuses(match, read_series, path)

    @pytest.mark.parametrize(
        ("arrays", "options", "match"),
        [
            ({"x": np.ones(3), "z": np.ones(3)}, {}, "cannot tell which array is the series among x, z"),
            ({"train": np.ones(3), "test": np.ones(3)}, {}, "holds 'train' and 'test'; give it alone"),
            ({}, {}, "holds no arrays"),
            ({"values": np.ones(3), "label": np.ones(2)}, {}, r"'label' has shape \(2,\), .* 3 steps"),
            ({"values": np.ones(3), "y": [1, 0, -1]}, {"label_column": "y"}, "'y' .* row 2 .* holds -1"),
            ({"values": np.ones(3)}, {"label_column": "y"}, "data.label_column asks for 'y'"),
        ],
    )
    def test_faulty_archives_are_refused(self, tmp_path, arrays, options, match):
        np.savez(tmp_path / "a.npz", **arrays)
        refuses(match, read_series, tmp_path / "a.npz", **options)

    def test_damaged_files_are_refused(self, tmp_path):
        np.save(tmp_path / "whole.npy", np.ones((100, 3), dtype=np.float32))
        whole = (tmp_path / "whole.npy").read_bytes()
        (tmp_path / "cut.npy").write_bytes(whole[:-100])
        (tmp_path / "none.npy").write_bytes(b"")
        (tmp_path / "text.npz").write_text("not a zip")
        (tmp_path / "array.npz").write_bytes(whole)
        for name in ("cut.npy", "none.npy"):
            refuses("cannot be read as NPY", read_series, tmp_path / name)
        refuses("is not a readable NPZ", read_series, tmp_path / "text.npz")
        refuses(r"rename it to array\.npy", read_series, tmp_path / "array.npz")
        refuses(
            "no named columns for data.label_column", read_series, tmp_path / "whole.npy", label_column="y"
        )


class TestPaths:
    def test_missing_files_come_with_the_nearest(self, tmp_path):
        csv(tmp_path, "a\n1\n", "machine-1-1.csv")
        refuses(r"did you mean 'machine-1-1\.csv'", read_series, tmp_path / "machine_1_1.csv")
        refuses("neither is its folder", read_series, tmp_path / "nowhere" / "a.csv")

    def test_unknown_suffix_lists_what_is_supported(self, tmp_path):
        refuses(r"'\.txt' files.*\.csv, \.parquet, \.npy, \.npz", read_series, csv(tmp_path, "1", "a.txt"))

    def test_folder_is_laid_end_to_end_by_name(self, tmp_path):
        csv(tmp_path, "b,a,y\n4,3,1\n", "two.csv")
        csv(tmp_path, "a,b,y\n1,2,0\n5,6,0\n", "one.csv")
        csv(tmp_path, "not data", "README.md")
        series = read_folder(tmp_path, label_column="y")
        assert series.names == ("one", "two")
        assert series.lengths == (2, 1)
        assert series.channel_names == ("a", "b")
        assert series.values.tolist() == [[1, 2], [5, 6], [3, 4]]
        assert series.labels.tolist() == [False, False, True]
        np.testing.assert_array_equal(read_series(tmp_path, label_column="y").values, series.values)

    def test_faulty_folders_are_refused(self, tmp_path):
        refuses("holds no file that can be read", read_folder, tmp_path)
        csv(tmp_path, "a,b\n1,2\n", "one.csv")
        csv(tmp_path, "a,c\n1,2\n", "two.csv")
        refuses("two: .* one has 2: it lacks b and has also c", read_folder, tmp_path)
        refuses("is not a folder", read_folder, tmp_path / "one.csv")
        np.save(tmp_path / "three.npy", np.ones(3))
        refuses(r"mixes \.csv and \.npy files", read_folder, tmp_path)

    def test_parts_must_agree_on_labels_and_on_the_form_of_time(self, tmp_path):
        np.savez(tmp_path / "a.npz", values=np.ones(2), label=[0, 1])
        np.savez(tmp_path / "b.npz", values=np.ones(2))
        refuses("b has no labels, but other files have", read_folder, tmp_path)
        dates = read_series(csv(tmp_path, "t,a\n2026-01-01,1\n", "d.csv"), timestamp_column="t")
        numbers = read_series(csv(tmp_path, "t,a\n1,1\n", "n.csv"), timestamp_column="t")
        refuses("dates in some files and numbers in others", join_series, [dates, numbers], where="here")


class TestSplits:
    def save(self, path, **arrays):
        rng = np.random.default_rng(0)
        data = {"train": rng.random((6, 4)), "test": rng.random((5, 4)), "label": np.eye(5)[2]}
        np.savez(path, **(data | arrays))
        return path

    def test_one_archive(self, tmp_path):
        path = self.save(tmp_path / "m.npz", interpretation=np.array([{}], dtype=object))
        splits = read_train_and_test(path, channels=["channel_2"])
        assert splits.train.values.shape == (6, 1)
        assert splits.test.values.shape == (5, 1)
        assert splits.train.labels is None
        assert splits.test.labels.tolist() == [False, False, True, False, False]

    def test_folder_of_archives(self, tmp_path):
        for name in ("m2", "m1"):
            self.save(tmp_path / f"{name}.npz")
        splits = read_train_and_test(tmp_path)
        assert splits.train.lengths == (6, 6)
        assert splits.test.names == ("m1", "m2")
        assert splits.test.labels.sum() == 2

    def test_two_files_share_columns_whatever_their_order(self, tmp_path):
        train = csv(tmp_path, "a,b\n1,2\n3,4\n", "train.csv")
        test = csv(tmp_path, "b,y,a\n20,1,10\n", "test.csv")
        splits = read_train_and_test(train, test, label_column="y")
        assert splits.train.labels is None
        assert splits.test.channel_names == ("a", "b")
        assert splits.test.values.tolist() == [[10, 20]]
        assert splits.test.labels.tolist() == [True]

    def test_train_labels_are_read_where_there_are_any(self, tmp_path):
        train = csv(tmp_path, "a,y\n1,0\n3,1\n", "train.csv")
        assert read_train_and_test(train, train, label_column="y").train.labels.tolist() == [False, True]

    def test_faulty_splits_are_refused(self, tmp_path):
        refuses(
            "'train' has 4 columns and 'test' 3",
            read_train_and_test,
            self.save(tmp_path / "a.npz", test=np.ones((5, 3))),
        )
        np.savez(tmp_path / "b.npz", train=np.ones(3), test=np.ones(3))
        refuses("asks for 'label', which is not there", read_train_and_test, tmp_path / "b.npz")
        train = csv(tmp_path, "a,b\n1,2\n", "train.csv")
        test = csv(tmp_path, "a,b,c\n1,2,3\n", "test.csv")
        refuses("has 3 columns and .*train.csv has 2: it has also c", read_train_and_test, train, test)
        refuses("data.label_column asks for 'y'", read_train_and_test, train, test, label_column="y")
        refuses("holds no split into train and test", read_train_and_test, train)
        objects = np.array([{}], dtype=object)
        refuses(
            "array 'train' cannot be read", read_train_and_test, self.save(tmp_path / "o.npz", train=objects)
        )


@pytest.mark.skipif("TOCSIN_DATA" not in os.environ, reason="needs the real data that TOCSIN_DATA points at")
def test_server_machine_dataset():
    splits = read_train_and_test(Path(os.environ["TOCSIN_DATA"]) / "smd" / "machine-1-6.npz")
    assert splits.train.values.shape == (23688, 38)
    assert splits.test.values.shape == (23689, 38)
    assert splits.test.labels.mean() == pytest.approx(0.1565, abs=1e-3)
