"""Memory in parameters: the seams, and what every mechanism of this room keeps to.

A model is never changed in place unless its owner says ``commit``: what is learnt stands beside the weights, as hooks that can be
taken off again, and then the model computes what it did before, to the last bit. What is kept is tensors and JSON, bound to the
very model it was made on (``latent.identity``). A route is chosen once for a request, not once for a token, so that a cache of keys
and values never mixes two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.errors import InputError
from holdfast.torched import Tensor, nn, torch

Batch = Mapping[str, Tensor]
"""What a model of ``transformers`` takes: ``input_ids``, ``attention_mask``, ``labels``; or whatever a model of one's own takes."""


# --- what is learnt by editing ---


@dataclass(frozen=True, slots=True)
class Edit:
    """A fact to be put into weights.

    Fields
        id: under which it is forgotten again.
        prompt: what is asked, as text that the target goes on with.
        target: what is to be said.
        unrelated: texts whose answers must stay as they are; an editor draws some itself where there are none.
        also: the prompt in other words, which are taught with it.
        context: what the model reads before the prompt to say the target by itself; an editor that distils learns from that.
    """

    id: str
    prompt: str
    target: str
    unrelated: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    context: str = ""

    def __post_init__(self) -> None:
        if not self.id or not self.prompt.strip() or not self.target.strip():
            raise InputError("an edit needs an id, a prompt and a target that say something")

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Edit:
        """As ``asdict`` wrote it, after JSON. Raises KeyError, TypeError, InputError for what is none."""
        return cls(**{**told, "unrelated": tuple(told["unrelated"]), "also": tuple(told["also"])})


@dataclass(frozen=True, slots=True)
class Edited:
    """What came of an edit: whether the model says it now, at which loss, after how many steps, and where it would be routed."""

    id: str
    learnt: bool
    loss: float
    steps: int
    score: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Route:
    """Which memory answers a request; ``memory`` is None for the model as it was. ``score`` is compared with ``threshold``."""

    memory: str | None
    score: float
    threshold: float


class Editor(Protocol):
    """Facts in a model that can be taken out again, one by one and all at once."""

    def edit(self, edits: Sequence[Edit]) -> tuple[Edited, ...]:
        """Teach, one after another. Raises InputError for an id that is there already."""
        ...

    def route(self, ids: Tensor) -> Route:
        """Which memory a prompt would be answered by; ids of shape (1, T)."""
        ...

    def forget(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Make it as if these edits had never been: what else is learnt again without them. The ids that were there."""
        ...

    def detach(self) -> None:
        """Take everything off the model, which then computes what it did before, to the last bit."""
        ...


class Teachable(Editor, Protocol):
    """An editor whose edits are kept as files and are on the model for the length of a block: what ``imprint`` works with.

    What is learnt lies in pieces, each of which is kept, taken up and learnt again by itself.
    """

    model: Any
    tokenizer: Any

    together: bool
    """Whether the edits of one call are learnt in one piece, and so are judged together; else they are given one by one."""

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What has been taught and not forgotten, oldest first."""
        ...

    @property
    def shards(self) -> Mapping[int, tuple[str, ...]]:
        """Which edits are in each piece, by its number."""
        ...

    @property
    def unrelated(self) -> list[list[int]]:
        """The tokens of the texts whose answers are to stay."""
        ...

    @property
    def identity(self) -> str:
        """Of all that must match before a file of edits can be taken up."""
        ...

    def taught_in(self, memory: str) -> tuple[str, ...]:
        """The edits that a memory answers for, as a ``Route`` names it."""
        ...

    def state(self, shards: Collection[int] | None = None) -> bytes:
        """All of it, or some pieces, as a file."""
        ...

    def join(self, data: bytes) -> tuple[str, ...]:
        """Take up the pieces of such a file; the ids of their edits. Raises StaleError, InputError."""
        ...

    def on(self) -> AbstractContextManager[None]:
        """Within the block it is on the model; afterwards as it was before."""
        ...

    def apart(self) -> AbstractContextManager[None]:
        """Within the block the model is as it was, to the last bit."""
        ...


# --- what is learnt by training ---


class Regularizer(Protocol):
    """Holds what a model knows while it learns a task."""

    def start_task(self, model: nn.Module) -> None:
        """Remember how the model is now."""
        ...

    def penalty(self, model: nn.Module, batch: Batch, outputs: Any) -> Tensor:
        """What is added to the loss of a batch; a scalar."""
        ...

    def end_task(self, model: nn.Module, data: Iterable[Batch] = ()) -> None:
        """Look back on the task that was learnt; ``data`` are batches of it, for those that measure."""
        ...


class Selector(Protocol):
    """Says which weights may learn."""

    def scores(self, model: nn.Module) -> Mapping[str, float]:
        """A number for each parameter that may be chosen, by name; the smallest learn first."""
        ...


# --- what is fetched ---


class Bank(Protocol):
    """Blocks of weights outside the model, fetched by an address."""

    def fetch(self, address: Sequence[int]) -> Mapping[str, Tensor]:
        """The blocks of an address, by name. Raises NotFoundError for one that is not there."""
        ...

    def attach(self, model: nn.Module, address: Sequence[int]) -> AbstractContextManager[None]:
        """Within the block the model computes with them."""
        ...

    def drop(self, address: Sequence[int]) -> None:
        """Erase the blocks that stand at an address alone."""
        ...


# --- what they share ---


def linear(model: nn.Module, path: str) -> nn.Module:
    """The module at a path, ``model.layers.5.mlp.down_proj``, which maps rows by a matrix. Raises InputError for what is none."""
    try:
        found = model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"the model has no module {path!r}: name one of named_modules()") from error
    weight = getattr(found, "weight", None)
    if weight is None or weight.dim() != 2:
        raise InputError(f"{path!r} is a {type(found).__name__}, and no linear map")
    return found


def transposed(module: nn.Module) -> bool:
    """Whether a module keeps its matrix as (in, out): the ``Conv1D`` of GPT-2 does, ``nn.Linear`` keeps (out, in)."""
    return type(module).__name__ == "Conv1D"


@contextmanager
def frozen(model: nn.Module, without: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """Within the block only some parameters take gradients; afterwards each is as it was."""
    learning = {id(one) for one in without}
    before = [(one, one.requires_grad) for one in model.parameters()]
    try:
        for one, _ in before:
            one.requires_grad_(id(one) in learning)
        yield
    finally:
        for one, was in before:
            one.requires_grad_(was)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block no dropout and no gradients; afterwards every module is in the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, was in before:
            module.training = was
