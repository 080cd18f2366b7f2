"""The tree of clusters by which blocks of weights are addressed (arXiv 2510.02375, section on clustering; no equation numbers).

Texts are embedded, and their vectors are cut by k-means into a tree, root first. The address of a text is the greedy walk down to
the nearest child: one number a level, (i_1, ..., i_p), where i_l = i_p // k^(p-l). So an address is its own list of ancestors, and
a node is the beginning of an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import InputError
from holdfast.latent.tensors import key_of, pack, unpack
from holdfast.torched import Tensor, torch

PROFILE = ()  # no memory, but where it lies

Address = tuple[int, ...]

_AT_ONCE = 1 << 24  # numbers that a comparison with centroids takes into memory


@dataclass(frozen=True, slots=True)
class ClusterTree:
    """Centroids by level, the first of shape (roots, D), level l of shape (roots·k^(l-1), D); a row of infinities is no cluster.

    ``embedder`` names what the vectors are of: addresses by another's are worth nothing.
    """

    centroids: tuple[Tensor, ...]
    branching: int
    embedder: str = ""

    @classmethod
    def fit(
        cls,
        embeddings: Tensor,
        branching: int = 16,
        depth: int = 3,
        *,
        steps: int = 20,
        sample: int = 6400,
        most: float | None = 1.5,
        seed: int = 0,
        embedder: str = "",
    ) -> ClusterTree:
        """Of embeddings, shape (N, D); they are brought to length 1.

        ``steps`` of k-means in each node, each with ``sample`` examples of the node's own that are drawn anew. ``most``: a cluster
        that takes more than so many times its even share gives half of it, by lot, to the smallest; None: it does not. Raises
        InputError.
        """
        if branching < 2 or depth < 1:
            raise InputError(f"a tree has two children a node and one level at least, not {branching} and {depth}")
        vectors = _unit(embeddings)
        generator = torch.Generator().manual_seed(seed)
        levels: list[Tensor] = []
        at = torch.zeros(len(vectors), dtype=torch.int64)  # the node that each has come to
        for _ in range(depth):
            parents = levels[-1] if levels else vectors.mean(0, keepdim=True)
            order, counts = at.argsort(stable=True), at.bincount(minlength=len(parents))
            of = order.split(counts.tolist())
            found = [
                _clusters(vectors[mine], parent, branching, steps, sample, most, generator)
                for mine, parent in zip(of, parents, strict=True)
            ]
            levels.append(torch.cat(found))
            at = at * branching + _nearest(vectors, torch.stack(found), at)
        return cls(tuple(levels), branching, embedder)

    @property
    def depth(self) -> int:
        """How many levels there are below the root."""
        return len(self.centroids)

    @property
    def roots(self) -> int:
        """How many children the root has: as many as any node, and one more for each time the tree has grown."""
        return len(self.centroids[0])

    def address(self, vector: Tensor, without: Sequence[Address] = ()) -> Address:
        """Of one embedding, shape (D,). ``without``: nodes that the walk keeps out of. Raises InputError where none is left."""
        return tuple(self.addresses(vector[None], without)[0].tolist())

    def addresses(self, vectors: Tensor, without: Sequence[Address] = ()) -> Tensor:
        """Of embeddings of shape (N, D): ints of shape (N, depth)."""
        vectors = _unit(vectors)
        if vectors.shape[1] != self.centroids[0].shape[1]:
            raise InputError(f"the tree is of vectors of {self.centroids[0].shape[1]} numbers, not {vectors.shape[1]}")
        at, found = torch.zeros(len(vectors), dtype=torch.int64), []
        for level, centroids in enumerate(self.centroids):
            closed = [node[-1] for node in without if len(node) == level + 1]
            if closed:
                centroids = centroids.clone()
                centroids[closed] = torch.inf
            children = self.roots if level == 0 else self.branching
            at = at * children + _nearest(vectors, centroids.view(-1, children, centroids.shape[1]), at)
            found.append(at)
        return torch.stack(found, dim=1)

    def grown(self, embeddings: Tensor, *, seed: int = 0, **given: Any) -> ClusterTree:
        """The tree with one more child of the root, for texts of a new topic. Every other node keeps its number and its place.

        A text that is nearer to the new branch than to its own goes there from now on; ``given`` as of ``fit``.
        """
        vectors = _unit(embeddings)
        if vectors.shape[1] != self.centroids[0].shape[1]:
            raise InputError(f"a tree of vectors of {self.centroids[0].shape[1]} numbers grows by one or more of them")
        added = [vectors.mean(0, keepdim=True)]
        if self.depth > 1:
            added += ClusterTree.fit(vectors, self.branching, self.depth - 1, seed=seed, **given).centroids
        levels = tuple(torch.cat(both) for both in zip(self.centroids, added, strict=True))
        return ClusterTree(levels, self.branching, self.embedder)

    def pack(self) -> bytes:
        """The tree as a file."""
        key = {"kind": "cluster tree", "branching": self.branching, "embedder": self.embedder}
        return pack({str(level): one for level, one in enumerate(self.centroids, 1)}, key)

    @classmethod
    def unpack(cls, data: bytes, embedder: str = "") -> ClusterTree:
        """What ``pack`` gave. Raises StaleError where it is of another embedder's vectors, InputError for another file."""
        branching = key_of(data).get("branching", 0)
        levels = unpack(data, {"kind": "cluster tree", "branching": branching, "embedder": embedder})
        return cls(tuple(levels[str(level)] for level in range(1, len(levels) + 1)), int(branching), embedder)


