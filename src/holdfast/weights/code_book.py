"""Facts in a code book beside one matrix (GRACE, arXiv 2211.11031 §3, algorithm 1): keys with a radius, and what is said there.

An edit's key is what the matrix is given at the last token of its prompt; for a prompt that falls within a key's radius the answer
of the matrix at that token is replaced by the key's value. A new edit that falls near a key of the same target widens its radius,
near one of another target both make room. It touches nothing else, and knows little of other wordings of what it was taught.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.base import Edit, Edited, Route, evaluating, frozen
from holdfast.weights.prompts import Tokenizer, answered, logits_at, split
from holdfast.weights.routing import Routed, constant

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.EXTERNAL,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    formation=(Formation.INTERNALISE,),
    evolution=(Evolution.UPDATE_INTERNAL,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.USER, Subject.WORLD),
    trainable=Trainable.FULL,
)

_GAP = 1e-5  # between two radii that meet


@dataclass(frozen=True, slots=True)
class _Entry:
    key: Tensor
    value: Tensor
    radius: float
    target: tuple[int, ...]
    edits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Trained:
    value: Tensor
    loss: float
    steps: int


class CodeBook(Routed):
    """Edits of a causal model of ``transformers``, on from ``attach`` to ``detach`` or within a ``with`` block.

    Args:
        model, tokenizer, layer: see ``SideMemory``.
        radius: within which a new key answers, in units of what the layer is given.
        rate, steps: of Adam, by which a value is learnt, from what the matrix says there.

    Of a ``Route`` the score is the distance to the nearest key and the threshold its radius: a key answers where it is not above.
    """

    def __init__(
        self, model: Any, tokenizer: Tokenizer, *, layer: str, radius: float, rate: float = 1.0, steps: int = 100
    ) -> None:
        super().__init__(model, layer)
        if not radius > 0 or not rate > 0 or steps < 1:
            raise InputError("radius and rate are above 0, and a value takes a step or more to learn")
        self.tokenizer, self.radius, self.rate, self.steps = tokenizer, radius, rate, steps
        self._edits: tuple[Edit, ...] = ()
        self._entries: tuple[_Entry, ...] = ()
        self._values: dict[tuple[str, ...], _Trained] = {}  # by the edits that taught them, in their order

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What has been taught and not forgotten, oldest first."""
        return self._edits

    @property
    def keys(self) -> int:
        """How many there are: edits of one target may share one."""
        return len(self._entries)

    def edit(self, edits: Sequence[Edit]) -> tuple[Edited, ...]:
        """Teach, one after another. Raises InputError for an id that is there already."""
        known = {one.id for one in self._edits}
        for one in edits:
            if one.id in known:
                raise InputError(f"the edit {one.id!r} is there already: forget it first")
            if one.also:
                raise InputError(f"a code book is taught the edit {one.id!r} in one wording, without also=")
            known.add(one.id)
        entries = self._entries
        for one in edits:
            entries = self._taught(entries, one)
        self._edits, self._entries = (*self._edits, *edits), entries
        return self._now(edits)

    def forget(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Make it as if these edits had never been: the book is written again without them. The ids that were there."""
        wanted = set(ids)
        gone = tuple(one.id for one in self._edits if one.id in wanted)
        if gone:
            left = tuple(one for one in self._edits if one.id not in wanted)
            self._values = {chain: one for chain, one in self._values.items() if not wanted & {*chain}}
            entries: tuple[_Entry, ...] = ()
            for edit in left:
                entries = self._taught(entries, edit)
            self._edits, self._entries = left, entries
        return gone

    def _choose(self, x: Tensor, y: Tensor, mask: Tensor) -> tuple[Route, ...]:
        if not self._entries:
            return tuple(Route(None, 0.0, 0.0) for _ in range(x.shape[0]))
        asked = x[torch.arange(x.shape[0], device=x.device), _last(mask)]
        apart = _distances(asked, self._entries)
        nearest = apart.argmin(dim=1).tolist()
        found = []
        for row, at in enumerate(nearest):
            entry, distance = self._entries[at], float(apart[row, at])
            found.append(Route(entry.edits[0] if distance <= entry.radius else None, distance, entry.radius))
        return tuple(found)

    def _answer(self, x: Tensor, y: Tensor, routes: Sequence[Route], mask: Tensor, begins: bool) -> Tensor | None:
        if not begins or all(one.memory is None for one in routes):
            return None
        y, last = y.clone(), _last(mask)
        by_name = {one.edits[0]: one for one in self._entries}
        for row, route in enumerate(routes):
            if route.memory is not None:
                y[row, last[row]] = by_name[route.memory].value.to(y.dtype)
        return y

    def _taught(self, entries: tuple[_Entry, ...], edit: Edit) -> tuple[_Entry, ...]:
        """The entries with one edit more."""
        prompt, target = split(self.tokenizer, edit.prompt, edit.target)
        ids = torch.tensor([prompt], device=self._module.weight.device)
        x, y = self.read(ids, torch.ones_like(ids))
        key, said = x[:, -1], y[0, -1]
        new = _Entry(key[0], said, self.radius, tuple(target), (edit.id,))
        if entries:
            apart = _distances(key, entries)[0]
            at = int(apart.argmin())
            near, distance = entries[at], float(apart[at])
            if distance <= self.radius + near.radius:
                if near.target == new.target:
                    wider = replace(near, radius=max(near.radius, distance), edits=(*near.edits, edit.id))
                    wider = replace(wider, value=self._learnt(wider, prompt, target).value)
                    return (*entries[:at], wider, *entries[at + 1 :])
                entries = (*entries[:at], replace(near, radius=distance / 2 - _GAP), *entries[at + 1 :])
                new = replace(new, radius=distance / 2)
        return (*entries, replace(new, value=self._learnt(new, prompt, target).value))

    def _learnt(self, entry: _Entry, prompt: Sequence[int], target: Sequence[int]) -> _Trained:
        """The value with which the model says the target of the entry's last edit."""
        known = self._values.get(entry.edits)
        if known is not None:
            return known
        value = entry.value.detach().float().clone().requires_grad_()
        learner = torch.optim.Adam([value], self.rate)
        inputs = {"input_ids": torch.tensor([[*prompt, *target]], device=value.device)}
        places = torch.arange(len(target), device=value.device) + len(prompt) - 1
        wanted = torch.tensor(target, device=value.device)
        run, loss = self._module.forward, torch.zeros(())

        def forward(x: Tensor) -> Tensor:
            said = run(x).clone()
            said[:, len(prompt) - 1] = value.to(said.dtype)
            return said

        self._module.forward = forward
        try:
            same = constant(self.model, self.layer)
            with self.apart(), evaluating(self.model), torch.enable_grad(), frozen(self.model), same:
                for _ in range(self.steps):
                    loss = nn.functional.cross_entropy(logits_at(self.model, inputs, places)[0].float(), wanted)
                    (value.grad,) = torch.autograd.grad(loss, value)
                    learner.step()
        finally:
            del self._module.forward
        found = self._values[entry.edits] = _Trained(value.detach(), float(loss.detach()), self.steps)
        return found

    def _now(self, edits: Sequence[Edit]) -> tuple[Edited, ...]:
        parts = [split(self.tokenizer, one.prompt, one.target) for one in edits]
        with self.on():
            said = answered(self.model, parts)
        found = []
        for one, (prompt, target), told in zip(edits, parts, said, strict=True):
            route = self.route(torch.tensor([prompt], device=self._module.weight.device))
            chain = next(entry.edits for entry in self._entries if one.id in entry.edits)
            trained = self._values[chain[: chain.index(one.id) + 1]]
            learnt = route.memory is not None and told == target
            found.append(Edited(one.id, learnt, trained.loss, trained.steps, route.score, route.threshold))
        return tuple(found)


def _distances(asked: Tensor, entries: Sequence[_Entry]) -> Tensor:
    """Euclidean, shape (rows, keys)."""
    keys = torch.stack([one.key for one in entries]).float()
    # By differences: of the product form, which is faster for many keys, a prompt would be at some distance from itself.
    return torch.cdist(asked.float(), keys, compute_mode="donot_use_mm_for_euclid_dist")


def _last(mask: Tensor) -> Tensor:
    """Where the last token of each row stands that counts."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
