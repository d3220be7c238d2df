import pytest
import torch
from scipy import stats
from torch import Tensor

from tocsin.models.anomaly_synthesis import Synthetic
from tocsin.models.severity import SeverityHead, raw_severity, severity_report, spearman

CHANNELS = (4, 8, 16, 32, 32, 32)


def change(size: float, pixels: int, amplitude: float = 0.5) -> Synthetic:
    """One image of 10 by 10 whose first pixels were changed by so much in each channel."""
    clean = torch.full((1, 3, 10, 10), 0.3)
    mask = torch.zeros(1, 100, dtype=torch.bool)
    mask[:, :pixels] = True
    mask = mask.reshape(1, 10, 10)
    return Synthetic(clean + size * mask[:, None], clean, mask, torch.tensor([amplitude]))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("contrast", 0.2),
        ("contrast_area", 0.2 * (0.25**0.5) ** 0.5),
        ("amplitude", 0.7),
        ("blend_area", 0.7 * (0.25**0.5) ** 0.5),
    ],
)
def test_severity_is_its_formula(target: str, expected: float) -> None:
    made = change(-0.2, 25, 0.7)
    assert float(raw_severity(made, target)) == pytest.approx(expected)


def test_severity_rises_with_the_change_and_the_area_and_is_zero_without() -> None:
    by_change = [float(raw_severity(change(size, 20), "contrast_area")) for size in (0.0, 0.1, 0.2, 0.6)]
    by_area = [float(raw_severity(change(0.1, pixels), "contrast_area")) for pixels in (0, 1, 10, 100)]
    for values in (by_change, by_area):
        assert values[0] == 0
        assert (torch.tensor(values).diff() > 0).all()


# --- head ---------------------------------------------------------------------------------------------------


def head(**changes: object) -> SeverityHead:
    options = {"multi_scale": True, "pooling": "gap", "dropout": 0.1, "detach": False}
    torch.manual_seed(0)
    return SeverityHead(CHANNELS, **{**options, **changes})


def features(batch: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, 64 // 2**i, 96 // 2**i, generator=generator) for i, c in enumerate(CHANNELS)
    ]


WAYS = [(multi, pooling) for multi in (True, False) for pooling in ("gap", "spatial_aware")]


@pytest.mark.parametrize(("multi_scale", "pooling"), WAYS)
def test_severity_is_one_bounded_number_per_image(multi_scale: bool, pooling: str) -> None:
    made = head(multi_scale=multi_scale, pooling=pooling).eval()
    found = made([100 * one for one in features()])
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    assert ((found > 0) & (found < 1)).all()
    torch.testing.assert_close(
        torch.cat([made([f[i : i + 1] for f in features()]) for i in range(3)]), made(features())
    )


@pytest.mark.parametrize(("multi_scale", "pooling"), WAYS)
def test_which_maps_are_read(multi_scale: bool, pooling: str) -> None:
    made, maps = head(multi_scale=multi_scale, pooling=pooling).eval(), features()
    for index in range(6):
        changed = [one + torch.randn_like(one) if i == index else one for i, one in enumerate(maps)]
        read = index == 5 or (multi_scale and index > 0)
        assert torch.equal(made(changed), made(maps)) != read


def test_heads_have_the_published_sizes() -> None:
    """Of the full width; layer normalisation and attention beside them."""
    full = (64, 128, 256, 512, 512, 512)

    def linears(multi_scale: bool, pooling: str) -> list[tuple[int, int]]:
        made = SeverityHead(full, multi_scale=multi_scale, pooling=pooling, dropout=0.1, detach=False)
        return [(m.in_features, m.out_features) for m in made.mlp if isinstance(m, torch.nn.Linear)]

    assert linears(False, "gap") == [(512, 128), (128, 64), (64, 1)]
    assert linears(True, "gap") == [(1920, 128), (128, 64), (64, 1)]
    assert linears(False, "spatial_aware") == [(128 * 16, 128), (128, 64), (64, 1)]
    assert linears(True, "spatial_aware") == [(480 * 16, 256), (256, 128), (128, 1)]


def test_where_something_is_matters_to_the_pooling_that_is_aware_of_space_alone() -> None:
    maps = features()
    turned = [one.flip(2) for one in maps]
    gap, aware = head().eval(), head(pooling="spatial_aware").eval()
    torch.testing.assert_close(gap(turned), gap(maps))
    assert not torch.allclose(aware(turned), aware(maps), atol=1e-4)


def test_scale_of_the_features_does_not_saturate_the_head() -> None:
    maps = features()
    torch.testing.assert_close(
        head().eval()([50 * one for one in maps]), head().eval()(maps), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("detach", [True, False])
def test_detached_features_get_no_gradient(detach: bool) -> None:
    maps = [one.requires_grad_() for one in features()]
    head(detach=detach)(maps).sum().backward()
    assert (maps[-1].grad is None) == detach


def test_error_says_what_is_possible() -> None:
    with pytest.raises(ValueError, match="pooling='max' is not one of 'gap', 'spatial_aware'"):
        head(pooling="max")
    with pytest.raises(ValueError, match=r"dropout=1.0 is not in \[0, 1\)"):
        head(dropout=1.0)


# --- evaluation ---------------------------------------------------------------------------------------------


def test_rank_correlation_is_scipys_with_ties_too() -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(0))
    y = (x + torch.randn(200, generator=torch.Generator().manual_seed(1))).mul(3).round()
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman(y, y.exp()) == pytest.approx(1.0)
    assert spearman(x, torch.zeros(200)) == 0


def test_report_compares_severities_at_each_level() -> None:
    target = torch.linspace(0, 1, 11)[:, None] * torch.tensor([1.0, 0.5])
    report = severity_report(target, 0.1 + 0.5 * target)
    torch.testing.assert_close(report.level, torch.linspace(0, 1, 11))
    torch.testing.assert_close(report.target, target.mean(dim=1))
    torch.testing.assert_close(report.predicted, 0.1 + 0.5 * target.mean(dim=1))
    assert report.spearman == pytest.approx(1.0)
    assert report.pearson == pytest.approx(1.0)
    assert report.mean_error == pytest.approx(float((0.1 - 0.5 * target).abs().mean()))
