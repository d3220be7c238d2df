"""Targets and losses of classifiers, against torch and by hand."""

import pytest
import torch
import torch.nn.functional as F

from tocsin.models.class_losses import smooth_targets, soft_cross_entropy


def test_smoothing_leaves_one_and_gives_every_class_its_part() -> None:
    targets = smooth_targets(torch.tensor([2, 0]), 4, 0.2)
    torch.testing.assert_close(targets, torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]))


def test_it_is_torchs_cross_entropy_where_torch_has_one() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(16, 5) * 3, torch.randint(5, (16,))
    ours = soft_cross_entropy(logits, smooth_targets(labels, 5, 0.1))
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_weights_are_those_of_torch_for_hard_targets() -> None:
    torch.manual_seed(1)
    logits, labels, weights = torch.randn(16, 3), torch.randint(3, (16,)), torch.tensor([0.5, 1.0, 4.0])
    ours = soft_cross_entropy(logits, smooth_targets(labels, 3, 0.0), class_weights=weights)
    torch.testing.assert_close(ours, F.cross_entropy(logits, labels, weight=weights))


def test_weights_multiply_every_term_of_a_mixed_target() -> None:
    logits = torch.tensor([[1.0, 0.0]])
    targets, weights = torch.tensor([[0.3, 0.7]]), torch.tensor([2.0, 5.0])
    log_p = logits.log_softmax(-1)[0]
    by_hand = -(2 * 0.3 * log_p[0] + 5 * 0.7 * log_p[1]) / (2 * 0.3 + 5 * 0.7)
    torch.testing.assert_close(soft_cross_entropy(logits, targets, class_weights=weights), by_hand)


def test_the_size_of_a_weighted_loss_does_not_depend_on_the_scale_of_the_weights() -> None:
    logits, targets = torch.randn(8, 3), smooth_targets(torch.arange(8) % 3, 3, 0.1)
    weights = torch.tensor([1.0, 2.0, 3.0])
    once = soft_cross_entropy(logits, targets, class_weights=weights)
    torch.testing.assert_close(once, soft_cross_entropy(logits, targets, class_weights=7 * weights))


def test_the_focal_factor_counts_what_is_right_less() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0]])
    p = logits.softmax(-1)[0, 0]
    torch.testing.assert_close(
        soft_cross_entropy(logits, targets, focal_gamma=2.0), -((1 - p) ** 2) * p.log()
    )


@pytest.mark.parametrize("focal_gamma", [0.0, 0.5, 2.0])
def test_gradients_are_finite_where_an_answer_is_certain(focal_gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    soft_cross_entropy(
        logits, smooth_targets(torch.tensor([0, 0]), 2, 0.0), focal_gamma=focal_gamma
    ).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_half_precision_logits_are_measured_in_fp32() -> None:
    logits = torch.tensor([[12.0, 0.0, 0.5]])
    low = soft_cross_entropy(logits.bfloat16(), smooth_targets(torch.tensor([0]), 3, 0.1))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, soft_cross_entropy(logits, smooth_targets(torch.tensor([0]), 3, 0.1)))