def _unit(vectors: Tensor) -> Tensor:
    if vectors.dim() != 2 or not len(vectors) or not torch.isfinite(vectors).all():
        raise InputError(f"embeddings are finite numbers of shape (N, D), not {tuple(vectors.shape)}")
    vectors = vectors.detach().float().cpu()
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _nearest(vectors: Tensor, children: Tensor, at: Tensor) -> Tensor:
    """Of each vector, shape (N, D), which child of its node is nearest by L2; children of shape (nodes, k, D)."""
    found = []
    for some, of in zip(*(one.split(max(1, _AT_ONCE // children[0].numel())) for one in (vectors, at)), strict=True):
        # Differences, not products: an infinity stays one, and what is equal is equal.
        least = (children[of] - some[:, None]).square().sum(-1).min(dim=1)
        if torch.isinf(least.values).any():
            raise InputError("the walk comes to a node all of whose children it is to keep out of")
        found.append(least.indices)
    return torch.cat(found)


def _clusters(
    vectors: Tensor,
    parent: Tensor,
    count: int,
    steps: int,
    sample: int,
    most: float | None,
    generator: torch.Generator,
) -> Tensor:
    """Centroids of one node's own, shape (count, D); where it has too few examples, infinities for the rest."""
    if len(vectors) <= count:
        found = torch.full((count, len(parent)), torch.inf)
        found[: max(1, len(vectors))] = vectors if len(vectors) else parent
        return found
    centroids = _seeded(vectors[torch.randperm(len(vectors), generator=generator)[:sample]], count, generator)
    order, used = torch.randperm(len(vectors), generator=generator), 0
    for _ in range(steps):
        if used + sample > len(order):  # all have been seen, or there are no more than one sample takes
            order, used = torch.randperm(len(vectors), generator=generator), 0
        some = vectors[order[used : used + sample]]
        used += len(some)
        assigned = _distances(some, centroids).argmin(dim=1)
        if most is not None:
            assigned = _balanced(assigned, count, most, generator)
        sizes = assigned.bincount(minlength=count)
        sums = torch.zeros_like(centroids).index_add_(0, assigned, some)
        centroids = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centroids)
    return centroids


def _seeded(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means++: each seed drawn as far from the others as it lies squared; of a few drawn, the one that helps most."""
    tries = 2 + count.bit_length()
    chosen = vectors[torch.randint(len(vectors), (1,), generator=generator)]
    nearest = _distances(vectors, chosen)[:, 0]
    for _ in range(count - 1):
        # Where all that is left lies on a seed already, any will do.
        weights = nearest if float(nearest.sum()) > 0 else torch.ones_like(nearest)
        drawn = torch.multinomial(weights, tries, replacement=True, generator=generator)
        closer = torch.minimum(nearest[:, None], _distances(vectors, vectors[drawn]))
        best = int(closer.sum(0).argmin())
        chosen, nearest = torch.cat([chosen, vectors[drawn[best]][None]]), closer[:, best]
    return chosen


def _balanced(assigned: Tensor, count: int, most: float, generator: torch.Generator) -> Tensor:
    """Of what too large a cluster was assigned half goes, by lot, to the smallest; the largest first."""
    assigned = assigned.clone()
    for _ in range(count):
        sizes = assigned.bincount(minlength=count)
        largest, smallest = int(sizes.argmax()), int(sizes.argmin())
        if sizes[largest] <= most * len(assigned) / count:
            break
        mine = (assigned == largest).nonzero()[:, 0]
        assigned[mine[torch.randperm(len(mine), generator=generator)][: len(mine) // 2]] = smallest
    return assigned


def _distances(vectors: Tensor, centroids: Tensor) -> Tensor:
    """Squared, shape (N, k); of unit vectors, where products are good enough."""
    squared = vectors.square().sum(1)[:, None] - 2 * vectors @ centroids.T + centroids.square().sum(1)
    return squared.clamp_min(0)
