import json

import numpy as np
import pytest
from sklearn.preprocessing import RobustScaler, StandardScaler

from tocsin.data import checks
from tocsin.data.cleaning import Scaler, fill_missing
from tocsin.data.readers import read_series
from tocsin.errors import ConfigError, DataError

NAN = np.nan


def column(*values):
    return np.array(values, dtype=np.float32)[:, None]


@pytest.fixture
def values():
    rng = np.random.default_rng(1)
    return (rng.normal(size=(1000, 4)) * [1, 1e-3, 1e3, 5] + [0, 1e3, -7, 1e6]).astype(np.float32)


def reference_fill(values, limit, lengths):
    """Step by step, as one would by hand."""
    filled, start = values.copy(), 0
    for length in lengths:
        part = filled[start : start + length]
        for c in range(part.shape[1]):
            known = np.flatnonzero(~np.isnan(part[:, c]))
            part[: known[0], c] = part[known[0], c]
            for t in range(1, length):
                if np.isnan(part[t, c]):
                    part[t, c] = part[t - 1, c]
        start += length
    return filled


class TestFillMissing:
    def test_forward_within_and_backward_at_the_start(self):
        filled, missing = fill_missing(column(NAN, NAN, 1, NAN, 2, NAN), 2, [6])
        assert filled[:, 0].tolist() == [1, 1, 1, 1, 2, 2]
        assert missing[:, 0].tolist() == [True, True, False, True, False, True]
        assert filled.dtype == np.float32

    def test_never_across_the_border_of_two_series(self):
        filled, missing = fill_missing(column(1, NAN, NAN, 5, 6, NAN, NAN, 7), 1, [2, 4, 2])
        assert filled[:, 0].tolist() == [1, 1, 5, 5, 6, 6, 7, 7]
        assert missing.sum() == 4

    def test_agrees_with_a_plain_loop(self):
        rng = np.random.default_rng(3)
        values = rng.random((900, 5)).astype(np.float32)
        values[rng.random(values.shape) < 0.3] = NAN
        lengths = [100, 300, 1, 499]
        values[400] = 1  # the series of one step
        filled, missing = fill_missing(values, 50, lengths)
        np.testing.assert_array_equal(filled, reference_fill(values, 50, lengths))
        np.testing.assert_array_equal(missing, np.isnan(values))

    def test_clean_memory_map_is_not_copied(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checks, "CHUNK_ELEMENTS", 64)
        np.save(tmp_path / "a.npy", np.ones((1000, 3), dtype=np.float32))
        values = read_series(tmp_path / "a.npy").values
        filled, missing = fill_missing(values, 5, [1000])
        assert filled is values
        assert isinstance(filled, np.memmap)
        assert missing.shape == (1000, 3)
        assert not missing.any()

    def test_memory_map_with_gaps_is_filled_in_a_copy(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checks, "CHUNK_ELEMENTS", 64)
        values = np.ones((1000, 3), dtype=np.float32)
        values[997, 1] = NAN  # only the last chunk knows
        np.save(tmp_path / "a.npy", values)
        mapped = read_series(tmp_path / "a.npy").values
        filled, missing = fill_missing(mapped, 5, [1000])
        assert filled[997, 1] == 1
        assert np.argwhere(missing).tolist() == [[997, 1]]
        assert np.isnan(mapped[997, 1])

    def test_too_long_a_gap_is_refused_by_name(self):
        values = np.hstack([column(1, 2, 3, 4), column(1, NAN, NAN, 4)])
        with pytest.raises(
            DataError, match=r"'b' misses 2 steps in a row from row 1 .*data\.fill_limit is 1"
        ):
            fill_missing(values, 1, [4], channel_names=["a", "b"])
        with pytest.raises(DataError, match=r"'channel_0' misses 1 steps .* data\.fill_limit is 0"):
            fill_missing(column(1, NAN), 0, [2])

    def test_a_series_without_any_value_is_refused_whatever_the_limit(self):
        with pytest.raises(DataError, match=r"misses 2 steps .* from row 1 .* the whole of series 1"):
            fill_missing(column(1, NAN, NAN, 1), 9, [1, 2, 1])

    def test_negative_limit_is_refused(self):
        with pytest.raises(ConfigError, match=r"data\.fill_limit must be 0 or more, got -1"):
            fill_missing(column(1), -1, [1])


