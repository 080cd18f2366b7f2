"""The other consensus of A-MemGuard's published code: the largest cluster of chain embeddings (arXiv 2510.02373; DBSCAN).

Kept for comparison: at the published radius all chains of one database fall into one cluster, poison included.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.CASES,),
    retrieval=(Retrieval.SEMANTIC, Retrieval.FILTER),
    subject=(Subject.AGENT,),
    modality=(Modality.VECTOR,),
)

NOISE = -1
"""The label of what belongs to no cluster."""


def dbscan(vectors: npt.NDArray[np.floating], *, eps: float = 0.5, min_samples: int = 2) -> npt.NDArray[np.intp]:
    """The cluster of each row (n, dimension) by density, under the cosine distance; ``NOISE`` where there is none.

    Clusters are numbered in the order of their first core row; a border row belongs to the first that reaches it. A row
    counts among its own ``min_samples`` neighbours; distances equal to ``eps`` are within. Raises InputError.
    """
    if vectors.ndim != 2 or eps <= 0 or min_samples < 1:
        raise InputError("dbscan takes rows of vectors, a positive eps and min_samples from 1 on")
    rows = np.asarray(vectors, np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    near = 1.0 - unit @ unit.T <= eps
    np.fill_diagonal(near, True)
    core = near.sum(axis=1) >= min_samples
    labels = np.full(len(rows), NOISE, np.intp)
    cluster = 0
    for first in np.flatnonzero(core):
        if labels[first] != NOISE:
            continue
        labels[first] = cluster
        frontier = [int(first)]
        while frontier:
            row = frontier.pop()
            if core[row]:
                reached = np.flatnonzero(near[row] & (labels == NOISE))
                labels[reached] = cluster
                frontier += reached.tolist()
        cluster += 1
    return labels


def largest_cluster(vectors: npt.NDArray[np.floating], *, eps: float = 0.5, min_samples: int = 2) -> list[int]:
    """The rows of the largest cluster (of equal ones that of the first row), in order; empty where all is noise."""
    labels = dbscan(vectors, eps=eps, min_samples=min_samples).tolist()
    sizes = Counter(label for label in labels if label != NOISE).most_common(1)
    return [at for at, label in enumerate(labels) if sizes and label == sizes[0][0]]
