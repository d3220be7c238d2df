"""Isolation forest on short windows (Liu, Ting, Zhou, ICDM 2008).

scikit-learn grows the trees; they are kept as plain tensors, so that a checkpoint holds no pickled objects and
the forest is scored on any device.
"""

import math

import torch
from torch import Tensor

from tocsin.models.window_baseline import WindowBaseline

SUB_SAMPLE = 256  # rows per tree; the paper's choice
N_NODES = 2 * SUB_SAMPLE - 1
MAX_DEPTH = math.ceil(math.log2(SUB_SAMPLE))


class WindowIsolationForest(WindowBaseline):
    """How few random cuts isolate a short window: 2 ** (-mean depth / expected depth), in (0, 1).

    Args:
        window: Steps of the windows of a batch.
        n_channels: Channels C.
        length: Steps L of the short windows.
        step: Steps between short windows when scoring.
        n_trees: Number of trees.
        max_features: Share of the numbers of a short window that each tree sees, in (0, 1].
        max_rows: Most short windows that are kept for fitting.
        seed: Seed of the trees.
    """

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        length: int = 10,
        step: int = 5,
        n_trees: int = 100,
        max_features: float = 0.8,
        max_rows: int = 50_000,
        seed: int = 0,
    ) -> None:
        super().__init__(
            window=window, n_channels=n_channels, length=length, step=step, max_rows=max_rows, seed=seed
        )
        self.n_trees = n_trees
        self.max_features = max_features
        for name in ("left", "right", "feature"):
            self.register_buffer(name, torch.zeros(n_trees, N_NODES, dtype=torch.int64))
        self.register_buffer("cut", torch.zeros(n_trees, N_NODES, dtype=torch.float64))
        self.register_buffer("depth", torch.zeros(n_trees, N_NODES, dtype=torch.float64))
        self.register_buffer("expected", torch.ones((), dtype=torch.float64))
        self.left: Tensor
        self.right: Tensor
        self.feature: Tensor
        self.cut: Tensor
        self.depth: Tensor
        self.expected: Tensor

    def fit(self, rows: Tensor) -> None:
        from sklearn.ensemble import IsolationForest

        samples = min(SUB_SAMPLE, len(rows))
        forest = IsolationForest(
            n_estimators=self.n_trees,
            max_samples=samples,
            max_features=self.max_features,
            random_state=self.seed,
        )
        forest.fit(rows.numpy())
        self.expected.fill_(_average_depth(torch.tensor([samples]))[0])
        for index, (tree, features) in enumerate(
            zip(forest.estimators_, forest.estimators_features_, strict=True)
        ):
            self._keep(index, tree.tree_, torch.as_tensor(features))

    def _keep(self, index: int, tree: object, features: Tensor) -> None:
        """Copy one tree. A leaf is its own child, so that a row stays there once it has arrived."""
        left = torch.as_tensor(tree.children_left)  # type: ignore[attr-defined]
        right = torch.as_tensor(tree.children_right)  # type: ignore[attr-defined]
        n, is_leaf = len(left), left < 0
        own = torch.arange(n)
        depth = torch.zeros(n, dtype=torch.float64)
        for node in range(n):  # parents come before their children
            if not is_leaf[node]:
                depth[left[node]] = depth[right[node]] = depth[node] + 1
        self.left[index, :n] = torch.where(is_leaf, own, left)
        self.right[index, :n] = torch.where(is_leaf, own, right)
        self.feature[index, :n] = features[torch.as_tensor(tree.feature).clamp(min=0)]  # type: ignore[attr-defined]
        self.cut[index, :n] = torch.as_tensor(tree.threshold)  # type: ignore[attr-defined]
        self.depth[index, :n] = depth + _average_depth(torch.as_tensor(tree.n_node_samples))  # type: ignore[attr-defined]

    def deviations_of(self, rows: Tensor) -> Tensor:
        """(R, L): the anomaly score of a short window, for each of its steps."""
        trees = torch.arange(self.n_trees, device=rows.device)
        node = torch.zeros(len(rows), self.n_trees, dtype=torch.int64, device=rows.device)
        for _ in range(MAX_DEPTH):
            value = rows.gather(1, self.feature[trees, node]).double()  # (R, trees)
            node = torch.where(
                value <= self.cut[trees, node], self.left[trees, node], self.right[trees, node]
            )
        mean_depth = self.depth[trees, node].mean(dim=1)
        score = torch.exp2(-mean_depth / self.expected).float()
        return score.unsqueeze(1).expand(-1, self.length)


def _average_depth(n: Tensor) -> Tensor:
    """Expected depth of an unsuccessful search in a binary tree of n rows: c(n) of the paper."""
    n = n.double()
    harmonic = torch.log((n - 1).clamp(min=1)) + 0.5772156649015329
    depth = 2 * harmonic - 2 * (n - 1) / n.clamp(min=1)
    return torch.where(n > 2, depth, (n == 2).double())