class TestScaler:
    def test_standard_agrees_with_sklearn(self, values):
        peer = StandardScaler().fit(values.astype(np.float64))
        scaler = Scaler.fit(values)
        np.testing.assert_allclose(scaler.center, peer.mean_, rtol=1e-12)
        np.testing.assert_allclose(scaler.scale, peer.scale_, rtol=1e-9)
        np.testing.assert_allclose(
            scaler.transform(values), peer.transform(values.astype(np.float64)), atol=1e-6
        )
        assert scaler.transform(values).dtype == np.float32

    def test_robust_agrees_with_sklearn_up_to_the_unit_of_the_iqr(self, values):
        peer = RobustScaler(unit_variance=True).fit(values.astype(np.float64))
        scaler = Scaler.fit(values, method="robust")
        np.testing.assert_allclose(scaler.center, peer.center_, rtol=1e-6)
        np.testing.assert_allclose(scaler.scale, peer.scale_, rtol=1e-4)

    def test_robust_is_unmoved_by_outliers_and_falls_back_where_the_iqr_is_zero(self):
        noise = np.random.default_rng(0).normal(size=1000).astype(np.float32)
        spoilt = noise.copy()
        spoilt[::100] = 500
        rare = (np.arange(1000) % 10 == 0).astype(np.float32)
        scaler = Scaler.fit(np.stack([spoilt, rare], axis=1), method="robust")
        assert scaler.scale == pytest.approx([1.0, 0.3], rel=0.1)

    @pytest.mark.parametrize("method", ["standard", "robust"])
    def test_pieces_give_what_the_whole_gives(self, values, tmp_path, monkeypatch, method):
        whole = Scaler.fit(values, method=method)
        np.save(tmp_path / "a.npy", values)
        monkeypatch.setattr(checks, "CHUNK_ELEMENTS", 64)
        mapped = read_series(tmp_path / "a.npy").values
        pieces = Scaler.fit(mapped, method=method)
        np.testing.assert_allclose(pieces.center, whole.center, rtol=1e-12)
        np.testing.assert_allclose(pieces.scale, whole.scale, rtol=1e-9)
        np.testing.assert_array_equal(pieces.transform(mapped), pieces.transform(values))

    def test_a_large_offset_costs_no_precision(self):
        values = column(*np.tile([4e6, 4e6 + 7.75], 500))  # the mean lies between two float32
        scaler = Scaler.fit(values, min_scale=1e-9)
        assert np.abs(scaler.transform(values)) == pytest.approx(1.0)

    def test_rare_blips_meet_the_floor_whatever_unit_and_offset(self, monkeypatch):
        monkeypatch.setattr(checks, "CHUNK_ELEMENTS", 30_000)  # the blip lies in the first piece of ten
        blip = np.zeros(100_000)
        blip[500] = 1
        values = np.stack([blip, 1000 * blip, 100 - blip], axis=1).astype(np.float32)
        assert Scaler.fit(values, min_scale=0.01).scale == pytest.approx([0.01, 10, 0.01], rel=1e-5)

    def test_constant_channels_borrow_a_scale_and_are_told(self):
        moving = np.random.default_rng(0).normal(scale=[2.0, 4.0], size=(500, 2))
        still = np.tile([0.0, 50.0], (500, 1))
        train = np.hstack([moving, still]).astype(np.float32)
        scaler = Scaler.fit(train, clip=10)
        assert scaler.scale[2:] == pytest.approx([np.median(scaler.scale[:2]), 5.0])
        assert (scaler.transform(train)[:, 2:] == 0).all()
        moved = scaler.transform(np.float32([[0, 0, 3, 60], [0, 0, 1e9, -1e9]]))[:, 2:]
        assert moved.tolist() == [[pytest.approx(1.0, rel=0.1), 2.0], [10.0, -10.0]]
        assert scaler.describe(["a", "b", "c", "d"]).endswith("4 channels; constant in train: c, d")
        assert "constant in train: channel_2, channel_3" in scaler.describe()

    def test_rounding_is_no_movement_and_all_constant_has_scale_one(self):
        values = column(*np.tile(np.float32([0.1, np.nextafter(np.float32(0.1), 1)]), 50))
        assert Scaler.fit(values).constant.tolist() == [True]
        assert Scaler.fit(np.zeros((5, 2), dtype=np.float32)).scale.tolist() == [1, 1]

    def test_clip_bounds_and_none_does_not(self, values):
        far = values[:1] + 1e6
        assert np.abs(Scaler.fit(values, clip=3).transform(far)).max() == 3
        assert np.abs(Scaler.fit(values, clip=None).transform(far)).max() > 1e5

    def test_method_none_changes_nothing(self, values):
        scaler = Scaler.fit(values, method="none", clip=1)
        np.testing.assert_array_equal(scaler.transform(values), values)
        np.testing.assert_array_equal(scaler.inverse(values), values)

    def test_windows_are_scaled_like_the_series_and_nan_stays(self, values):
        scaler = Scaler.fit(values)
        windows = np.lib.stride_tricks.sliding_window_view(values, 10, axis=0).swapaxes(1, 2)  # (B, T, C)
        np.testing.assert_array_equal(scaler.transform(windows)[7], scaler.transform(values)[7:17])
        assert np.isnan(scaler.transform(np.full((1, 4), NAN))).all()

    def test_inverse_restores(self, values):
        scaler = Scaler.fit(values)
        np.testing.assert_allclose(scaler.inverse(scaler.transform(values)), values, rtol=1e-6, atol=1e-4)

    def test_state_is_plain_and_restores_a_fresh_scaler(self, values):
        scaler = Scaler.fit(values, method="robust", clip=7)
        fresh = Scaler.from_state(json.loads(json.dumps(scaler.state())))
        np.testing.assert_array_equal(fresh.transform(values + 9), scaler.transform(values + 9))
        assert fresh.describe() == scaler.describe()

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"method": "minmax"}, "unknown scaling method 'minmax'; possible: standard, robust, log, none"),
            ({"min_scale": 0}, "min_scale must lie between 0 and 1"),
            ({"clip": 0}, "clip must be above 0"),
        ],
    )
    def test_faulty_options_are_refused(self, values, options, match):
        with pytest.raises(ConfigError, match=match):
            Scaler.fit(values, **options)

    def test_faulty_values_are_refused(self, values):
        for fault in (NAN, np.inf):
            spoilt = values.copy()
            spoilt[3, 2] = fault
            with pytest.raises(DataError, match="channel 2 holds NaN or infinite values"):
                Scaler.fit(spoilt)
        with pytest.raises(DataError, match=r"cannot scale values of shape \(0, 4\)"):
            Scaler.fit(values[:0])
        with pytest.raises(DataError, match="values have 3 channels, but the scaler was fitted on 4"):
            Scaler.fit(values).transform(values[:, :3])
