"""What a model said before the task, held on the task's own inputs (arXiv 2203.17269, section 3: PredKD and FeatKD).

For independent sigmoids, with the loss of the new classes (``sigmoid_loss``), the penalty makes LwF.MC, one sum over all classes:

    1/B sum_b ( sum_{k new} BCE(s_k, y_k) + sum_{k old} BCE(s_k, sigmoid(teacher_k)) )

The teacher is not a second model: what learns is copied when a task starts, and the model is called with the copies for a moment.
Predictions hold the head, which an anchor cannot; where inputs of the new task look like nothing that the teacher knows, they say
only "none of the old classes".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.base import Batch, evaluating
from holdfast.weights.calls import LABELS, inputs, kept, logits_of

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.INTERNAL,
    (Function.SKILLS, Function.FACTS_ENVIRONMENT),
    formation=(Formation.INTERNALISE, Formation.DISTILL_EXPERIENCE),
    evolution=(Evolution.CONSOLIDATE_GLOBAL, Evolution.UPDATE_INTERNAL),
    subject=(Subject.AGENT, Subject.WORLD),
    trainable=Trainable.FULL,
)


def sigmoid_loss(logits: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """The loss of independent sigmoids of some classes: summed over them, the mean over rows. Logits of shape (B, classes)."""
    at = torch.as_tensor([*classes], device=logits.device)
    right = (labels[:, None] == at).to(logits.dtype)
    return nn.functional.binary_cross_entropy_with_logits(logits[:, at], right, reduction="sum") / len(logits)


class Teacher:
    """The model as it was: what learns, and every buffer, copied; and the model called with them."""

    def __init__(self, model: nn.Module) -> None:
        self._copied = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
        self._copied |= {name: one.detach().clone() for name, one in model.named_buffers()}

    @property
    def size(self) -> int:
        """What is kept, in bytes."""
        return sum(one.numel() * one.element_size() for one in self._copied.values())

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        """What it would have answered; no gradients, no dropout. Modules that have come since answer as they are now."""
        with evaluating(model):
            return torch.func.functional_call(model, self._copied, kwargs=inputs(batch))


class PredictionDistiller:
    """The teacher's predictions as targets, on new inputs.

    Args:
        weight: how much of it is added to the loss.
        form: ``bce`` for independent sigmoids, summed over classes; ``softmax`` for shares of the known classes.
        temperature: for ``softmax``: both sides are divided by it, and the penalty multiplied by its square.
        known: the classes that the teacher is to be believed on. None is all that it has, for a model that was trained before or a
            head that grows; ``()`` begins with none. They grow by the labels of the data that ``end_task`` is given.
    """

    def __init__(
        self,
        weight: float = 1.0,
        *,
        form: Literal["bce", "softmax"] = "bce",
        temperature: float = 2.0,
        known: Iterable[int] | None = None,
    ) -> None:
        if weight < 0 or temperature <= 0:
            raise InputError("a penalty's weight is 0 or more, and a temperature above 0")
        self.weight, self.form, self.temperature = weight, form, temperature
        self.known = None if known is None else tuple(sorted(set(known)))
        self._teacher: Teacher | None = None

    @property
    def size(self) -> int:
        """What is kept, in bytes."""
        return self._teacher.size if self._teacher else 0

    def start_task(self, model: nn.Module) -> None:
        """See ``Regularizer``."""
        self._teacher = Teacher(model) if self.known is None or self.known else None

    def penalty(self, model: nn.Module, batch: Batch, outputs: Any) -> Tensor:
        """See ``Regularizer``; 0 where the teacher knows nothing."""
        logits = kept(batch, logits_of(outputs))
        if self._teacher is None:
            return logits.new_zeros(())
        told = kept(batch, logits_of(self._teacher(model, batch)))
        classes = slice(told.shape[-1]) if self.known is None else [*self.known]
        ours, theirs = logits[:, classes], told[:, classes]
        if self.form == "bce":
            summed = nn.functional.binary_cross_entropy_with_logits(ours, theirs.sigmoid(), reduction="sum")
            return self.weight * summed / len(ours)
        soft = nn.functional.cross_entropy(ours / self.temperature, (theirs / self.temperature).softmax(-1))
        return self.weight * self.temperature**2 * soft

    def end_task(self, model: nn.Module, data: Iterable[Batch] = ()) -> None:
        """See ``Regularizer``. Raises InputError where classes are told one by one and no data say which were learnt."""
        self._teacher = None
        if self.known is None:
            return
        learnt = {int(one) for batch in data if LABELS in batch for one in batch[LABELS].unique()}
        if not learnt:
            raise InputError("give end_task batches with labels: they say which classes the model knows now")
        self.known = tuple(sorted({*self.known, *learnt}))


class FeatureDistiller:
    """The teacher's features as targets: the squared distance at one module, the mean over rows.

    Args:
        layer: the path of the module whose output is held, such as the one before the head.
        weight: how much of it is added to the loss.
        pretrained: hold in the first task too; see ``L2Anchor``.
    """

    def __init__(self, layer: str, weight: float = 1.0, *, pretrained: bool = True) -> None:
        if weight < 0:
            raise InputError(f"a penalty's weight is 0 or more, not {weight}")
        self.layer, self.weight = layer, weight
        self._holds = pretrained
        self._teacher: Teacher | None = None
        self._seen: Tensor | None = None
        self._told: Tensor | None = None
        self._hook: Any = None

    @property
    def size(self) -> int:
        """What is kept, in bytes."""
        return self._teacher.size if self._teacher else 0

    def start_task(self, model: nn.Module) -> None:
        """See ``Regularizer``. Raises InputError where the model has no such module."""
        try:
            module = model.get_submodule(self.layer)
        except AttributeError as error:
            raise InputError(f"the model has no module {self.layer!r}: name one of named_modules()") from error
        self._drop()
        if self._holds:
            self._teacher = Teacher(model)
            self._hook = module.register_forward_hook(self._see)

    def penalty(self, model: nn.Module, batch: Batch, outputs: Any) -> Tensor:
        """See ``Regularizer``. Raises InputError where the model was not called since the task began."""
        if self._teacher is None:
            return logits_of(outputs).new_zeros(())
        ours = self._seen
        if ours is None:
            raise InputError("features are seen as the model is called: call it on the batch first")
        self._teacher(model, batch)
        theirs, self._seen, self._told = self._told, None, None
        assert theirs is not None
        return self.weight * ((ours - theirs) ** 2).sum() / len(ours)

    def end_task(self, model: nn.Module, data: Iterable[Batch] = ()) -> None:
        """See ``Regularizer``."""
        self._drop()
        self._holds = True

    def _see(self, _module: nn.Module, _given: Any, said: Any) -> None:
        features = said[0] if isinstance(said, tuple) else said
        # A teacher answers without gradients, that of another regulariser too: it is not what the model itself said.
        if torch.is_grad_enabled():
            self._seen = features
        else:
            self._told = features

    def _drop(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._teacher = self._seen = self._told = None
