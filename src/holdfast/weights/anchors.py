"""Weights held where they were (arXiv 2203.17269, section 3): an L2 anchor, and one weighed by a diagonal Fisher information (EWC,
arXiv 1612.00796).

    penalty = weight * sum_j F_j (theta_j - theta*_j)^2        (no 1/2; F = 1 for L2)

From a pre-trained model the paper finds plain L2 towards the weights before the task the best that needs no old data; our claim 31
does not. It can hold from the first task on. It keeps the features and does nothing for the head: join it with
``distillation.PredictionDistiller``, or leave old classes out of the loss. Normalisation statistics are no weights and no anchor
holds them; ``learning.Plastic`` keeps them still.

The pull is not of strength ``weight`` under Adam, which divides by the size of gradients: choose it on a log grid, and on the first
tasks alone, for choosing it on all of them looks into the future.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.latent.identity import weights_digest
from holdfast.latent.tensors import pack, unpack
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.answers import answers, in_batches, rows_in
from holdfast.weights.base import Batch, evaluating
from holdfast.weights.calls import inputs, kept, logits_of

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.INTERNAL,
    (Function.SKILLS, Function.FACTS_ENVIRONMENT),
    formation=(Formation.INTERNALISE,),
    evolution=(Evolution.CONSOLIDATE_GLOBAL, Evolution.UPDATE_INTERNAL),
    subject=(Subject.AGENT, Subject.WORLD),
    trainable=Trainable.FULL,
)

EVERYTHING: tuple[str, ...] = ("*",)
ATTENTION: tuple[str, ...] = (
    *("q_proj", "k_proj", "v_proj", "qkv", "qkv_proj", "query_key_value", "in_proj_weight", "in_proj_bias"),
    *("c_attn", "attention.query", "attention.key", "attention.value"),
)
"""The projections to queries, keys and values, as models of ``transformers`` and torch call them."""
HEADS: tuple[str, ...] = ("head", "lm_head", "classifier", "score")
"""What is left free: a head is the part of a model that a new task changes by nature."""


def scoped(model: nn.Module, scope: Sequence[str] = EVERYTHING, without: Sequence[str] = ()) -> dict[str, nn.Parameter]:
    """The learning parameters by name whose path has a part that fits a pattern: ``q_proj``, ``layers.3.*.weight``.

    Raises InputError where nothing is left.
    """

    def fits(name: str, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(f".{name}.", f"*.{pattern}.*") for pattern in patterns)

    found = {
        name: one
        for name, one in model.named_parameters()
        if one.requires_grad and fits(name, scope) and not fits(name, without)
    }
    if not found:
        raise InputError(
            f"no parameter that learns fits {list(scope)} without {list(without)}: name parts of their paths"
        )
    return found


class L2Anchor:
    """A pull towards the weights before the task. ``weight`` is lambda of the sum of squares, not of their mean.

    Args:
        weight: how hard.
        scope, without: patterns of what is held, see ``scoped``. Rows that a parameter has grown since are free.
        pretrained: hold in the first task too. False for a model that begins at random: there is nothing to keep yet.
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        scope: Sequence[str] = EVERYTHING,
        without: Sequence[str] = HEADS,
        pretrained: bool = True,
    ) -> None:
        self.weight = _weight(weight)
        self._scope, self._without = tuple(scope), tuple(without)
        self._holds = pretrained
        self._anchor: dict[str, Tensor] = {}

    @property
    def size(self) -> int:
        """What is kept, in bytes."""
        return _bytes(self._anchor)

    def start_task(self, model: nn.Module) -> None:
        """See ``Regularizer``. What does not learn at this moment is not held."""
        learning = scoped(model, self._scope, self._without)
        self._anchor = {name: one.detach().clone() for name, one in learning.items()} if self._holds else {}

    def penalty(self, model: nn.Module, batch: Batch, outputs: Any) -> Tensor:
        """See ``Regularizer``."""
        return self.weight * _distance(model, self._anchor, None)

    def end_task(self, model: nn.Module, data: Iterable[Batch] = ()) -> None:
        """See ``Regularizer``; the next task begins by looking."""
        self._holds = True


