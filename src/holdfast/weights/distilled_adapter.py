"""Facts in low-rank adapters that a model distils itself (MemOS, arXiv 2507.03724 §5.5, parametric memory): what it says with a
memory's text before it, an adapter learns to say without, KL(p(. | text, x) || p'(. | x)) over probes x that are made of a fact.

The adapters are PEFT's LoRA (arXiv 2106.09685), one for all facts that were taught together. Nothing of them is in the model but
while they are on it, and a request that none was taught gets the model's own answer, to the last bit. Which adapter it is by words:
the one with the prompt most like the request, where words that few prompts have count most. Whether it answers is by what it
changes: more than lies halfway, on a log scale, between the most that it changes of unrelated texts and the least of what it was
taught.

What an adapter becomes follows from the model, the facts in it and the seed alone. One that a fact is taken out of is distilled
anew from the model without it, and is then what it would be had the fact never been there.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import dropwhile
from typing import Any, Self
from weakref import WeakKeyDictionary

from holdfast.cube import Form
from holdfast.errors import InputError, MissingExtraError, StaleError
from holdfast.latent.identity import config_digest, digest, weights_digest
from holdfast.latent.tensors import Key, differing, key_of, pack, unpack
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, torch
from holdfast.weights.base import Edit, Edited, Route, evaluating, frozen
from holdfast.weights.places import decoder
from holdfast.weights.prompts import Tokenizer, became, contexts_of, padded, pool_of, split, tokens, wordings
from holdfast.weights.routing import named

try:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[peft]'") from error

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

_BASE = "__base__"  # what PEFT calls a row that no adapter answers
_LEARNING = "learning"
_TOGETHER = 64  # rows that are read at once
_LEAST = 1e-6  # nats; what is no more is sums in another order


@dataclass(frozen=True, slots=True)
class Settings:
    """How an adapter is distilled. Raises InputError.

    Fields
        rank, alpha: of LoRA: B·A·x·alpha/rank is added to what a linear map says.
        targets: which maps, by the ends of their names; "all-linear" is every one but the last.
        steps: at most; it stops where the loss of a whole pass is less than ``low``, in nats a token.
        rate: of AdamW, falling in a line to nothing.
        batch: rows a step, of what is taught and of what is unrelated alike.
        keep: weight of what is unrelated in the loss.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: str | tuple[str, ...] = "all-linear"
    steps: int = 300
    rate: float = 1e-3
    batch: int = 64
    keep: float = 1.0
    low: float = 0.01

    def __post_init__(self) -> None:
        if min(self.rank, self.steps, self.batch) < 1 or not self.alpha > 0 or not self.rate > 0:
            raise InputError("rank, steps and rows are 1 or more, and alpha and the rate above 0")
        if self.keep < 0 or self.low < 0 or not self.targets:
            raise InputError("no weight is below 0, and an adapter stands on one map at least")


@dataclass(frozen=True, slots=True)
class Distilled:
    """An entry of the log: an edit, how far the adapter says something else of it than was to be learnt, in nats, and its steps."""

    edit: Edit
    loss: float
    steps: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """One adapter: its number, what it learnt, and of each map its two matrices, in fp32."""

    number: int
    log: tuple[Distilled, ...]
    tensors: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        return str(self.number)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(one.edit.id for one in self.log)


@dataclass(frozen=True, slots=True)
class _Row:
    """What is read, the first token after which it counts what is said next, and the model's logits there (tokens, vocabulary)."""

    edit: int
    ids: list[int]
    first: int
    wanted: Tensor


