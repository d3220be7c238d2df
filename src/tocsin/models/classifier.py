"""A classifier of images: a backbone of timm and a head.

Source: image specification, section 6.1. The head `improved` has two hidden layers with batch normalisation and three
dropouts; `linear` is the plain baseline. The backbone learns at a fraction of the head's rate, and not at all in the
first epochs, while the head is still random. MixUp is left out of the last epochs, which end on real images.

Grad-CAM: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks" (ICCV 2017), section 3, on the last map
of features.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tocsin.batch import ClassBatch
from tocsin.errors import ConfigError
from tocsin.models.base import ImageClassifier
from tocsin.models.checks import check_choice, check_range
from tocsin.models.class_losses import smooth_targets, soft_cross_entropy
from tocsin.models.mixing import Mixing
from tocsin.models.pretrained import Normalise, timm_classifier

HeadName = Literal["improved", "linear"]
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class Classifier(ImageClassifier):
    """Backbone, head and loss.

    Args:
        height: Of the images; filled in from the data.
        width: Of the images; filled in from the data.
        n_classes: K; filled in from the data.
        class_weights: K weights of the classes in the training loss; filled in for `data.balance=loss` and
            `effective_number`.
        log_priors: K logarithms of the shares of the classes in training, added to the logits in the training loss
            (logit adjustment); filled in for `data.balance=logit_adjust`.
        backbone: A network of timm, by name.
        weights: `hub`, a file, or `random` to train from scratch; None where a checkpoint will be loaded.
        head: `improved` or `linear`.
        hidden: Sizes of the hidden layers of the improved head.
        dropout: Before each of its layers, one more than `hidden`.
        label_smoothing: Share of a target that is spread over all classes.
        focal_gamma: Exponent of the focal factor; 0 for none.
        mixup: Alpha of MixUp; 0 for none.
        cutmix: Alpha of CutMix; 0 for none.
        mix_prob: Share of the batches that are mixed.
        mix_off_share: Share of the epochs, at the end, without mixing.
        freeze_epochs: First epochs in which the backbone, its statistics included, stays as it is.
        backbone_lr_scale: Rate of the backbone over that of the head.
    """

    class_weights: Tensor | None
    log_priors: Tensor | None

    def __init__(
        self,
        *,
        height: int,
        width: int,
        n_classes: int,
        class_weights: Sequence[float] | None = None,
        log_priors: Sequence[float] | None = None,
        backbone: str = "resnet50",
        weights: str | None = "hub",
        head: HeadName = "improved",
        hidden: Sequence[int] = (512, 256),
        dropout: Sequence[float] = (0.5, 0.3, 0.2),
        label_smoothing: float = 0.1,
        focal_gamma: float = 0.0,
        mixup: float = 0.2,
        cutmix: float = 0.0,
        mix_prob: float = 0.5,
        mix_off_share: float = 0.1,
        freeze_epochs: int = 1,
        backbone_lr_scale: float = 1 / 3,
    ) -> None:
        super().__init__()
        check_choice("head", head, get_args(HeadName))
        check_range("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "in [0, 1)")
        check_range("focal_gamma", focal_gamma, focal_gamma >= 0, "0 or more")
        check_range("mix_off_share", mix_off_share, 0 <= mix_off_share <= 1, "in [0, 1]")
        check_range("freeze_epochs", freeze_epochs, freeze_epochs >= 0, "0 or more")
        check_range("backbone_lr_scale", backbone_lr_scale, backbone_lr_scale >= 0, "0 or more")
        if class_weights is not None and log_priors is not None:
            raise ValueError(
                "class_weights and log_priors both undo an imbalance: together they turn it round; give one of them"
            )
        self.n_classes = n_classes
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.mix_off_share = mix_off_share
        self.freeze_epochs = freeze_epochs
        self.backbone_lr_scale = backbone_lr_scale
        self.mixing = Mixing(
            n_classes=n_classes,
            mixup=mixup,
            cutmix=cutmix,
            prob=mix_prob,
            label_smoothing=label_smoothing,
        )
        for name, values in (("class_weights", class_weights), ("log_priors", log_priors)):
            if values is not None and len(values) != n_classes:
                raise ValueError(f"{name} has {len(values)} values for {n_classes} classes")
            self.register_buffer(name, None if values is None else torch.tensor(values, dtype=torch.float32))
        self.backbone = timm_classifier(backbone, weights=weights, size=(height, width)).to(
            memory_format=torch.channels_last
        )
        self.normalise = Normalise.of(self.backbone)
        n_features: int = self.backbone.head_hidden_size  # type: ignore[assignment]
        self.head = make_head(n_features, n_classes, head=head, hidden=hidden, dropout=dropout)

    # --- classes --------------------------------------------------------------------------------------

    def logits(self, images: Tensor) -> Tensor:
        return self._classify(self._features(images))

    def _features(self, images: Tensor) -> Tensor:
        """(B, C, h, w) from a CNN; whatever else the backbone makes of images."""
        normal = self.normalise(images).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone.forward_features(normal)  # type: ignore[operator]
        return features

    def _classify(self, features: Tensor) -> Tensor:
        pooled = self.backbone.forward_head(features, pre_logits=True)  # type: ignore[operator]  # (B, D)
        found: Tensor = self.head(pooled)
        return found

    @property
    def _frozen(self) -> bool:
        return self.training and self.epoch < self.freeze_epochs

    # --- training -------------------------------------------------------------------------------------

    def loss(self, batch: ClassBatch) -> dict[str, Tensor]:
        """Loss of a batch: in training of mixed images and balanced classes, else the plain cross-entropy.

        Raises:
            ConfigError: The training batch is a single image, which batch normalisation cannot use.
        """
        assert batch.label is not None
        if not self.training:
            targets = smooth_targets(batch.label, self.n_classes, 0.0)
            return {"loss": soft_cross_entropy(self.logits(batch.image), targets)}
        if self.share.total(len(batch.image)) < 2:
            raise ConfigError(
                "a training batch of one image cannot be normalised; set data.batch_size to 2 or more"
            )
        images, targets = self._training_pairs(batch.image, batch.label)
        self.backbone.train(not self._frozen)
        with torch.set_grad_enabled(not self._frozen and torch.is_grad_enabled()):
            features = self._features(images)
        logits = self._classify(features)
        if self.log_priors is not None:
            logits = logits + self.log_priors
        return {
            "loss": soft_cross_entropy(
                logits,
                targets,
                class_weights=self.class_weights,
                focal_gamma=self.focal_gamma,
                share=self.share,
            )
        }

    def _training_pairs(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images and soft targets, mixed but in the last epochs."""
        if self.epoch >= self.epochs * (1 - self.mix_off_share):
            return images, smooth_targets(labels, self.n_classes, self.label_smoothing)
        return self.mixing(images, labels, self.share)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Head and backbone, each with and without weight decay: biases and norms get none."""
        groups = []
        for part, scale in ((self.head, 1.0), (self.backbone, self.backbone_lr_scale)):
            decayed, free = decay_groups(part)
            groups.append({"params": decayed, "lr_scale": scale})
            groups.append({"params": free, "lr_scale": scale, "weight_decay": 0.0})
        return groups

    # --- explanation ----------------------------------------------------------------------------------

    def activation_map(self, images: Tensor, classes: Tensor) -> Tensor | None:
        with torch.no_grad():
            features = self._features(images)
        if features.ndim != 4:  # tokens of a transformer
            return None
        with torch.enable_grad():
            features = features.detach().requires_grad_()
            chosen = self._classify(features).gather(1, classes[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, features)
        channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        space, channel = ((1, 2), 3) if channels_last else ((2, 3), 1)
        weights = gradient.mean(dim=space, keepdim=True)
        maps = (weights * features.detach()).sum(dim=channel).relu()  # (B, h, w)
        maps = F.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear", align_corners=False)[
            :, 0
        ]
        peaks = maps.amax(dim=(1, 2), keepdim=True)
        return maps / peaks.clamp_min(torch.finfo(maps.dtype).tiny)


def make_head(
    n_features: int, n_classes: int, *, head: HeadName, hidden: Sequence[int], dropout: Sequence[float]
) -> nn.Sequential:
    """The layers after the pooling: (B, D) -> (B, K).

    Args:
        n_features: D.
        n_classes: K.
        head: `linear` has neither hidden layers nor dropout.
        hidden: Sizes of the hidden layers.
        dropout: Before each layer.
    """
    if head == "linear":
        return _initialised(nn.Sequential(nn.Linear(n_features, n_classes)))
    if len(dropout) != len(hidden) + 1:
        raise ValueError(
            f"dropout={list(dropout)} needs {len(hidden) + 1} values, one before each layer of the head"
        )
    for rate in dropout:
        check_range("dropout", rate, 0 <= rate < 1, "in [0, 1)")
    sizes = [n_features, *hidden]
    layers: list[nn.Module] = []
    for rate, size, following in zip(dropout, sizes, hidden, strict=False):
        layers += [nn.Dropout(rate), nn.Linear(size, following), nn.BatchNorm1d(following), nn.ReLU()]
    return _initialised(nn.Sequential(*layers, nn.Dropout(dropout[-1]), nn.Linear(sizes[-1], n_classes)))


def _initialised(head: nn.Sequential) -> nn.Sequential:
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    # Small logits at the start: the first loss is that of a guess, not of a wrong conviction.
    nn.init.normal_(head[-1].weight, std=0.01)  # type: ignore[arg-type]
    return head


def decay_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with and without weight decay; biases and those of norms go without."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.requires_grad:
                plain = name == "bias" or parameter.ndim <= 1 or isinstance(part, NORMS)
                (free if plain else decayed).append(parameter)
    return decayed, free
