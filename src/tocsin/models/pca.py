"""Window PCA: error of the reconstruction from the leading principal components.

A plain reconstruction error; TSB-AD's "PCA" weighs the distances to the components instead (spec 7.6).
"""

import torch
from torch import Tensor

from tocsin.models.window_baseline import WindowBaseline


class WindowPCA(WindowBaseline):
    """Squared residual after projection onto the leading components of short windows.

    Args:
        window: Steps of the windows of a batch.
        n_channels: Channels C.
        length: Steps L of the short windows.
        step: Steps between short windows when scoring.
        explained: Share of the variance that the components explain, in (0, 1).
        max_rows: Most short windows that are kept for fitting.
        seed: Seed of the decomposition.
    """

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        length: int = 20,
        step: int = 5,
        explained: float = 0.9,
        max_rows: int = 50_000,
        seed: int = 0,
    ) -> None:
        super().__init__(
            window=window, n_channels=n_channels, length=length, step=step, max_rows=max_rows, seed=seed
        )
        self.explained = explained
        self.register_buffer("mean", torch.zeros(self.width))
        # I - V V^T rather than V: its shape does not depend on how many components were kept.
        self.register_buffer("residual", torch.eye(self.width))
        self.mean: Tensor
        self.residual: Tensor

    def fit(self, rows: Tensor) -> None:
        from sklearn.decomposition import PCA

        pca = PCA(n_components=self.explained, svd_solver="covariance_eigh", random_state=self.seed)
        pca.fit(rows.double().numpy())
        components = torch.as_tensor(pca.components_)  # (k, L * C)
        self.mean.copy_(torch.as_tensor(pca.mean_))
        self.residual.copy_(torch.eye(self.width, dtype=torch.float64) - components.T @ components)

    def deviations_of(self, rows: Tensor) -> Tensor:
        return ((rows - self.mean) @ self.residual).square()
