"""A frozen YOLO of ultralytics 8.x (v8, v9, 11; v10 and 26 with one-to-one heads) as the victim of an attack.

What differs from its own forward pass: logits are given before the sigmoid, of the attacked class alone; boxes are
decoded for all anchors; and heads of one-to-one models get features that are not detached, so that both of their
branches have a gradient with respect to the image. Detections come from the one-to-one branch alone, as in use, and
the loss weighs the one-to-many branch less: L = L_o2o + 0.3 L_o2m.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tocsin.data.checks import listed, nearest
from tocsin.errors import ConfigError, DataError
from tocsin.models.attack_packages import require_ultralytics
from tocsin.models.base import Detections
from tocsin.models.standin import standin_network
from tocsin.models.yolo_networks import yolo_network

STANDIN = "standin"
MIN_CONFIDENCE = 0.001
_ONE2MANY_WEIGHT = 0.3
_NMS_IOU = 0.7  # of ultralytics
_MAX_DETECTIONS = 300  # per image, of ultralytics
_TOPK = {"one2many": (10, None), "one2one": (7, 1)}  # anchors per object, of ultralytics' own loss


class Branch(NamedTuple):
    """What one head says of a batch of images.

    Attributes:
        name: `one2one` or `one2many`.
        logits: (B, A) float32, of the attacked class, before the sigmoid.
        boxes: (B, A, 4) float32, left, top, right, bottom in pixels.
        centres: (A, 2) float32, x and y of the anchors in pixels.
        weight: Share of the branch in a loss.
    """

    name: str
    logits: Tensor
    boxes: Tensor
    centres: Tensor
    weight: float


def load_victim(
    source: str, *, target_class: int | str = 0, cache_dir: str | Path | None = None, seed: int = 0
) -> "YoloVictim":
    """Victim by name.

    Args:
        source: A .pt file of ultralytics, a name of its hub (`yolov8n.pt`), `standin` for a small YOLO trained on
            drawn figures, or a description (`yolov8n.yaml`) for random weights, as tests want them.
        target_class: Class that is attacked, by number or name; person is 0, and all that the stand-in knows.
        cache_dir: Where stand-ins and weights of the hub are kept; None makes or fetches them each time.
        seed: Seed of the stand-in.

    Raises:
        ConfigError: There is no such victim, or it has no such class.
    """
    if source == STANDIN:
        network = standin_network(cache_dir=cache_dir, seed=seed)
        network.names = {0: "person"}  # type: ignore[assignment]
    else:
        network = yolo_network(source, cache_dir=cache_dir)
    return YoloVictim(network=network, target_class=class_number(network, target_class))


def class_number(network: nn.Module, asked: int | str) -> int:
    """Number of a class of a network of ultralytics.

    Args:
        network: It knows the names of its classes.
        asked: Number, or name in any case.

    Raises:
        ConfigError: It has no class of that name.
    """
    if isinstance(asked, int) or asked.isdecimal():
        return int(asked)
    names = {str(name).lower(): int(number) for number, name in network.names.items()}  # type: ignore[operator, union-attr]
    if asked.lower() not in names:
        raise ConfigError(
            f"target_class={asked}: the victim has no such class{nearest(asked, list(names))}; it has "
            f"{listed(list(names))}"
        )
    return names[asked.lower()]


class YoloVictim(nn.Module):
    """Frozen detector, always in evaluation mode; only its input gets a gradient.

    Args:
        network: `DetectionModel` of ultralytics. It is kept as it is, and must not have run `predict`.
        target_class: Class that is attacked.

    Raises:
        ConfigError: The network has no such class.
    """

    def __init__(self, *, network: nn.Module, target_class: int = 0) -> None:
        super().__init__()
        require_ultralytics()
        self.layers: nn.Sequential = network.model  # type: ignore[assignment]
        self._network = [network]  # in a list: not a second place of the same modules
        head: Any = self.layers[-1]
        if not 0 <= target_class < head.nc:
            raise ConfigError(
                f"target_class={target_class} is not one of the {head.nc} classes of the victim"
            )
        self.target_class = target_class
        self.stride = int(head.stride.max())
        parts = {"one2one": getattr(head, "one2one_cv2", None), "one2many": head.cv2}
        self.branch_names = tuple(name for name, part in parts.items() if part is not None)
        self.requires_grad_(False)
        self.train(False)
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "YoloVictim":
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    # ------------------------------------------------------------------ forward

    def forward(self, images: Tensor) -> list[Branch]:
        """Logits and boxes of all anchors, of each branch, the one that detects first.

        Args:
            images: (B, 3, S, S) float in [0, 1].

        Raises:
            DataError: The size of the images is no multiple of the stride.
        """
        raw = self._raw(images)
        return [self._branch(name, raw[name]) for name in self.branch_names]

    @torch.no_grad()
    def detect(self, images: Tensor) -> Detections:
        """What the victim finds, down to a confidence of 0.001, after its own suppression of doubles.

        Args:
            images: (B, 3, S, S) float in [0, 1].

        Raises:
            DataError: The size of the images is no multiple of the stride.
        """
        head: Any = self.layers[-1]
        name = self.branch_names[0]
        branch = self._branch(name, head.forward_head(self._features(images), **getattr(head, name)))
        size = torch.tensor([images.shape[3], images.shape[2]] * 2, device=images.device)
        boxes = branch.boxes.clamp(min=0).minimum(size)
        return best_detections(boxes, branch.logits.sigmoid(), nms=name == "one2many")

    def losses(self, images: Tensor, boxes: Tensor, owner: Tensor) -> dict[str, Tensor]:
        """The terms the detector is trained with, each with a gradient with respect to the images.

        Args:
            images: (B, 3, S, S) float in [0, 1].
            boxes: (N, 4) left, top, right, bottom in pixels of objects of the attacked class; none for images that
                should be empty.
            owner: (N,) int64, index of the image of each.

        Returns:
            `box`, `cls`, `dfl` (an L1 distance where the head has no distribution), and their sum `total`, with
            ultralytics' weights of the terms; divided, as there, by the sum of what the anchors should score, or 1.
        """
        height, width = images.shape[2:]
        scale = boxes.new_tensor([width, height, width, height])
        corner, far = boxes[:, :2], boxes[:, 2:]
        batch = {
            "batch_idx": owner.float(),
            "cls": torch.full_like(owner, self.target_class, dtype=torch.float32),
            "bboxes": torch.cat([(corner + far) / 2, far - corner], dim=1)
            / scale,  # centre and size in [0, 1]
        }
        raw = self._raw(images)
        terms = torch.zeros(3, device=images.device)
        with torch.autocast(images.device.type, enabled=False):
            for name in self.branch_names:
                summed = self._criterion(name, images.device).loss(_float(raw[name]), batch)[0]
                terms = terms + self._weight(name) * summed / len(images)
        box, cls, dfl = terms.unbind()
        return {"total": terms.sum(), "box": box, "cls": cls, "dfl": dfl}

    # ------------------------------------------------------------------ parts

    def _features(self, images: Tensor) -> list[Tensor]:
        """What the head reads; ultralytics' own pass would detach it for the one-to-one branch in training mode."""
        if images.shape[2] % self.stride or images.shape[3] % self.stride:
            raise DataError(
                f"images of {images.shape[3]} x {images.shape[2]} pixels do not fit the victim: set data.size to a "
                f"multiple of {self.stride}"
            )
        x: Any = images.contiguous(memory_format=torch.channels_last)
        outputs: list[Any] = []
        for layer in self.layers:
            source: Any = layer.f
            if source != -1:
                x = (
                    outputs[source]
                    if isinstance(source, int)
                    else [x if index == -1 else outputs[index] for index in source]
                )
            if layer is self.layers[-1]:
                break
            x = layer(x)
            outputs.append(x)
        features: list[Tensor] = x
        return features

    def _raw(self, images: Tensor) -> dict[str, dict[str, Any]]:
        head: Any = self.layers[-1]
        features = self._features(images)
        return {name: head.forward_head(features, **getattr(head, name)) for name in self.branch_names}

    def _branch(self, name: str, raw: dict[str, Any]) -> Branch:
        from ultralytics.utils.tal import dist2bbox, make_anchors

        head: Any = self.layers[-1]
        # (A, 2) and (A, 1), in cells
        anchors, strides = make_anchors(raw["feats"], head.stride, 0.5)  # type: ignore[no-untyped-call]
        with torch.autocast(raw["boxes"].device.type, enabled=False):
            distances = head.dfl(raw["boxes"].float())  # (B, 4, A), in cells
        corners = dist2bbox(distances, anchors.T[None].float(), xywh=False, dim=1)  # type: ignore[no-untyped-call]
        boxes = corners * strides.T  # (B, 4, A)
        return Branch(
            name=name,
            logits=raw["scores"][:, self.target_class].float(),
            boxes=boxes.transpose(1, 2),  # (B, A, 4)
            centres=(anchors * strides).float(),
            weight=self._weight(name),
        )

    def _weight(self, name: str) -> float:
        return 1.0 if name == self.branch_names[0] else _ONE2MANY_WEIGHT

    def _criterion(self, name: str, device: torch.device) -> Any:
        from ultralytics.utils.loss import v8DetectionLoss

        topk, topk2 = _TOPK[name]
        # Made anew, which is cheap: it remembers the device of the network.
        network = self._network[0].to(device)
        return v8DetectionLoss(network, tal_topk=topk, tal_topk2=topk2)


