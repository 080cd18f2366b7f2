"""Selective synaptic dampening (SSD, arXiv 2308.07707 eq. 3-7): weights that matter far more to what is to be forgotten than to all
else are made smaller. Used for corrective unlearning (arXiv 2402.14015), where most of what is wrong was never found.

What comes out stands beside the weights: places and factors, bound to the very model that they were made for. They hold for the
length of a block, or are applied and can be undone to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.cube import Form
from holdfast.errors import ConflictError, InputError, StaleError
from holdfast.latent.identity import weights_digest
from holdfast.latent.tensors import key_of, pack, unpack
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.answers import Read, answers, rows_in
from holdfast.weights.base import Batch, evaluating, frozen

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.INTERNAL,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.UPDATE_INTERNAL, Evolution.FORGET_BY_IMPORTANCE),
    subject=(Subject.USER, Subject.WORLD),
    trainable=Trainable.NO,
)

ALPHA, STRENGTH = 10.0, 1.0
"""The defaults of arXiv 2308.07707. They mean nothing in another setting: search them (``repair``), or use ``adaptive_alpha``."""


# --- how much a weight matters ---


@dataclass(frozen=True, slots=True)
class Importances:
    """How much each weight matters to some data. Raises InputError.

    Fields
        values: by parameter, of its shape.
        batch: rows a batch. Gradients are means of batches, so importances of another batch size are of another scale.
        labelled: whether labels were needed (the mean square of the loss's gradient) or not (the mean size of that of |logits|²).
        weights: the digest of the model that they were measured on.
    """

    values: Mapping[str, Tensor]
    batch: int
    labelled: bool
    weights: str

    def __post_init__(self) -> None:
        if not self.values or self.batch < 1:
            raise InputError("importances are of one parameter at least, by batches of one row or more")

    def pack(self, *, short: bool = False) -> bytes:
        """As a file, to be kept with the model, so that only what is flagged must be measured anew.

        ``short``: as bfloat16, which has half the size and every magnitude; float16 has not: squares of small gradients vanish.
        """
        kept = {name: one.to(torch.bfloat16) if short else one for name, one in self.values.items()}
        return pack(kept, self._key())

    @classmethod
    def unpack(cls, data: bytes, model: nn.Module) -> Importances:
        """What ``pack`` gave. Raises StaleError for those of another model, InputError for another file."""
        key = key_of(data)
        if key.get("kind") != "importances":
            raise InputError("this file holds no importances")
        weights = weights_digest(model)
        values = unpack(data, {**key, "weights": weights})
        if missing := sorted({*values} - {name for name, _ in model.named_parameters()}):
            raise StaleError(f"importances are of parameters that the model has not: {missing[0]}")
        # Ratios are formed in full precision, whatever was kept.
        full = {name: one.float() if one.dtype == torch.bfloat16 else one for name, one in values.items()}
        return cls(full, key["batch"], key["labelled"], weights)

    def _key(self) -> dict[str, Any]:
        return {"kind": "importances", "batch": self.batch, "labelled": self.labelled, "weights": self.weights}


def importances(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    size: int,
    labelled: bool = True,
    names: Iterable[str] | None = None,
    read: Read = answers,
) -> Importances:
    """One pass over data, without dropout: eq. 3 by batches. The model is left as it was. Raises InputError.

    Args:
        model: any; its parameters are not changed, and neither are their gradients.
        batches: of ``size`` rows each; the last may have fewer, and so may the only one.
        size: is kept with the values, and importances of different sizes are not compared.
        labelled: with labels, the square of the gradient of the batch's mean loss; without, the size of that of the mean |logits|².
        names: of the parameters that may be dampened; by default all, biases and norms among them.
    """
    known = dict(model.named_parameters())
    chosen = [*known] if names is None else [*names]
    if unknown := sorted({*chosen} - {*known}):
        raise InputError(f"the model has no parameter {unknown[0]!r}: name some of named_parameters()")
    parameters = [known[name] for name in chosen]
    sums = [torch.zeros(one.shape, dtype=_wide(one), device=one.device) for one in parameters]
    digest, count, short = weights_digest(model), 0, False
    with evaluating(model), frozen(model, parameters), torch.enable_grad():
        for batch in batches:
            rows = rows_in(batch)
            if short or rows > size:
                raise InputError(f"batches have {size} rows each, and only the last may have fewer")
            short = rows < size
            said = read(model, batch)
            loss = said.loss if labelled else said.logits.square().sum(dim=-1).mean()
            for total, gradient in zip(sums, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                if gradient is not None:
                    total += gradient.to(total.dtype).square() if labelled else gradient.to(total.dtype).abs()
            count += 1
    if not count:
        raise InputError("there is nothing to measure by: no batch was given")
    means = {name: total / count for name, total in zip(chosen, sums, strict=True)}
    if wrong := [name for name, one in means.items() if not bool(torch.isfinite(one).all())]:
        raise InputError(f"the gradient of {wrong[0]!r} is not finite")
    return Importances(means, size, labelled, digest)


def adaptive_alpha(original: Importances, flagged: Importances, share: float) -> float:
    """The threshold that needs no search, to be used with a strength of 1 (arXiv 2402.10098).

    It is the percentile 100 - ln(1 + 100 ``share``) of the ratio of both importances, ``share`` being the flagged rows by all rows.
    Raises InputError.
    """
    _comparable(original, flagged)
    if not 0.0 < share <= 1.0:
        raise InputError(f"what is flagged is a share of all rows in (0, 1], not {share}")
    ratios = []
    for name, whole in original.values.items():
        found = flagged.values[name].double() / whole.double()
        # Without 0 / 0, and without what only the flagged rows use.
        ratios.append(found[torch.isfinite(found)].cpu().numpy())
    every = np.concatenate(ratios)
    if not len(every):
        raise InputError("no weight matters to anything but what is flagged")
    return float(np.percentile(every, 100 - math.log(1 + 100 * share)))


# --- what is made of it ---


@dataclass(frozen=True, slots=True)
class Dampening:
    """Factors for some weights of one model.

    Fields
        places: by parameter, the places in it when it is flattened; int64, ascending.
        factors: by parameter, what the weights there are multiplied with, in [0, 1].
        weights: the digest of the model that this was made for, and that it serves alone.
        alpha, strength: as chosen.
    """

    places: Mapping[str, Tensor]
    factors: Mapping[str, Tensor]
    weights: str
    alpha: float
    strength: float

    @property
    def changed(self) -> int:
        """How many weights are made smaller."""
        return sum(int((one < 1).sum()) for one in self.factors.values())

    @property
    def depth(self) -> float:
        """How much is taken away in all: the sum of 1 - factor."""
        return sum(float((1 - one).sum()) for one in self.factors.values())

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Within the block the model computes with the dampened weights; afterwards with what it had, bit by bit.

        Raises StaleError for another model than this was made for.
        """
        self._check(model)
        with laid(model, self):
            yield

    def apply(self, model: nn.Module) -> Applied:
        """Change the model in place. Raises StaleError for another model.

        A product cannot be divided out again exactly, so what stood there before is in what comes back; once that is dropped, the
        change is for good.
        """
        self._check(model)
        before = _dampen(model, self)
        return Applied(model, self.places, before, weights_digest(model))

    def pack(self) -> bytes:
        """As a file, without the weights that were. Raises InputError where nothing is dampened."""
        tensors = {f"places.{name}": one for name, one in self.places.items()}
        tensors |= {f"factors.{name}": one for name, one in self.factors.items()}
        return pack(tensors, self._key())

    @classmethod
    def unpack(cls, data: bytes, model: nn.Module) -> Dampening:
        """What ``pack`` gave, for the model that it was made for. Raises StaleError for another, InputError for another file."""
        key = key_of(data)
        if key.get("kind") != "dampening":
            raise InputError("this file holds no dampening")
        weights = weights_digest(model)
        tensors = unpack(data, {**key, "weights": weights})
        parts: dict[str, dict[str, Tensor]] = {"places": {}, "factors": {}}
        for name, tensor in tensors.items():
            part, _, of = name.partition(".")
            parts[part][of] = tensor
        return cls(parts["places"], parts["factors"], weights, key["alpha"], key["strength"])

    def _check(self, model: nn.Module) -> None:
        if weights_digest(model) != self.weights:
            raise StaleError("this dampening was made for other weights: measure the model as it is now")

    def _key(self) -> dict[str, Any]:
        return {"kind": "dampening", "weights": self.weights, "alpha": self.alpha, "strength": self.strength}


class Applied:
    """A dampening that is in a model now, with what it replaced."""

    def __init__(self, model: nn.Module, places: Mapping[str, Tensor], before: Mapping[str, Tensor], now: str) -> None:
        self._model, self._places, self._before, self._now = model, places, before, now
        self._undone = False

    def undo(self) -> None:
        """Put back what was there, bit by bit. Raises ConflictError where the model was changed since, or for a second time."""
        if self._undone:
            raise ConflictError("this was undone already")
        if weights_digest(self._model) != self._now:
            raise ConflictError("the weights were changed since: undo that first")
        _restore(self._model, self._places, self._before)
        self._undone = True


def dampening(
    original: Importances,
    flagged: Importances,
    *,
    alpha: float = ALPHA,
    strength: float = STRENGTH,
) -> Dampening:
    """Which weights to dampen, and by how much (eq. 5-7); the model is not needed, and nothing is changed. Raises InputError.

    Args:
        original: of all data, or of what is to be kept.
        flagged: of what is to be forgotten, with the labels that it was learnt with.
        alpha: a weight is chosen that matters more than so many times as much to what is flagged.
        strength: λ: it is multiplied with min(λ original / flagged, 1).
    """
    _comparable(original, flagged)
    if not (alpha > 0 and strength > 0):
        raise InputError("alpha and strength are above zero")
    places, factors = {}, {}
    for name, whole in original.values.items():
        theirs, ours = whole.flatten(), flagged.values[name].flatten().to(whole)
        # Chosen weights matter to what is flagged by more than nothing, so that the ratio always is a number.
        chosen = torch.nonzero(ours > alpha * theirs).flatten()
        if len(chosen):
            places[name] = chosen
            factors[name] = (strength * theirs[chosen] / ours[chosen]).clamp(max=1.0)
    return Dampening(places, factors, original.weights, alpha, strength)


@contextmanager
def laid(model: nn.Module, over: Dampening) -> Iterator[None]:
    """``Dampening.attached`` for one who knows that the model is the right one and tries many: nothing is hashed."""
    before = _dampen(model, over)
    try:
        yield
    finally:
        _restore(model, over.places, before)


# --- parts ---


def _dampen(model: nn.Module, by: Dampening) -> dict[str, Tensor]:
    """Multiply; what stood there before."""
    parameters = dict(model.named_parameters())
    before = {name: _at(parameters[name], places) for name, places in by.places.items()}
    for name, places in by.places.items():
        _put(parameters[name], places, before[name] * by.factors[name].to(parameters[name].device))
    return before


def _restore(model: nn.Module, places: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, some in places.items():
        _put(parameters[name], some, before[name])


def _comparable(original: Importances, flagged: Importances) -> None:
    if original.weights != flagged.weights:
        raise StaleError("importances are compared that were measured on the same weights: measure them anew")
    if (original.batch, original.labelled) != (flagged.batch, flagged.labelled):
        raise InputError(
            "importances are compared that were measured alike: the same batch size, both with labels or both without"
        )
    if original.values.keys() != flagged.values.keys():
        raise InputError("importances are compared that are of the same parameters")


def _wide(parameter: Tensor) -> Any:
    """The precision to sum in: squares of gradients are too small for half of one."""
    return torch.promote_types(parameter.dtype, torch.float32)


def _at(parameter: Tensor, places: Tensor) -> Tensor:
    return parameter.detach().flatten()[places.to(parameter.device)]


def _put(parameter: Tensor, places: Tensor, values: Tensor) -> None:
    """In the logical order of a parameter, however it lies in memory."""
    flat = parameter.detach().flatten().clone()
    flat[places.to(flat.device)] = values.to(flat.dtype)
    with torch.no_grad():
        parameter.copy_(flat.view(parameter.shape))
