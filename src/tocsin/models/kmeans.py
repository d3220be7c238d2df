"""k-means on windows: squared distance to the nearest centroid (KMeansAD, spec 7.6)."""

import torch
from torch import Tensor

from tocsin.errors import ConfigError
from tocsin.models.window_baseline import WindowBaseline


class WindowKMeans(WindowBaseline):
    """Squared deviation from the nearest of a few typical short windows.

    Args:
        window: Steps of the windows of a batch.
        n_channels: Channels C.
        length: Steps L of the short windows.
        step: Steps between short windows when scoring.
        n_clusters: Number of centroids.
        max_rows: Most short windows that are kept for fitting.
        seed: Seed of the centroids.
    """

    def __init__(
        self,
        *,
        window: int,
        n_channels: int,
        length: int = 40,
        step: int = 5,
        n_clusters: int = 10,
        max_rows: int = 20_000,
        seed: int = 0,
    ) -> None:
        super().__init__(
            window=window, n_channels=n_channels, length=length, step=step, max_rows=max_rows, seed=seed
        )
        self.n_clusters = n_clusters
        self.register_buffer("centroids", torch.zeros(n_clusters, self.width))
        self.centroids: Tensor

    def fit(self, rows: Tensor) -> None:
        from sklearn.cluster import KMeans

        if len(rows) < self.n_clusters:
            raise ConfigError(
                f"model.n_clusters={self.n_clusters}, but there are only {len(rows)} training windows; "
                "set it lower or give more data"
            )
        kmeans = KMeans(n_clusters=self.n_clusters, n_init=3, random_state=self.seed)
        kmeans.fit(rows.numpy())
        self.centroids.copy_(torch.as_tensor(kmeans.cluster_centers_))

    def deviations_of(self, rows: Tensor) -> Tensor:
        nearest = torch.cdist(rows, self.centroids).argmin(dim=1)
        return (rows - self.centroids[nearest]).square()
