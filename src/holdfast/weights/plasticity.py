"""Which weights may learn, told from the weights alone, without old data (KappaTune, arXiv 2506.16289, section 3).

The condition number kappa = sigma_max / sigma_min of a matrix does not change with its scale. Near 1 a matrix treats all directions
alike; a large one has learnt to tell some from others, and presumably holds what was learnt before. So the smallest learn first.
It is a proxy: it sees two of all singular values, one of which is noise in a matrix that nothing forced to be regular, and what is
smallest by it lies at certain depths. In our claim 53 the smallest forget more than matrices drawn by lot (in two of three seeds),
and no measure here does better than the lot. Give ``balanced`` where you use it, and compare.

A tall matrix looks regular by its shape alone: ``shape`` divides by what a random matrix of the shape has,
(1 + sqrt q) / (1 - sqrt q) with q = n/m (Marchenko and Pastur), and for square ones exp(1.537) n (Edelman 1988).

For models of PEFT there is ``peft.helpers.KappaTuneSelector``; ``to_peft_targets`` gives our choice to any of its methods.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from holdfast.errors import InputError
from holdfast.latent.identity import weights_digest
from holdfast.torched import Tensor, nn, torch

PROFILE = ()  # a choice of weights, and no memory by itself

Measure = Literal["kappa", "effective_rank", "stable_rank", "norm"]


@dataclass(frozen=True, slots=True)
class Score:
    """One weight of a model, by its singular values; of a stack of matrices, such as fused experts, the means of them all.

    Fields
        name: of the parameter.
        value: what it is ranked by; the smallest may learn first.
        kappa: the condition number; at most that which its precision can tell, see ``resolved``.
        effective_rank: exp of the entropy of the singular values as shares, from 1 to the rank.
        stable_rank: the squared Frobenius norm by the squared largest singular value.
        norm: the Frobenius norm by the root of the number of weights, so that it does not grow with them.
        parameters: how many weights.
        rows, columns: of the matrix that was looked at.
        resolved: whether the smallest singular value is above the noise of the precision that the weight is kept in.
    """

    name: str
    value: float
    kappa: float
    effective_rank: float
    stable_rank: float
    norm: float
    parameters: int
    rows: int
    columns: int
    resolved: bool


def rank(
    model: nn.Module,
    by: Measure | Callable[[Score], float],
    *,
    shape: bool = False,
    names: Collection[str] | None = None,
    cache: Path | None = None,
) -> tuple[Score, ...]:
    """The matrices of a model, those first that may learn first.

    Args:
        by: the smallest kappa, the highest ranks, the smallest norm, or the smallest of what a function says.
        shape: divide kappa, and the effective rank, by what a random matrix of the shape has.
        names: of the parameters that are looked at (None: all of two dimensions or more but embeddings).
        cache: a JSON file where singular values are kept under the digest of the weights, so that no other model is given them.

    Convolutions are looked at as (out, everything else); other tensors of three dimensions as stacks of matrices. Takes one
    singular value decomposition each, in 64 bits: a second for ten million weights. Raises InputError for a name that is no matrix.
    """
    modules = dict(model.named_modules())
    found = []
    named = dict(model.named_parameters())
    if names is None:
        wanted = [name for name, one in named.items() if one.dim() >= 2 and not _embeds(modules, name)]
    else:
        wanted = [name for name in named if name in names]
        if len(wanted) != len(set(names)) or any(named[name].dim() < 2 for name in wanted):
            raise InputError("names must be those of parameters with two dimensions or more")
    known = _cached(model, wanted, cache)
    for name in wanted:
        if name not in known:
            known[name] = _looked_at(name, named[name], modules[name.rpartition(".")[0]])
        found.append(known[name])
    _cache(model, known, cache)
    return ranked(found, by, shape=shape)  # those that are alike in the order of the model


def ranked(
    scores: Iterable[Score], by: Measure | Callable[[Score], float], *, shape: bool = False
) -> tuple[Score, ...]:
    """Scores in another order, without looking at the matrices again; see ``rank``."""
    return tuple(sorted((_valued(one, by, shape) for one in scores), key=lambda one: one.value))


def select(
    scores: Sequence[Score],
    budget: float = 0.2,
    *,
    by: Literal["parameters", "count"] = "parameters",
    balanced: bool = False,
) -> tuple[str, ...]:
    """The names of those that may learn: the first of a ranking, within a share of all weights, or of their number.

    What does not fit any more is passed over, and one is taken at least. ``balanced`` gives each depth (the first number of a path)
    the same share, so that a measure that differs by depth does not choose one.
    """
    if not 0 < budget <= 1:
        raise InputError(f"a budget is a share above 0 and at most 1, not {budget}")
    bands: dict[str, list[Score]] = defaultdict(list)
    for one in scores:
        bands[_depth(one.name) if balanced else ""].append(one)
    chosen: set[str] = set()
    for band in bands.values():
        total = sum(one.parameters for one in band) if by == "parameters" else len(band)
        spent = 0
        for one in band:
            cost = one.parameters if by == "parameters" else 1
            if spent + cost <= budget * total * (1 + 1e-9) or not spent:
                chosen.add(one.name)
                spent += cost
    return tuple(one.name for one in scores if one.name in chosen)


@dataclass(frozen=True, slots=True)
class Ranking:
    """``rank`` as a ``Selector``."""

    by: Measure | Callable[[Score], float]
    shape: bool = False
    cache: Path | None = None

    def scores(self, model: nn.Module) -> Mapping[str, float]:
        """See ``Selector``."""
        return {one.name: one.value for one in rank(model, self.by, shape=self.shape, cache=self.cache)}


def to_peft_targets(model: nn.Module, names: Iterable[str]) -> dict[str, list[str]]:
    """The same choice for ``LoraConfig(**...)`` of PEFT: ``target_modules`` of linear maps, ``target_parameters`` of the rest."""
    modules = dict(model.named_modules())
    targets: dict[str, list[str]] = {"target_modules": [], "target_parameters": []}
    for name in names:
        path, _, last = name.rpartition(".")
        plain = last == "weight" and (isinstance(modules[path], nn.Linear) or type(modules[path]).__name__ == "Conv1D")
        targets["target_modules" if plain else "target_parameters"].append(path if plain else name)
    return {kind: some for kind, some in targets.items() if some}


def expected_kappa(rows: int, columns: int) -> float:
    """Of a matrix of independent normal numbers."""
    m, n = max(rows, columns), min(rows, columns)
    root = math.sqrt(n / m)
    square = math.exp(1.537) * n
    return min((1 + root) / (1 - root), square) if m > n else square


def _valued(one: Score, by: Measure | Callable[[Score], float], shape: bool) -> Score:
    if callable(by):
        value = float(by(one))
    elif by == "kappa":
        value = one.kappa / (expected_kappa(one.rows, one.columns) if shape else 1.0)
    elif by == "effective_rank":
        value = -one.effective_rank / (min(one.rows, one.columns) if shape else 1.0)
    elif by == "stable_rank":
        value = -one.stable_rank / (min(one.rows, one.columns) if shape else 1.0)
    elif by == "norm":
        value = one.norm
    else:
        raise InputError(f"matrices are ranked by kappa, effective_rank, stable_rank, norm or a function, not {by!r}")
    return Score(**{**asdict(one), "value": value})


def _looked_at(name: str, weight: Tensor, module: nn.Module) -> Score:
    plain = weight.detach().double()
    if not bool(torch.isfinite(plain).all()):
        raise InputError(f"{name!r} holds numbers that are not finite")
    convolution = isinstance(module, nn.modules.conv._ConvNd)
    matrices = plain.flatten(1)[None] if convolution else plain.reshape(-1, *plain.shape[-2:])
    rows, columns = matrices.shape[-2:]
    values = torch.linalg.svdvals(matrices)
    # Below this a singular value is rounding of the weights themselves.
    floor = max(rows, columns) * (torch.finfo(weight.dtype).eps if weight.dtype.is_floating_point else 0.0)
    largest, least = values[:, 0], values[:, -1]
    if bool((largest == 0).any()):
        raise InputError(f"{name!r} holds a matrix of zeros, whose singular values say nothing: leave it out")
    shares = values / values.sum(-1, keepdim=True)
    entropy = -(shares * shares.clamp_min(1e-300).log()).sum(-1)
    return Score(
        name,
        0.0,
        float((largest / least.clamp_min(largest * floor)).mean()),
        float(entropy.exp().mean()),
        float(((values**2).sum(-1) / largest**2).mean()),
        float(plain.square().mean().sqrt()),
        weight.numel(),
        rows,
        columns,
        bool((least > largest * floor).all()),
    )


def _embeds(modules: Mapping[str, nn.Module], name: str) -> bool:
    return isinstance(modules[name.rpartition(".")[0]], nn.Embedding)


def _depth(name: str) -> str:
    found = re.search(r"(?<![^.])\d+(?![^.])", name)
    return found[0] if found else ""


# --- what was found before ---


def _cached(model: nn.Module, wanted: Sequence[str], cache: Path | None) -> dict[str, Score]:
    if cache is None or not cache.exists():
        return {}
    try:
        kept = json.loads(cache.read_text(encoding="utf-8")).get(weights_digest(model), {})
        return {name: Score(**kept[name]) for name in wanted if name in kept}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{cache} is no file of singular values: remove it, or name another") from error


def _cache(model: nn.Module, scores: Mapping[str, Score], cache: Path | None) -> None:
    if cache is None:
        return
    whole = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    of = whole.setdefault(weights_digest(model), {})
    of |= {name: asdict(one) for name, one in scores.items()}
    draft = cache.with_name(f".{cache.name}.{os.getpid()}")
    draft.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    draft.replace(cache)