class FisherAnchor:
    """A pull that is the stronger, the more a weight mattered for the tasks before: elastic weight consolidation.

    Args:
        weight: how hard. It means nothing without ``rows``: gradients of B rows at once are smaller and so is F.
        labels: ``model``, the classes that the model itself finds likeliest, as in the paper's code; ``true``, those of the data.
        online: None keeps an F and an anchor for each task; a number from 0 to 1 keeps one, F <- online F + F of the task.
        samples: rows that are looked at after a task, at most (None: all).
        rows: of how many a gradient is taken at once. 1 is the Fisher information; avalanche and the paper's code use the batch.
        scope, without: see ``L2Anchor``.
    """

    def __init__(
        self,
        weight: float = 100.0,
        *,
        labels: Literal["model", "true"] = "model",
        online: float | None = 1.0,
        samples: int | None = 1000,
        rows: int = 1,
        scope: Sequence[str] = EVERYTHING,
        without: Sequence[str] = HEADS,
    ) -> None:
        if online is not None and not 0 <= online <= 1:
            raise InputError(f"what remains of the Fisher of former tasks is from 0 to 1, not {online}")
        if rows < 1 or (samples is not None and samples < 1):
            raise InputError("a Fisher information is of one row or more")
        self.weight = _weight(weight)
        self._labels, self._online, self._samples, self._rows = labels, online, samples, rows
        self._scope, self._without = tuple(scope), tuple(without)
        self._held: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    @property
    def size(self) -> int:
        """What is kept, in bytes."""
        return sum(_bytes(fisher) + _bytes(anchor) for fisher, anchor in self._held)

    def start_task(self, model: nn.Module) -> None:
        """See ``Regularizer``; what is held was found at the end of the task before."""

    def penalty(self, model: nn.Module, batch: Batch, outputs: Any) -> Tensor:
        """See ``Regularizer``; 0 in the first task."""
        total = _distance(model, {}, None)
        for fisher, anchor in self._held:
            total = total + _distance(model, anchor, fisher)
        return self.weight * total

    def end_task(self, model: nn.Module, data: Iterable[Batch] = ()) -> None:
        """See ``Regularizer``. Raises InputError without data: this one measures."""
        fisher = self._fisher(model, data)
        anchor = {name: one.detach().clone() for name, one in model.named_parameters() if name in fisher}
        if self._online is None:
            self._held.append((fisher, anchor))
            return
        for before, _ in self._held:
            for name, old in before.items():
                if name in fisher:
                    _grown(fisher[name], old).add_(old, alpha=self._online)
        self._held = [(fisher, anchor)]

    def pack(self, model: nn.Module) -> bytes:
        """What is held as a file, for a cube of form ``weights``: the data that it was measured on need not be kept.

        Raises InputError where nothing is held yet.
        """
        named = {
            f"{at}.{kind}.{name}": one
            for at, both in enumerate(self._held)
            for kind, part in zip(("fisher", "anchor"), both, strict=True)
            for name, one in part.items()
        }
        return pack(named, self._key(model))

    def restore(self, data: bytes, model: nn.Module) -> None:
        """Hold what was packed. Raises StaleError where it is of other weights or settings."""
        held: dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}
        order = {name: at for at, (name, _) in enumerate(model.named_parameters())}
        # In the model's order, not in the file's, which is none: so that a penalty is the same sum to the last bit.
        for name, one in sorted(
            unpack(data, self._key(model)).items(), key=lambda both: order[both[0].split(".", 2)[2]]
        ):
            at, kind, rest = name.split(".", 2)
            held.setdefault(int(at), ({}, {}))[kind == "anchor"][rest] = one
        self._held = [held[at] for at in sorted(held)]

    def _key(self, model: nn.Module) -> dict[str, Any]:
        settings = {"labels": self._labels, "online": self._online, "rows": self._rows}
        return {"kind": "fisher", "weights": weights_digest(model), **settings}

    def _fisher(self, model: nn.Module, data: Iterable[Batch]) -> dict[str, Tensor]:
        """The mean square of the gradient of the loss, by ``rows`` rows."""
        learning = scoped(model, self._scope, self._without)
        found = {name: torch.zeros_like(one) for name, one in learning.items()}
        seen = parts = 0
        with evaluating(model), torch.enable_grad():
            for some in (part for batch in data for part in in_batches(batch, self._rows)):
                if self._samples is not None and seen >= self._samples:
                    break
                # Not ``backward``: what a caller has gathered in ``grad`` stays his.
                gradients = torch.autograd.grad(self._loss(model, some), [*learning.values()], allow_unused=True)
                for name, gradient in zip(found, gradients, strict=True):
                    if gradient is not None:
                        found[name].add_(gradient.detach() ** 2)
                seen, parts = seen + rows_in(some), parts + 1
        if not parts:
            raise InputError("a Fisher information is measured on data: give end_task batches of the task")
        return {name: one / parts for name, one in found.items()}

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if self._labels == "true":
            return answers(model, batch).loss
        likely = kept(batch, logits_of(model(**inputs(batch))))
        return nn.functional.cross_entropy(likely, likely.argmax(-1))


def _weight(weight: float) -> float:
    if not weight >= 0:
        raise InputError(f"a penalty's weight is 0 or more, not {weight}")
    return weight


def _distance(model: nn.Module, anchor: Mapping[str, Tensor], fisher: Mapping[str, Tensor] | None) -> Tensor:
    """sum F (theta - theta*)^2 over what is held; a scalar, 0 of nothing."""
    parameters = dict(model.named_parameters())
    total = next(iter(parameters.values())).new_zeros(())
    for name, was in anchor.items():
        if name not in parameters:
            raise InputError(
                f"the model has lost {name!r}, which is held: start the task again with the model as it is"
            )
        square = (_grown(parameters[name], was) - was) ** 2
        total = total + (square if fisher is None else fisher[name] * square).sum()
    return total


def _grown(now: Tensor, was: Tensor) -> Tensor:
    """The part of a tensor that was there before it grew. Raises InputError where it shrank."""
    if now.shape == was.shape:
        return now
    if now.dim() != was.dim() or any(a < b for a, b in zip(now.shape, was.shape, strict=True)):
        raise InputError(
            f"a held parameter of shape {tuple(was.shape)} has become {tuple(now.shape)}: it may only grow"
        )
    return now[tuple(slice(size) for size in was.shape)]


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors.values())
