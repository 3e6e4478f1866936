"""Global descriptors aggregated from local ones: VLAD.

Residuals of local descriptors to their visual word are summed word by word (Jegou et
al., Aggregating local descriptors into a compact image representation, CVPR 2010);
signed square roots are taken (Jegou and Chum, ECCV 2012), each word is scaled to unit
norm (Arandjelovic and Zisserman, All about VLAD, CVPR 2013), then the whole. Where
there are images enough to learn from, principal components are whitened and scaled to
unit norm again (Jegou and Chum, ECCV 2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from r2d2_kapture.matching.pair_selection import unit_rows
from r2d2_kapture.types import FloatArray

BATCH_SIZE = 4096
RESTARTS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """Principal components, each scaled to unit variance.

    Attributes:
        mean: (V,) float32 of the descriptors it was learned from.
        components: (K, V) float32.
    """

    mean: FloatArray
    components: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """What makes a global descriptor of local ones.

    Attributes:
        centres: (C, D) float32 visual words.
        whitening: applied at the end; None for none.
    """

    centres: FloatArray
    whitening: Whitening | None = None

    @property
    def dim(self) -> int:
        """Numbers of a global descriptor."""
        if self.whitening is not None:
            return len(self.whitening.components)
        return self.centres.size

    def describe(self, descriptors: FloatArray) -> FloatArray:
        """(dim,) float32 of unit norm; zeros where there is no local descriptor.

        Args:
            descriptors: (N, D) float32.
        """
        if not len(descriptors):
            return np.zeros(self.dim, np.float32)
        vector = vlad(descriptors, self.centres)
        if self.whitening is not None:
            vector = self.whitening.components @ (vector - self.whitening.mean)
        return np.asarray(unit_rows(vector[None])[0])


def vlad(descriptors: FloatArray, centres: FloatArray) -> FloatArray:
    """(C * D,) float32 VLAD of unit norm, not whitened; zeros for no descriptor.

    Args:
        descriptors: (N, D) float32.
        centres: (C, D) float32.
    """
    # the nearest centre: |d - c|^2 without |d|^2, halved
    closeness = descriptors @ centres.T - (centres**2).sum(axis=1) / 2
    assigned = np.zeros((len(descriptors), len(centres)), np.float32)
    assigned[np.arange(len(descriptors)), closeness.argmax(axis=1)] = 1
    residuals = assigned.T @ descriptors - assigned.sum(axis=0)[:, None] * centres
    rooted = np.sign(residuals) * np.sqrt(np.abs(residuals))
    return np.asarray(unit_rows(unit_rows(rooted).reshape(1, -1))[0])


def learn_centres(descriptors: FloatArray, clusters: int, seed: int) -> FloatArray:
    """(clusters, D) float32 visual words, by mini-batch k-means (Sculley, WWW 2010).

    Args:
        descriptors: (N, D) float32, at least as many as clusters.
        clusters: visual words.
        seed: the same gives the same words, whatever the number of cores.
    """
    # a third of the start-up of extraction, which seldom learns words
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        clusters, batch_size=BATCH_SIZE, n_init=RESTARTS, random_state=seed
    )
    # sums in another order would end in other centres
    with threadpool_limits(1):
        return np.asarray(kmeans.fit(descriptors).cluster_centers_, np.float32)


def learn_whitening(vectors: FloatArray, dim: int, seed: int) -> Whitening:
    """Whitening to ``dim`` principal components.

    Args:
        vectors: (N, V) float32, at least as many as ``dim``.
        dim: at most V.
        seed: as for learn_centres.
    """
    from sklearn.decomposition import PCA

    pca = PCA(dim, svd_solver="randomized", random_state=seed)
    with threadpool_limits(1):
        pca.fit(vectors)
    deviations = np.sqrt(np.maximum(pca.explained_variance_, np.finfo(np.float32).eps))
    return Whitening(
        mean=np.asarray(pca.mean_, np.float32),
        components=np.asarray(pca.components_ / deviations[:, None], np.float32),
    )
