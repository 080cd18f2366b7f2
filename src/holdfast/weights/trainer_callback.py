"""``learning.Plastic`` as a callback of the ``Trainer`` of ``transformers``."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from holdfast.errors import InputError, MissingExtraError
from holdfast.torched import nn, torch
from holdfast.weights.base import Batch

try:
    from transformers import TrainerCallback
    from transformers.trainer_utils import has_length
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

if TYPE_CHECKING:
    from holdfast.weights.learning import Plastic

PROFILE = ()  # a way to call ``learning``


class LearningCallback(TrainerCallback):  # type: ignore[misc]
    """Made by ``Plastic.callback``. A training that ends early leaves the weights as they were: call ``close``."""

    def __init__(self, plastic: Plastic, task: str, data: Iterable[Batch]) -> None:
        self._plastic, self._task, self._data = plastic, task, data
        self._stack: ExitStack | None = None
        self._parts = 1

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Freeze and remember."""
        model = given.get("model")
        if model is not None and model is not self._plastic.model:
            raise InputError("the trainer trains another model than the one that is to learn: give both the same")
        with ExitStack() as stack:
            stack.enter_context(self._plastic._prepared(self._task))
            hook = self._plastic.model.register_forward_hook(self._hold, with_kwargs=True)
            stack.callback(hook.remove)
            self._stack = stack.pop_all()

    def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """How many batches this step gathers: at the end of an epoch they may be fewer, which only a loader with a length tells."""
        self._parts = args.gradient_accumulation_steps
        loader: Any = given.get("train_dataloader")
        if has_length(loader):
            firsts = range(0, len(loader), self._parts)
            self._parts = min(self._parts, len(loader) - firsts[state.global_step % len(firsts)])

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Average, while the gradients are there."""
        self._plastic.average()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the average, measure, and let go."""
        if self._stack is None:
            return
        with self._stack:
            self._plastic._kept(self._task, self._data)
        self._stack = None

    def close(self) -> None:
        """Let go of a training that did not come to its end: the model is as it was before it."""
        if self._stack is None:
            return
        stack, self._stack = self._stack, None
        gone = InterruptedError("the training did not come to its end")
        stack.__exit__(type(gone), gone, None)

    def _hold(self, module: nn.Module, args: Any, given: dict[str, Any], outputs: Any) -> Any:
        if not module.training or not torch.is_grad_enabled():
            return None
        loss = outputs.get("loss") if isinstance(outputs, dict) else getattr(outputs, "loss", None)
        if loss is None:
            raise InputError("a penalty is added to the loss that a model counts: give the trainer's batches labels")
        # Where the loss is a sum over all that a step gathers, the trainer adds the parts up; else it takes their mean.
        parts = self._parts if given.get("num_items_in_batch") is not None else 1
        outputs["loss"] = loss + self._plastic.penalty() / parts
        return outputs
