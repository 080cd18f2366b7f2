"""Channel-wise lightweight reprogramming (CLR, arXiv 2307.11386, section 3): after each convolution of a network that never
changes, a small kernel for every channel, norms and a head of a task's own.

Tasks share nothing that changes, so that none forgets; the price is a few kernels a task, and that somebody must say whose a row
is: ``route`` tells it by what the network itself sees. A transformer's blocks get a scale and a shift a channel instead, which is
the 1×1 case with a bias, and needs no state while tokens are decoded.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.cube import Form
from holdfast.errors import ConflictError, InputError, NotFoundError, StaleError
from holdfast.latent.identity import weights_digest
from holdfast.latent.mounting import blocks_of
from holdfast.latent.tensors import key_of, pack, unpack
from holdfast.taxonomy import Formation, Function, MemoryProfile, Modality, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.base import Route, evaluating, frozen

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.EXTERNAL,
    (Function.SKILLS,),
    formation=(Formation.INTERNALISE,),
    retrieval=(Retrieval.ON_REQUEST, Retrieval.SEMANTIC),
    subject=(Subject.AGENT,),
    modality=(Modality.IMAGE, Modality.VECTOR),
    trainable=Trainable.FULL,
)

Layers = Literal["spatial", "all", "none", "blocks"]
"""After which layers kernels stand: convolutions wider than 1×1 (CLR), all of them, none (norms alone), a transformer's blocks."""

