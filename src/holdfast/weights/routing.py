"""A linear map of a model whose answer may be another's for some requests, chosen once for each and kept to while it is answered.

The choice is made on the prompt, within the very call that reads it, and stands for all that is read on the same KV cache: scores
that are averaged over the tokens of a call would choose anew with every token that is generated (WISE, arXiv 2405.14768, as
released). Padding counts for nothing. A request that goes to no memory gets the model's own answer, to the last bit.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self
from weakref import WeakKeyDictionary

from holdfast.errors import InputError
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.base import Route, evaluating, linear, transposed
from holdfast.weights.places import decoder

PROFILE = ()  # which memory answers, and none itself


class Routed(ABC):
    """What stands on one linear map of a causal model of ``transformers``. Nothing is on the model until ``attach``.

    Where several requests are answered from one cache, or there is no cache, ``pinned`` says whose they are.
    """

    def __init__(self, model: Any, layer: str) -> None:
        self.model, self.layer = model, layer
        self._module = linear(model, layer)
        self._hooks: list[Any] = []
        self._quiet = False
        self._mask: Tensor | None = None
        self._known: tuple[Route, ...] | None = None
        self._pinned: tuple[Route, ...] | None = None
        self._by_cache: WeakKeyDictionary[Any, tuple[Route, ...]] = WeakKeyDictionary()
        self.routed: tuple[Route, ...] = ()
        """Of the request that was read last: where each row went."""

    @abstractmethod
    def _choose(self, x: Tensor, y: Tensor, mask: Tensor) -> tuple[Route, ...]:
        """For each row; x, y: what the map is given and says, (B, T, ·); mask: which tokens count, (B, T)."""

    @abstractmethod
    def _answer(self, x: Tensor, y: Tensor, routes: Sequence[Route], mask: Tensor, begins: bool) -> Tensor | None:
        """What is said instead of y, or None; ``begins``: the call reads the prompt."""

    def attach(self) -> None:
        """Put it on the model. Raises InputError where something else is on this map already."""
        if self._hooks:
            return
        if any(isinstance(getattr(hook, "__self__", None), Routed) for hook in self._module._forward_hooks.values()):
            raise InputError(f"{self.layer!r} has a memory on it already: detach that one first")
        inner = decoder(self.model)
        self._hooks = [
            inner.register_forward_pre_hook(self._before, with_kwargs=True),
            self._module.register_forward_hook(self._here),
            inner.register_forward_hook(self._after),
        ]

    def detach(self) -> None:
        """Take everything off the model, which then computes what it did before, to the last bit."""
        while self._hooks:
            self._hooks.pop().remove()
        self._by_cache.clear()

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within the block the model is as it was."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within the block it is on the model; afterwards as it was before."""
        before = bool(self._hooks)
        self.attach()
        try:
            yield
        finally:
            if not before:
                self.detach()

    @contextmanager
    def pinned(self, routes: Sequence[Route]) -> Iterator[None]:
        """Within the block every call is answered so, a route for each row: for decoding without a cache."""
        before = self._pinned
        self._pinned = tuple(routes)
        try:
            yield
        finally:
            self._pinned = before

    def route(self, ids: Tensor) -> Route:
        """Which memory a prompt would be answered by; ids of shape (1, T). The model is run as far as this map alone."""
        if ids.dim() != 2 or ids.shape[0] != 1:
            raise InputError("one prompt is routed at a time: ids of shape (1, tokens)")
        return self.routes(ids)[0]

    def routes(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Route, ...]:
        """The same for many prompts, with a mask of what is no padding; shape (B, T) both."""
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        with self.apart():
            x, y = self.read(ids, mask)
        with torch.no_grad():
            return self._choose(x, y, mask)

    def read(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the map is given by the model, and what it says of it. No layer after it is run."""
        found: list[tuple[Tensor, Tensor]] = []

        def enough(_module: nn.Module, args: tuple[Any, ...], said: Tensor) -> None:
            found.append((args[0], said))
            raise _Enough

        hook = self._module.register_forward_hook(enough)
        try:
            with evaluating(self.model):
                self.model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        except _Enough:
            pass
        finally:
            hook.remove()
        if not found:
            raise InputError(f"the model does not use {self.layer!r} for what it is asked")
        return found[0]

    # --- within a call of the model ---

    def _before(self, inner: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        if self._quiet:
            return
        given = named(inner, args, given)
        self._mask = given.get("attention_mask")
        cache = given.get("cache", given.get("past_key_values"))
        goes_on = cache is not None and cache.get_seq_length() > 0
        self._known = self._by_cache.get(cache) if goes_on else None

    def _here(self, _module: nn.Module, args: tuple[Any, ...], said: Tensor) -> Tensor | None:
        if self._quiet:
            return None
        x = args[0]
        mask = self._counted(x)
        begins = self._known is None
        if self._pinned is not None:
            routes = self._pinned
        elif self._known is not None:
            routes = self._known
        else:
            with torch.no_grad():
                routes = self._choose(x, said, mask)
        if len(routes) != x.shape[0]:
            raise InputError(f"{x.shape[0]} rows go on from a request of {len(routes)}: use a cache of their own")
        self._known = routes
        if begins:
            self.routed = routes
        return self._answer(x, said, routes, mask, begins)

    def _after(self, _inner: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if self._quiet:
            return
        cache = getattr(output, "cache", None)
        if cache is not None and self._known is not None:
            self._by_cache[cache] = self._known
        self._mask = self._known = None

    def _counted(self, x: Tensor) -> Tensor:
        if x.dim() != 3:
            raise InputError(f"{self.layer!r} is given {x.dim()} dimensions, and not rows of tokens")
        if self._mask is None:
            return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if self._mask.dim() != 2:
            raise InputError("a routed layer needs a mask of shape (rows, tokens), 0 for padding")
        return self._mask[:, -x.shape[1] :].bool()


class _Enough(Exception):
    """What was to be read was read."""


def named(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    """What a module is called with, by the names of its arguments."""
    return dict(inspect.signature(module.forward).bind_partial(*args, **given).arguments) if args else given


def mapped(module: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """What a linear map would say with another matrix."""
    weight = weight.to(x.dtype)
    if not transposed(module):
        return nn.functional.linear(x, weight, module.bias)
    if module.bias is None:
        return x @ weight
    flat = torch.addmm(module.bias, x.reshape(-1, x.shape[-1]), weight)
    return flat.view(*x.shape[:-1], weight.shape[1])


@contextmanager
def constant(model: nn.Module, layer: str) -> Iterator[None]:
    """Within the block, what stands before a layer runs once: for calls that read the same rows, as every step of an edit does.

    It says the same at every step, which is most of what a step costs in a deep model.
    """
    known, changed = _UpTo(), list[nn.Module]()
    try:
        for part in _beside(model, layer.split(".")):
            if "forward" not in vars(part):  # another's wrapper: leave it in peace
                part.forward = known.part(part.forward)
                changed.append(part)
        with known.passes(model, linear(model, layer)):
            yield
    finally:
        for part in changed:
            del part.forward


def _beside(model: nn.Module, path: Sequence[str]) -> Iterator[nn.Module]:
    """The largest parts of a model that do not hold the module at a path within it."""
    for name in path:
        yield from (part for at, part in model.named_children() if at != name)
        model = model.get_submodule(name)


class _UpTo:
    """What the parts of a model say until a layer is reached, in the order in which they are called: the same in every pass."""

    def __init__(self) -> None:
        self._said: list[Any] = []
        self._at, self._whole = 0, False

    def part(self, run: Any) -> Any:
        """Instead of a part's forward."""

        def forward(*args: Any, **given: Any) -> Any:
            if self._at == len(self._said):
                if self._whole:
                    return run(*args, **given)
                with torch.no_grad():
                    self._said.append(run(*args, **given))
            self._at += 1
            return self._said[self._at - 1]

        return forward

    @contextmanager
    def passes(self, model: nn.Module, layer: nn.Module) -> Iterator[None]:
        """Within the block of code it is told when a pass begins, and when the layer is reached."""

        def begins(*_: Any) -> None:
            self._at = 0

        def reached(*_: Any) -> None:
            self._whole = True

        hooks = model.register_forward_pre_hook(begins), layer.register_forward_pre_hook(reached)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
