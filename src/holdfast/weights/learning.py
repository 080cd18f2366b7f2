"""Learning a task in a model that already knows something: what may move, what is held, and what is kept, put together.

There is no training loop in here. Any loop of torch calls ``step`` where it would call ``backward`` and the optimiser, and the
``Trainer`` of ``transformers`` takes ``callback``. The order that must be right is: freeze, then remember how the model is, then
learn; average after each step; at the end keep the average, and only then measure what mattered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.anchors import EVERYTHING, HEADS, L2Anchor
from holdfast.weights.base import Batch, Regularizer, frozen
from holdfast.weights.distillation import PredictionDistiller
from holdfast.weights.slow_weights import Report, SlowWeights

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.INTERNAL,
    (Function.SKILLS, Function.FACTS_ENVIRONMENT),
    formation=(Formation.INTERNALISE,),
    evolution=(Evolution.CONSOLIDATE_GLOBAL, Evolution.UPDATE_INTERNAL),
    subject=(Subject.AGENT, Subject.WORLD),
    trainable=Trainable.FULL,
)

Learner = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""``lambda parameters: torch.optim.Adam(parameters, 1e-3)``"""
Averager = Callable[[Iterable[nn.Parameter]], SlowWeights]
"""``SlowWeights``, or a lambda that sets it."""


def recommend(
    pretrained: bool, *, known: Iterable[int] | None = None, scope: Sequence[str] = EVERYTHING
) -> tuple[Regularizer, ...]:
    """What to hold without keeping data, by the rule of arXiv 2203.17269 (section 5).

    Claim 31 measures it again, and finds predictions alone at least as good as with L2 (docs/weights.md): compare on your first
    tasks.

    Predictions are distilled always, for no anchor keeps a head that learns old classes as noughts. In a model that was trained
    before an L2 anchor joins from the first task on; where only attention learns, ``scope`` is ``anchors.ATTENTION``. In one that
    begins at random no anchor joins: it costs more accuracy than it keeps (``FisherAnchor`` forgets less, for those to whom that
    matters more).
    ``known``: see ``PredictionDistiller``; ``()`` for a head of fixed width whose classes come one task after another.
    """
    distiller = PredictionDistiller(known=known)
    return (L2Anchor(1.0, scope=scope, without=HEADS), distiller) if pretrained else (distiller,)