KERNEL = 3
UNUSUAL = 0.999
"""What lies farther from a task than this share of its own rows is none of its."""
SHRINK = 0.01
"""Of the mean spread of a channel, added to that of each."""

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many numbers a task owns: kernels, scales and shifts of norms, running statistics of norms, head."""

    kernels: int
    norms: int
    statistics: int
    head: int

    @property
    def private(self) -> int:
        """All but the head, as the paper counts them."""
        return self.kernels + self.norms + self.statistics


class Reprogrammed:
    """A network that is lent to tasks, each of which sees it in its own way.

    Args:
        model: with convolutions, or a model of ``transformers`` for ``layers="blocks"``. It is never changed: outside the blocks of
            ``active`` it is the network that it was, to the last bit.
        head: the path of its last linear layer, which each task has anew; None where tasks share what the model says, as language
            models do.
        layers: see ``Layers``.
        norms: whether batch norms are a task's own; otherwise they stay as they are, and never learn or count.
    """

    def __init__(self, model: nn.Module, *, head: str | None, layers: Layers = "spatial", norms: bool = True) -> None:
        self.model, self.layers, self.norms = model, layers, norms
        self.anchor = weights_digest(model)
        self._head = head
        if head is not None and not isinstance(_module(model, head), nn.Linear):
            raise InputError(f"the head {head!r} is a {type(_module(model, head)).__name__}, and no nn.Linear")
        named = dict(model.named_modules())
        if layers == "blocks":
            ids = {id(one) for one in blocks_of(model)}
            self._places = [path for path, one in named.items() if id(one) in ids]
        else:
            convolutions = [path for path, one in named.items() if isinstance(one, nn.Conv2d) and layers != "none"]
            self._places = [path for path in convolutions if layers == "all" or max(named[path].kernel_size) > 1]
        self._norms = [path for path, one in named.items() if isinstance(one, _NORMS)]
        if not self._places and not (norms and self._norms) and head is None:
            raise InputError("there is nothing here that a task could own: no convolution, no batch norm, no head")
        self._tasks: dict[str, _Task] = {}
        self._active: str | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Their names, in the order in which they came."""
        return tuple(self._tasks)

    def add_task(self, name: str, classes: int | None = None, *, seed: int = 0) -> None:
        """A task that sees what the network sees, with a head of so many classes. Raises ConflictError, InputError.

        Before training, and but for the head, the network computes with it what it computed without, to the last bit.
        """
        if name in self._tasks:
            raise ConflictError(f"there is a task {name!r} already")
        if (classes is None) != (self._head is None) or (classes is not None and classes < 1):
            raise InputError("a task has classes where the model has a head to be replaced, and only there")
        self._still_there()
        self._tasks[name] = self._made(classes, seed)

    def drop(self, name: str) -> None:
        """Forget a task, and no other. Raises NotFoundError, ConflictError where it is active."""
        self._task(name)
        if self._active == name:
            raise ConflictError(f"the task {name!r} is active: leave its block first")
        del self._tasks[name]

    @contextmanager
    def active(self, name: str) -> Iterator[nn.Module]:
        """Within the block the model is that task's, and gradients go to nothing but what it owns. Raises NotFoundError,
        ConflictError where another is active, StaleError.

        For training put it in ``train()`` mode: only norms of the task's own count along. Afterwards modes are as they were.
        """
        task = self._task(name)
        if self._active is not None:
            raise ConflictError(f"the task {self._active!r} is active: one sees through the network at a time")
        self._still_there()
        modes = [(module, module.training) for module in self.model.modules()]
        self._active = name
        try:
            with ExitStack() as stack:
                # Before anything is put in place: a lent norm is not seen as a part of the model, and is not to learn either.
                stack.enter_context(frozen(self.model))
                for path, norm in task.norms.items():
                    stack.enter_context(_instead(self.model, path, norm))
                if task.head is not None and self._head is not None:
                    stack.enter_context(_instead(self.model, self._head, task.head))
                for path, layer in task.kernels.items():
                    stack.enter_context(_behind(_module(self.model, path), layer))
                # Modules of the task come in the mode that the model is in.
                task.train(self.model.training)
                yield self.model
        finally:
            self._active = None
            for module, mode in modes:
                module.training = mode

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """What a task learns with: give it to an optimiser. Raises NotFoundError."""
        return self._task(name).parameters()

    def count(self, name: str) -> Parameters:
        """How many numbers a task owns. Raises NotFoundError."""
        return self._task(name).count()

    def share(self, name: str) -> float:
        """``Parameters.private`` by the parameters of the model. Raises NotFoundError."""
        every: int = sum(one.numel() for one in self.model.parameters())
        return self.count(name).private / every

    # --- kept ---

    def pack(self, name: str) -> bytes:
        """A task as a file, for this very network: kernels, norms, head, and what it is routed by. Raises NotFoundError."""
        task = self._task(name)
        return pack(task.tensors(), self._key(name) | {"classes": task.classes})

    def unpack(self, data: bytes) -> str:
        """Take in a task that was packed; its name. Raises StaleError for another network, ConflictError for a name in use."""
        key = key_of(data)
        if key.get("kind") != "reprogramming":
            raise InputError("this file holds no task of a reprogrammed network")
        name = str(key["task"])
        if name in self._tasks:
            raise ConflictError(f"there is a task {name!r} already")
        self._still_there()
        tensors = unpack(data, self._key(name) | {"classes": key["classes"]})
        task = self._made(key["classes"], 0)
        task.load(tensors)
        self._tasks[name] = task
        return name

    # --- whose ---

    def remember(self, name: str, inputs: Iterable[Tensor], labels: Iterable[Tensor] | None = None) -> None:
        """Look at a task's rows as the network itself sees them, so that ``route`` knows them again. Raises as ``route``.

        Kept are means, one for each label or one for all, and how widely rows lie around them; no row.
        """
        task = self._task(name)
        seen = self.features(inputs)
        told = torch.cat([*labels]) if labels is not None else torch.zeros(len(seen), dtype=torch.int64)
        if len(told) != len(seen):
            raise InputError("as many labels as rows are needed to remember a task by")
        # How far rows of a task lie is asked of rows that its means were not made of; of those that were, all lie near.
        # Every second row of each label is asked: of rows that come sorted, or by turns, whole labels would else be missing.
        order = told.argsort(stable=True)
        counts = told[order].unique_consecutive(return_counts=True)[1]
        asked = torch.cat([torch.arange(int(count)) % 2 == 1 for count in counts])
        half = _seen(seen[order[~asked]], told[order[~asked]])
        others = seen[order[asked]] if asked.any() else seen
        reach = torch.quantile(_distances(others, half["means"], _metric([half])).amin(dim=1), UNUSUAL)
        task.seen = _seen(seen, told) | {"reach": reach}

    def route(self, inputs: Tensor) -> list[Route]:
        """Whose each row is: the task with the nearest mean, by the spread of all tasks together; None beyond its reach.

        Raises InputError where no task was remembered or a task is active, StaleError where the network was changed.
        """
        seen = self.features([inputs])
        known = {name: task for name, task in self._tasks.items() if task.seen}
        if not known:
            raise InputError("no task was remembered: show its rows to remember() first")
        metric = _metric([task.seen for task in known.values()])
        near = torch.stack([_distances(seen, task.seen["means"], metric).amin(dim=1) for task in known.values()], dim=1)
        own = torch.stack(
            [_distances(seen, task.seen["means"], _metric([task.seen])).amin(dim=1) for task in known.values()], dim=1
        )
        names, best = [*known], near.argmin(dim=1).tolist()
        found = []
        for row, at in enumerate(best):
            reach, far = float(known[names[at]].seen["reach"]), float(own[row, at])
            found.append(Route(names[at] if far <= reach else None, far, reach))
        return found

    def features(self, inputs: Iterable[Tensor]) -> Tensor:
        """What comes to the head of the untouched network, or on average out of the last block or convolution that is followed.

        Shape (rows, channels), float64. Raises InputError where there is neither or a task is active, StaleError as ``route``.
        """
        if self._active is not None:
            raise InputError("features are those of the network itself: leave the block of the active task first")
        self._still_there()
        found: list[Tensor] = []
        over = 1 if self.layers == "blocks" else (2, 3)  # tokens, or points
        if self._head is not None:
            hook = _module(self.model, self._head).register_forward_pre_hook(lambda _, args: found.append(args[0]))
        elif self._places:
            hook = _module(self.model, self._places[-1]).register_forward_hook(
                lambda _module, _args, said: found.append((said[0] if isinstance(said, tuple) else said).mean(dim=over))
            )
        else:
            raise InputError("rows are seen where the head or the kernels of a task are: here tasks have norms alone")
        try:
            with evaluating(self.model):
                for batch in inputs:
                    self.model(batch)
        finally:
            hook.remove()
        if not found:
            raise InputError("there is nothing to look at: no batch was given")
        return torch.cat([one.flatten(1).double() for one in found])

    # --- parts ---

    def _task(self, name: str) -> _Task:
        if name not in self._tasks:
            raise NotFoundError(f"there is no task {name!r}; there are {', '.join(self._tasks) or 'none'}")
        return self._tasks[name]

    def _still_there(self) -> None:
        if self._active is None and weights_digest(self.model) != self.anchor:
            raise StaleError("the network was changed since its tasks learnt to see through it: put its weights back")

    def _made(self, classes: int | None, seed: int) -> _Task:
        device = next(self.model.parameters()).device
        kernels: dict[str, nn.Module] = {}
        for path in self._places:
            if self.layers == "blocks":
                width = self.model.config.get_text_config(decoder=True).hidden_size
                kernels[path] = ScaleShift(width)
            else:
                kernels[path] = ChannelKernels(_module(self.model, path).out_channels)
        norms = {path: (_own if self.norms else Held)(_module(self.model, path)) for path in self._norms}
        head = None
        if self._head is not None and classes is not None:
            old = _module(self.model, self._head)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                head = nn.Linear(old.in_features, classes, bias=old.bias is not None)
        return _Task(
            {path: one.to(device) for path, one in kernels.items()},
            norms,
            None if head is None else head.to(device),
            classes,
        )

    def _key(self, name: str) -> dict[str, Any]:
        return {
            "kind": "reprogramming",
            "task": name,
            "anchor": self.anchor,
            "layers": self.layers,
            "norms": self.norms,
            "head": self._head,
        }


