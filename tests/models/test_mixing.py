"""MixUp and CutMix: pairs, targets, odd batches, draws."""

import numpy as np
import pytest
import torch

from tocsin.models.batch_share import BatchShare, CommonNumbers
from tocsin.models.class_losses import smooth_targets
from tocsin.models.mixing import Mixing


def mixing(**options: float) -> Mixing:
    settings = {"mixup": 1.0, "cutmix": 0.0, "prob": 1.0, "label_smoothing": 0.0} | options
    return Mixing(n_classes=3, **settings)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])


def test_images_and_targets_are_mixed_by_the_same_share(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    mixed, targets = mixing()(images, labels)
    share = targets[0, 0]  # of label 0 in the first image, whose partner, the last, has label 2
    assert 0 < share < 1
    torch.testing.assert_close(mixed[0], share * images[0] + (1 - share) * images[-1])
    torch.testing.assert_close(targets.sum(-1), torch.ones(6))


def test_labels_are_smoothed_once(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Every target is a share of two smoothed ones, so none is below the floor, and the floor is exact."""
    _, targets = mixing(label_smoothing=0.3)(*batch)
    torch.testing.assert_close(targets.min(), torch.tensor(0.1))
    torch.testing.assert_close(targets.sum(-1), torch.ones(6))


def test_without_mixing_targets_are_smoothed_all_the_same(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    mixed, targets = mixing(prob=0.0, label_smoothing=0.3)(images, labels)
    assert mixed is images
    torch.testing.assert_close(targets, smooth_targets(labels, 3, 0.3))


def test_the_last_image_of_an_odd_batch_stays_as_it_is(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch[0][:5], batch[1][:5]
    mixed, targets = mixing()(images, labels)
    assert mixed.shape == images.shape
    assert torch.equal(mixed[4], images[4])
    assert torch.equal(targets[4], torch.tensor([0.0, 1.0, 0.0]))
    assert not torch.equal(mixed[:4], images[:4])


def test_a_batch_of_one_is_left_alone() -> None:
    image = torch.rand(1, 3, 8, 8)
    mixed, targets = mixing()(image, torch.tensor([1]))
    assert torch.equal(mixed, image)
    assert torch.equal(targets, torch.tensor([[0.0, 1.0, 0.0]]))


def test_the_batch_itself_is_not_written_into(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    before = batch[0].clone()
    mixing()(*batch)
    assert torch.equal(batch[0], before)


def test_cutmix_takes_whole_pixels(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = batch
    torch.manual_seed(3)
    mixed, targets = mixing(mixup=0.0, cutmix=1.0)(images, labels)
    own, other = mixed[0] == images[0], mixed[0] == images[-1]
    assert (own | other).all()
    torch.testing.assert_close(targets[0, 0], own.float().mean())


def test_draws_follow_torchs_seed_and_leave_numpys_numbers_alone(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    np.random.seed(1)
    expected = np.random.RandomState(1).rand()
    torch.manual_seed(5)
    first, _ = mixing()(*batch)
    assert np.random.rand() == expected
    torch.manual_seed(5)
    again, _ = mixing()(*batch)
    other, _ = mixing()(*batch)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "value"), [("mixup", -1.0), ("cutmix", -0.1), ("prob", 1.5)])
def test_options_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        mixing(**{name: value})


def test_partners_are_found_in_the_batch_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    images, labels = torch.rand(7, 3, 8, 8), torch.arange(7) % 3
    torch.manual_seed(5)
    whole = mixing(cutmix=1.0)(images, labels)
    for rank, rows in enumerate((slice(0, 4), slice(4, 7))):
        share = BatchShare((4, 3), rank, CommonNumbers(5))
        monkeypatch.setattr(share, "whole", lambda sent, known=(images, labels): known[sent.ndim == 1])
        mixed, targets = mixing(cutmix=1.0)(images[rows], labels[rows], share)
        assert torch.equal(mixed, whole[0][rows])
        assert torch.equal(targets, whole[1][rows])