class Plastic:
    """A model that learns one task after another.

    Args:
        model: any module. It is changed in place while it learns: that is what learning is. ``revert`` takes the last task back.
        optimizer: makes one for a task, of the parameters that may learn.
        select: names of those (``plasticity.select`` gives them); None is all that take gradients.
        hold: regularisers, whose penalties ``step`` adds.
        slow: averages what learns; at the end of a task the average is kept. Not in the first task, in which the paper's scripts
            leave it out, except with ``slow_first``.

    Within ``learning`` batch normalisation keeps the statistics that it has, for no anchor holds those.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Learner,
        *,
        select: Collection[str] | None = None,
        hold: Sequence[Regularizer] = (),
        slow: Averager | None = None,
        slow_first: bool = False,
    ) -> None:
        named = dict(model.named_parameters())
        if select is not None and (strange := set(select) - set(named)):
            raise InputError(f"the model has no parameters {sorted(strange)}: name those of named_parameters()")
        if select is not None and not select:
            raise InputError("nothing may learn: select a parameter at least, or None for all")
        self.model = model
        self.tasks: list[str] = []
        self.averaged: Report | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self._make, self._hold, self._slow_of = optimizer, tuple(hold), slow
        self._select = None if select is None else frozenset(select)
        self._averages = slow_first
        self._slow: SlowWeights | None = None
        self._before: dict[str, Tensor] = {}
        self._last: tuple[Batch, Any] | None = None

    @contextmanager
    def learning(self, task: str, data: Iterable[Batch] = ()) -> Iterator[Plastic]:
        """Within the block the model learns a task; ``data`` are batches of it, for the regularisers that measure at its end.

        Where the block fails, the model is as it was before it.
        """
        with self._prepared(task):
            chosen = [one for one in self.model.parameters() if one.requires_grad]
            self.optimizer = self._make(chosen)
            try:
                yield self
                self._kept(task, data)
            finally:
                self.optimizer = None

    def penalty(self, batch: Batch | None = None, outputs: Any = None) -> Tensor:
        """What is held, as a scalar to add to a loss; of the last call of the model where nothing else is given."""
        if batch is None:
            if self._last is None:
                raise InputError("call the model on a batch first, within learning(): its last call is what is held to")
            batch, outputs = self._last
        total = next(self.model.parameters()).new_zeros(())
        for one in self._hold:
            total = total + one.penalty(self.model, batch, outputs)
        return total

    def step(self, loss: Tensor) -> float:
        """One step down a loss of the last call and the penalties; what the sum of them was."""
        if self.optimizer is None:
            raise InputError("a step is taken within learning()")
        whole = loss + self.penalty() if self._hold else loss
        self._last = None
        self.optimizer.zero_grad(set_to_none=True)
        whole.backward()
        self.optimizer.step()
        self.average()
        return float(whole.detach())

    def average(self) -> None:
        """What follows a step of an optimiser, for loops that take it themselves."""
        if self._slow is not None:
            self._slow.after_step()

    def revert(self) -> str:
        """Take the last task back: what learnt is as it was before it, to the last bit. Raises InputError where there is none.

        The regularisers keep what they measured; one task is taken back, not two.
        """
        if not self._before:
            raise InputError("there is no task to take back")
        self._restore()
        return self.tasks.pop()

    def callback(self, task: str, data: Iterable[Batch] = ()) -> Any:
        """The same for a ``Trainer`` of ``transformers``, whose model this is: give it in ``callbacks``.

        Penalties are added to the loss that the model counts itself, so the model must be given labels. Where a step gathers
        several batches each adds its part. The trainer's optimiser is taken, and weight decay moves nothing that is frozen.
        """
        from holdfast.weights.trainer_callback import LearningCallback

        return LearningCallback(self, task, data)

    @contextmanager
    def _prepared(self, task: str) -> Iterator[None]:
        """Frozen, watched, remembered; afterwards as before, and where the block fails, the weights too."""
        if not task or task in self.tasks:
            raise InputError(f"a task has a name of its own, and {task!r} is " + ("learnt already" if task else "none"))
        named = dict(self.model.named_parameters())
        chosen = self._select or {name for name, one in named.items() if one.requires_grad}
        with ExitStack() as stack:
            stack.enter_context(frozen(self.model, [one for name, one in named.items() if name in chosen]))
            self._before = {name: named[name].detach().clone() for name in sorted(chosen)}
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    stack.callback(module.train, module.training)
                    stack.callback(module.register_forward_pre_hook(_still).remove)
            stack.callback(self.model.register_forward_hook(self._watch, with_kwargs=True).remove)
            try:
                for one in self._hold:
                    one.start_task(self.model)
                if self._slow_of is not None and self._averages:
                    self._slow = self._slow_of(self.model.parameters())
                yield
            except BaseException:
                self._restore()
                raise
            finally:
                self._slow = self._last = None

    def _kept(self, task: str, data: Iterable[Batch]) -> None:
        """The end of a task."""
        if self._slow is not None:
            self._slow.commit()
            self.averaged = self._slow.report()
        self._last = None
        batches = [*data] if isinstance(data, Iterator) and len(self._hold) > 1 else data  # read by each of them
        for one in self._hold:
            one.end_task(self.model, batches)
        self.tasks.append(task)
        self._averages = True

    def _restore(self) -> None:
        named = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, was in self._before.items():
                named[name].copy_(was)
        self._before = {}

    def _watch(self, module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], outputs: Any) -> None:
        """Remembers the call, but not one of a teacher or a test."""
        if torch.is_grad_enabled() and self._hold:
            bound = inspect.signature(module.forward).bind_partial(*args, **given)
            bound.arguments |= bound.arguments.pop("kwargs", {})
            batch = {name: one for name, one in bound.arguments.items() if isinstance(one, Tensor)}
            self._last = batch, outputs


def _still(module: nn.Module, _given: Any) -> None:
    """Before a batch normalisation is called: by its statistics, and not by the batch's, whatever the loop has said."""
    module.training = False