def best_detections(boxes: Tensor, scores: Tensor, *, nms: bool) -> Detections:
    """The most confident boxes of each image.

    Args:
        boxes: (B, A, 4) left, top, right, bottom.
        scores: (B, A) in [0, 1].
        nms: Whether to drop boxes that overlap a more confident one of their image.

    Returns:
        At most 300 for each image, all of a confidence of 0.001 or more.
    """
    from torchvision.ops import batched_nms

    owner, anchor = (scores >= MIN_CONFIDENCE).nonzero(as_tuple=True)  # (N,) each
    boxes, scores = boxes[owner, anchor], scores[owner, anchor]
    kept = (
        batched_nms(boxes, scores, owner, _NMS_IOU) if nms else scores.argsort(descending=True, stable=True)
    )
    kept = kept[owner[kept].argsort(stable=True)]  # by image, the most confident first
    counts = torch.bincount(owner[kept])
    first = counts.cumsum(0) - counts
    place = torch.arange(len(kept), device=kept.device) - first[owner[kept]]
    kept = kept[place < _MAX_DETECTIONS]
    return Detections(boxes=boxes[kept], scores=scores[kept], owner=owner[kept])


def _float(raw: dict[str, Any]) -> dict[str, Any]:
    """The loss in single precision, whatever the forward pass ran in."""
    return {**raw, "boxes": raw["boxes"].float(), "scores": raw["scores"].float()}