class ChannelKernels(nn.Module):  # type: ignore[misc]
    """A 3×3 kernel a channel, at first the one that changes nothing; ``kernel``: shape (channels, 1, 3, 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = torch.zeros(channels, 1, KERNEL, KERNEL)
        kernel[..., KERNEL // 2, KERNEL // 2] = 1.0
        self.kernel = nn.Parameter(kernel)

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (B, channels, H, W), and so is what comes out."""
        return nn.functional.conv2d(x, self.kernel, padding=KERNEL // 2, groups=len(self.kernel))


class ScaleShift(nn.Module):  # type: ignore[misc]
    """A scale and a shift a channel of hidden states, at first those that change nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x of shape (B, T, width), and so is what comes out."""
        return x * self.scale + self.shift


class Held(nn.Module):  # type: ignore[misc]
    """A batch norm that says what it says in use, whatever mode it is in: the network's own, lent to a task that has none."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._of = [norm]  # no part of this module: it is not the task's to keep

    def forward(self, x: Tensor) -> Tensor:
        """See ``nn.BatchNorm2d``."""
        norm = self._of[0]
        return nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )


class _Task:
    """What one task owns."""

    def __init__(
        self,
        kernels: Mapping[str, nn.Module],
        norms: Mapping[str, nn.Module],
        head: nn.Module | None,
        classes: int | None,
    ) -> None:
        self.kernels, self.norms, self.head, self.classes = kernels, norms, head, classes
        self.seen: dict[str, Tensor] = {}
        """By which it is known again: ``means``, shape (kinds, channels); ``around``, sums of squares around them, shape (channels,
        channels); ``rows``, how many; ``reach``, how far from its means rows of its own lie."""

    def modules(self) -> dict[str, nn.Module]:
        found = {f"kernels.{path}": one for path, one in self.kernels.items()}
        found |= {f"norms.{path}": one for path, one in self.norms.items()}
        return found | ({"head": self.head} if self.head is not None else {})

    def parameters(self) -> list[nn.Parameter]:
        return [one for module in self.modules().values() for one in module.parameters()]

    def train(self, mode: bool) -> None:
        for module in self.modules().values():
            module.train(mode)

    def count(self) -> Parameters:
        def numbers(modules: Iterable[nn.Module], buffers: bool = False) -> int:
            # The count of batches that a norm has seen is no part of what it computes.
            return sum(
                one.numel()
                for module in modules
                for one in (module.buffers() if buffers else module.parameters())
                if one.dim()
            )

        norms = self.norms.values()
        return Parameters(
            numbers(self.kernels.values()),
            numbers(norms),
            numbers(norms, True),
            numbers([self.head] if self.head else []),
        )

    def tensors(self) -> dict[str, Tensor]:
        found = {
            f"{path}.{name}": one
            for path, module in self.modules().items()
            for name, one in module.state_dict().items()
        }
        return found | {f"seen.{name}": one for name, one in self.seen.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for path, module in self.modules().items():
            module.load_state_dict({name: tensors[f"{path}.{name}"] for name in module.state_dict()})
        self.seen = {name.removeprefix("seen."): one for name, one in tensors.items() if name.startswith("seen.")}


def _own(norm: nn.Module) -> nn.Module:
    """A norm of a task's own, that begins as the network's; it learns, whether that one was frozen or not."""
    return copy.deepcopy(norm).requires_grad_(True)


def _seen(rows: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Means by label, and sums of squares around them."""
    kinds = labels.unique().tolist()
    means = torch.stack([rows[labels == kind].mean(dim=0) for kind in kinds])
    around = torch.cat([rows[labels == kind] - mean for kind, mean in zip(kinds, means, strict=True)])
    return {"means": means, "around": around.T @ around, "rows": torch.tensor(len(rows))}


def _metric(some: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """The inverse of how rows lie around their means, in all these tasks together; shrunk, for few rows and dead channels."""
    total = torch.stack([one["around"] for one in some]).sum(dim=0) / float(sum(one["rows"] for one in some))
    size = total.diagonal().mean().clamp(min=1e-12)
    return torch.linalg.inv(total + SHRINK * size * torch.eye(len(total), dtype=total.dtype, device=total.device))


def _distances(seen: Tensor, means: Tensor, metric: Tensor) -> Tensor:
    """Squared distances of rows and means under a metric; shape (rows, means)."""
    away = seen[:, None] - means[None].to(seen.device)
    return (away @ metric.to(seen.device) * away).sum(dim=-1)


def _module(model: nn.Module, path: str) -> Any:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"the model has no module {path!r}: name one of named_modules()") from error


@contextmanager
def _instead(model: nn.Module, path: str, module: nn.Module) -> Iterator[None]:
    """Within the block another module stands at a path."""
    parent, _, name = path.rpartition(".")
    holder, before = _module(model, parent), _module(model, path)
    setattr(holder, name, module)
    try:
        yield
    finally:
        setattr(holder, name, before)


@contextmanager
def _behind(module: nn.Module, layer: nn.Module) -> Iterator[None]:
    """Within the block a layer follows a module, within what the module gives."""

    def follow(_module: nn.Module, _args: tuple[Any, ...], said: Any) -> Any:
        return (layer(said[0]), *said[1:]) if isinstance(said, tuple) else layer(said)

    hook = module.register_forward_hook(follow)
    try:
        yield
    finally:
        hook.remove()