class DistilledAdapter:
    """Edits of a causal model of ``transformers``, on for as long as a ``with`` block or from ``attach`` to ``detach``.

    An editor and its model are one thread's at a time. Each ``Edit`` says in ``context`` what the model reads to tell the target.

    Args:
        model, tokenizer: a tokenizer of ``transformers``, or a callable from text to ids.
        settings: see there.
        unrelated: texts, or their ids, whose answers must stay; what the model says by itself, where none are given.
        templates: contexts in which a prompt is taught, ``{}`` where it stands; by default those that the model makes.
        seed: of all that is drawn.

    Raises InputError for a model that has an adapter on it already, or no map that is named so.
    """

    together = True

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        settings: Settings | None = None,
        unrelated: Sequence[str | Sequence[int]] = (),
        templates: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.seed = model, tokenizer, seed
        self.settings = settings or Settings()
        self.templates = contexts_of(model, tokenizer, templates)
        self._pool = pool_of(model, tokenizer, unrelated, seed)
        self._special = {*getattr(tokenizer, "all_special_ids", ())}
        self._shapes = {name: one.shape for name, one in _tensors(self._made([_LEARNING]), _LEARNING).items()}
        self._pieces: tuple[_Piece, ...] = ()
        self._thresholds: dict[int, float] = {}  # by the identity of a piece's log, which never changes
        self._layers: dict[str, Any] = {}
        self._worn = self._quiet = False
        self._names: list[str] | None = None
        self._known: tuple[Route, ...] | None = None
        self._hooks: list[Any] = []
        self._by_cache: WeakKeyDictionary[Any, tuple[Route, ...]] = WeakKeyDictionary()
        self.routed: tuple[Route, ...] = ()
        """Of the request that was read last: where each row went."""

    # --- what is taught ---

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What has been taught and not forgotten, oldest first."""
        return tuple(one.edit for one in self.log)

    @property
    def log(self) -> tuple[Distilled, ...]:
        """The same, with how it was learnt."""
        return tuple(one for piece in self._pieces for one in piece.log)

    @property
    def shards(self) -> Mapping[int, tuple[str, ...]]:
        """Which edits are in each adapter, by its number."""
        return {piece.number: piece.ids for piece in self._pieces}

    @property
    def unrelated(self) -> list[list[int]]:
        """The tokens of the texts whose answers are to stay."""
        return [list(one) for one in self._pool]

    def taught_in(self, memory: str) -> tuple[str, ...]:
        """The edits that an adapter answers for, as a ``Route`` names it."""
        return next((piece.ids for piece in self._pieces if piece.name == memory), ())

    def edit(self, edits: Sequence[Edit]) -> tuple[Edited, ...]:
        """Distil these edits into an adapter of their own; all or, where one cannot be taught, none.

        Raises InputError for an id that is there already, and for an edit without a context.
        """
        known = {one.id for one in self.edits}
        for one in edits:
            if one.id in known:
                raise InputError(f"the edit {one.id!r} is there already: forget it first")
            known.add(one.id)
        if edits:
            number = max((piece.number for piece in self._pieces), default=-1) + 1
            self._keep([*self._pieces, self._distilled(number, edits)])
        return became(self, edits, {one.edit.id: one for one in self.log})

    def forget(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Make it as if these edits had never been: what they were taught with is distilled anew, from the model, without them.

        Of an adapter that they were alone in nothing is left, and no other is touched. Gives the ids that were there.
        """
        wanted = set(ids)
        gone = tuple(one.id for one in self.edits if one.id in wanted)
        kept = []
        for piece in self._pieces:
            left = [one.edit for one in piece.log if one.edit.id not in wanted]
            if len(left) == len(piece.log):
                kept.append(piece)
            elif left:
                kept.append(self._distilled(piece.number, left))
        if gone:
            self._keep(kept)
        return gone

    # --- on the model, and off it ---

    def attach(self) -> None:
        """Put the adapters on the model. Raises InputError where others are on it."""
        self._wear(True)

    def detach(self) -> None:
        """Take them off the model, which then is what it was before: the same modules, and the same answers to the last bit."""
        self._wear(False)

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within the block they are on the model; afterwards as it was before."""
        with self._being(True):
            yield

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within the block the model is as it was."""
        with self._being(False):
            yield

    def route(self, ids: Tensor) -> Route:
        """Which adapter a prompt would be answered by; ids of shape (1, T)."""
        if ids.dim() != 2 or ids.shape[0] != 1:
            raise InputError("one prompt is routed at a time: ids of shape (1, tokens)")
        return self.routes(ids)[0]

    def routes(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Route, ...]:
        """The same for many prompts, with a mask of what is no padding; shape (B, T) both. The model reads them twice."""
        if not self._pieces:
            return tuple(Route(None, 0.0, 0.0) for _ in range(ids.shape[0]))
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        rows = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
        pieces = self._nearest(rows)
        found = []
        for piece, score in zip(pieces, self._moved(ids, mask, [one.name for one in pieces]), strict=True):
            threshold = self._thresholds[id(piece.log)]
            found.append(Route(piece.name if score > threshold else None, score, threshold))
        return tuple(found)

    # --- what is kept ---

    def state(self, shards: Collection[int] | None = None) -> bytes:
        """All of it, or some adapters, as a file: matrices, the log with all that they were distilled from. Raises InputError."""
        some = [piece for piece in self._pieces if shards is None or piece.number in shards]
        log = {
            "templates": self.templates,
            "pool": self._pool,
            "pieces": [{"number": piece.number, "log": [asdict(one) for one in piece.log]} for piece in some],
        }
        tensors = {f"{piece.number}.{name}": one for piece in some for name, one in piece.tensors.items()}
        tensors["log"] = torch.frombuffer(bytearray(json.dumps(log).encode()), dtype=torch.uint8)
        return pack(tensors, self._key(some))

    def join(self, data: bytes) -> tuple[str, ...]:
        """Take up the adapters of a file that ``state`` wrote; the ids of their edits. One whose edits are there is passed over.

        Raises StaleError where the file is of another model, tokenizer, settings, templates or unrelated texts, InputError for what
        is no such file.
        """
        known = {one.id for one in self.edits}
        found = list(self._pieces)
        new: list[str] = []
        for piece in self._opened(data):
            if known.isdisjoint(piece.ids):
                # Another program may have given the number to an adapter of its own.
                taken = {one.number for one in found}
                number = max(taken) + 1 if piece.number in taken else piece.number
                found.append(replace(piece, number=number))
                known |= {*piece.ids}
                new += piece.ids
        self._keep(sorted(found, key=lambda one: one.number))
        return tuple(new)

    @property
    def identity(self) -> str:
        """Of all that must match before a file of edits can be taken up, in 32 hexadecimal digits."""
        return digest(json.dumps(self._key(()), sort_keys=True).encode())

    # --- how it is learnt ---

    def _distilled(self, number: int, edits: Sequence[Edit]) -> _Piece:
        with self.apart():
            rows = self._rows(edits)
            kept = self._said_of([(one, 0, len(one)) for one in self._pool])
            others = [_Row(-1, ids, 0, wanted) for ids, wanted in zip(self._pool, kept, strict=True)]
            layers = self._made([_LEARNING])
            with evaluating(self.model), torch.enable_grad(), frozen(self.model), _worn(self.model, layers):
                steps = self._learn(list(_parameters(layers, _LEARNING)), rows, others)
                with torch.no_grad():
                    losses = torch.cat(
                        [self._apart_by(rows[at : at + _TOGETHER]) for at in range(0, len(rows), _TOGETHER)]
                    )
        of = torch.tensor([row.edit for row in rows], device=losses.device)
        log = tuple(Distilled(one, float(losses[of == at].mean()), steps) for at, one in enumerate(edits))
        tensors = {name: one.detach().clone() for name, one in _tensors(layers, _LEARNING).items()}
        return _Piece(number, log, tensors)

    def _rows(self, edits: Sequence[Edit]) -> list[_Row]:
        """Every wording of every edit, and what the model says of it where it reads the context first."""
        found: list[tuple[int, list[int], int]] = []
        read: list[tuple[list[int], int, int]] = []
        for at, one in enumerate(edits):
            if not one.context.strip():
                raise InputError(f"the edit {one.id!r} has no context: there is nothing to learn it from")
            before = tokens(self.tokenizer, one.context)
            for text in wordings(one, self.templates):
                prompt, target = split(self.tokenizer, text, one.target)
                # What a tokenizer sets before every text stands there once.
                asked = [*before, *dropwhile(self._special.__contains__, prompt)]
                found.append((at, [*prompt, *target], len(prompt) - 1))
                read.append(([*asked, *target], len(asked) - 1, len(target)))
        wanted = self._said_of(read)
        return [_Row(at, ids, first, one) for (at, ids, first), one in zip(found, wanted, strict=True)]

    def _said_of(self, rows: Sequence[tuple[list[int], int, int]]) -> list[Tensor]:
        """Of tokens, a first place and a count: the logits of what the model says next at so many places."""
        found: list[Tensor] = []
        for start in range(0, len(rows), _TOGETHER):
            some = rows[start : start + _TOGETHER]
            ids, mask = padded([row for row, _, _ in some], next(self.model.parameters()).device)
            with evaluating(self.model):
                logits = self.model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
            found += [one[at : at + count].clone() for one, (_, at, count) in zip(logits, some, strict=True)]
        return found

    def _learn(self, learning: list[Tensor], rows: Sequence[_Row], others: Sequence[_Row]) -> int:
        given = self.settings
        random = torch.Generator().manual_seed(self.seed)
        adam = torch.optim.AdamW(learning, lr=given.rate, weight_decay=0.0)
        step = 0
        while step < given.steps:
            order = torch.randperm(len(rows), generator=random).split(given.batch)
            total = 0.0
            for picked in order[: given.steps - step]:
                mixed = torch.randperm(len(others), generator=random)[: given.batch]
                some = [rows[at] for at in picked.tolist()]
                loss = self._apart_by(some).mean()
                if given.keep:
                    loss = loss + given.keep * self._apart_by([others[at] for at in mixed.tolist()]).mean()
                for group in adam.param_groups:
                    group["lr"] = given.rate * (1 - step / given.steps)
                adam.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learning, 1.0)
                adam.step()
                total += float(loss.detach()) * len(some)
                step += 1
            if total / len(rows) < given.low:
                break
        return step

    def _apart_by(self, rows: Sequence[_Row]) -> Tensor:
        """Of each row, how far what is said now is from what was said, KL(then || now): the mean of its tokens, shape (rows,)."""
        device = next(self.model.parameters()).device
        ids, mask = padded([row.ids for row in rows], device)
        logits = self.model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
        of = [at for at, row in enumerate(rows) for _ in row.wanted]
        where = [row.first + at for row in rows for at in range(len(row.wanted))]
        now = logits[of, where].float().log_softmax(dim=-1)
        then = torch.cat([row.wanted for row in rows]).float().log_softmax(dim=-1)
        apart = (then.exp() * (then - now)).sum(dim=-1)
        places = torch.tensor(of, device=device)
        counts = torch.bincount(places, minlength=len(rows))
        return torch.zeros(len(rows), device=device).index_add(0, places, apart) / counts

    # --- which adapter answers ---

    def _nearest(self, rows: Sequence[Sequence[int]]) -> list[_Piece]:
        """Of each request the adapter that was taught the prompt most like it."""
        if len(self._pieces) == 1:
            return [self._pieces[0]] * len(rows)
        taught = [
            (piece, frozenset(tokens(self.tokenizer, text)))
            for piece in self._pieces
            for one in piece.log
            for text in (one.edit.prompt, *one.edit.also)
        ]
        counts = Counter(token for _, words in taught for token in words)
        weight = {token: math.log(1 + len(taught) / count) for token, count in counts.items()}
        whole = [sum(weight[token] for token in words) for _, words in taught]

        def like(row: Sequence[int]) -> _Piece:
            said = {*row}
            shares = [sum(weight[token] for token in words & said) / whole[at] for at, (_, words) in enumerate(taught)]
            return taught[shares.index(max(shares))][0]

        return [like(row) for row in rows]

    def _moved(self, ids: Tensor, mask: Tensor, names: list[str]) -> list[float]:
        """How far an adapter moves what is said next: KL(adapter || model) after the last token that counts, of each row."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        last = (mask * positions).amax(dim=1)
        kept, place = last.unique(return_inverse=True)
        rows = torch.arange(len(ids), device=ids.device)
        said = []
        with self.on(), evaluating(self.model):
            before = self._quiet, self._names
            self._quiet = True
            try:
                for some in ([_BASE] * len(names), names):
                    self._names = some
                    given = {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
                    logits = self.model(**given, logits_to_keep=kept).logits[rows, place]
                    said.append(logits.float().log_softmax(dim=-1))
            finally:
                self._quiet, self._names = before
        base, ours = said
        return [float(one) for one in (ours.exp() * (ours - base)).sum(dim=-1)]

    def _threshold(self, piece: _Piece) -> float:
        taught = [tokens(self.tokenizer, text) for one in piece.log for text in wordings(one.edit, self.templates)]
        least, most = min(self._scores(piece, taught)), max(self._scores(piece, self._pool))
        # Where an adapter moves a text that is unrelated more than a fact, that fact is not told rather than all of them.
        return math.sqrt(least * max(most, _LEAST)) if least > most else most

    def _scores(self, piece: _Piece, rows: Sequence[Sequence[int]]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(rows), _TOGETHER):
            ids, mask = padded(rows[start : start + _TOGETHER], next(self.model.parameters()).device)
            found += self._moved(ids, mask, [piece.name] * len(ids))
        return found

    # --- within a call of the model ---

    def _before(self, inner: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        if self._quiet:
            return
        given = named(inner, args, given)
        ids = given.get("input_ids")
        if ids is None:
            raise InputError("a request is routed by its tokens: give the model input_ids while adapters are on it")
        cache = given.get("cache", given.get("past_key_values"))
        goes_on = cache is not None and cache.get_seq_length() > 0
        self._known = self._by_cache.get(cache) if goes_on else None
        if self._known is None:
            mask = given.get("attention_mask")
            if mask is not None and mask.dim() != 2:
                raise InputError("requests are routed by a mask of shape (rows, tokens), 0 for padding")
            self._known = self.routed = self.routes(ids, None if mask is None else mask[:, -ids.shape[1] :])
        if len(self._known) != len(ids):
            raise InputError(f"{len(ids)} rows go on from a request of {len(self._known)}: use a cache of their own")
        self._names = [one.memory or _BASE for one in self._known]

    def _after(self, _inner: Any, _args: tuple[Any, ...], output: Any) -> None:
        if self._quiet:
            return
        cache = getattr(output, "cache", getattr(output, "past_key_values", None))
        if cache is not None and self._known is not None:
            self._by_cache[cache] = self._known
        self._known = self._names = None

    def _named(self, _layer: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**given, "adapter_names": self._names or [_BASE] * len(args[0])}

    # --- inside ---

    @contextmanager
    def _being(self, worn: bool) -> Iterator[None]:
        before = self._worn
        self._wear(worn)
        try:
            yield
        finally:
            self._wear(before)

    def _wear(self, worn: bool) -> None:
        if worn == self._worn:
            return
        if worn:
            _put(self.model, self._layers)
            inner = decoder(self.model)
            self._hooks = [
                inner.register_forward_pre_hook(self._before, with_kwargs=True),
                inner.register_forward_hook(self._after),
            ]
        else:
            while self._hooks:
                self._hooks.pop().remove()
            _off(self.model, self._layers)
        self._worn = worn

    def _keep(self, pieces: Sequence[_Piece]) -> None:
        """These adapters from now on."""
        worn = self._worn
        self._wear(False)
        layers = self._made([piece.name for piece in pieces])
        for piece in pieces:
            for name, one in _tensors(layers, piece.name).items():
                one.data.copy_(piece.tensors[name])
                one.requires_grad_(False)
        for layer in layers.values():
            layer.register_forward_pre_hook(self._named, with_kwargs=True)
        known, self._layers, self._pieces = self._thresholds, layers, tuple(pieces)
        self._thresholds = {}
        self._by_cache.clear()
        for piece in pieces:
            at = id(piece.log)
            self._thresholds[at] = known[at] if at in known else self._threshold(piece)
        self._wear(worn)

    def _made(self, names: Sequence[str]) -> dict[str, Any]:
        """Maps with fresh adapters of these names, by path; the model is as it was."""
        model, given = self.model, self.settings
        if not names:
            return {}
        if any(isinstance(one, BaseTunerLayer) for one in model.modules()):
            raise InputError("the model has an adapter on it already: merge it, or take it off, first")
        targets = given.targets if isinstance(given.targets, str) else list(given.targets)
        with frozen(model), torch.random.fork_rng(devices=[]):
            try:
                for name in names:
                    torch.manual_seed(self.seed)  # every adapter begins alike
                    config = LoraConfig(r=given.rank, lora_alpha=given.alpha, target_modules=targets, lora_dropout=0.0)
                    inject_adapter_in_model(config, model, name)
                    vars(model).pop("peft_config", None)
            except ValueError as error:
                raise InputError(f"no adapter goes on this model: {error}") from error
            finally:
                layers = {path: one for path, one in model.named_modules() if isinstance(one, LoraLayer)}
                _off(model, layers)
        for layer in layers.values():
            for name in names:
                if name not in layer.lora_A:
                    raise InputError("an adapter stands on linear maps alone: name others in targets")
                layer.lora_A[name].float()
                layer.lora_B[name].float()
        return layers

    def _opened(self, data: bytes) -> list[_Piece]:
        """The adapters of a file that fits. Raises StaleError, InputError."""
        try:
            tensors = unpack(data)
            log = json.loads(bytes(tensors["log"].numpy()))["pieces"]
            device = next(self.model.parameters()).device
            pieces = [
                _Piece(
                    int(told["number"]),
                    tuple(
                        Distilled(Edit.from_dict(one["edit"]), float(one["loss"]), int(one["steps"]))
                        for one in told["log"]
                    ),
                    {name: tensors[f"{told['number']}.{name}"].to(device) for name in self._shapes},
                )
                for told in log
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is no file of adapters that Holdfast has written: {type(error).__name__}"
            ) from error
        if wrong := differing(key_of(data), self._key(pieces)):
            raise StaleError(f"these adapters are of another {', '.join(wrong)}: teach them anew")
        for piece in pieces:
            if not piece.log or any(one.shape != self._shapes[name] for name, one in piece.tensors.items()):
                raise InputError("an adapter of this file teaches nothing, or does not fit the model")
            if not all(bool(torch.isfinite(one).all()) for one in piece.tensors.values()):
                raise InputError("an adapter of this file holds what is no number")
        return pieces

    def _key(self, pieces: Sequence[_Piece]) -> Key:
        taught = [tokens(self.tokenizer, one.edit.prompt) for piece in pieces for one in piece.log]
        with self.apart():
            return {
                "kind": "distilled adapter",
                "model": config_digest(self.model),
                "weights": weights_digest(self.model),
                "tokenizer": digest(json.dumps(taught).encode()),
                "dtype": str(self.model.dtype),
                "texts": digest(json.dumps([self.templates, self._pool]).encode()),
                "settings": asdict(self.settings),
                "seed": self.seed,
            }


def _tensors(layers: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The two matrices of an adapter on every map."""
    found: dict[str, Tensor] = {}
    for path, layer in layers.items():
        found |= {f"{path}.A": layer.lora_A[name].weight, f"{path}.B": layer.lora_B[name].weight}
    return found


def _parameters(layers: Mapping[str, Any], name: str) -> Iterator[Tensor]:
    for one in _tensors(layers, name).values():
        yield one.requires_grad_()


@contextmanager
def _worn(model: Any, layers: Mapping[str, Any]) -> Iterator[None]:
    """Within the block these maps stand in the places of the model's own."""
    _put(model, layers)
    try:
        yield
    finally:
        _off(model, layers)


def _put(model: Any, layers: Mapping[str, Any]) -> None:
    for path, layer in layers.items():
        if model.get_submodule(path) is not layer.base_layer:
            raise InputError(f"{path!r} has something else on it: take that off first")
    for path, layer in layers.items():
        model.set_submodule(path, layer)


def _off(model: Any, layers: Mapping[str, Any]) -> None:
    for path, layer in layers.items():
        model.set_submodule(path, layer.base_layer)
