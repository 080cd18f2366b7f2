"""Mixture of value embeddings (MoVE, arXiv 2601.22887; v̂_t = g_0 · v_t + Σ_i g_i · m_i, g = 2σ(x_t W_G)).

Every token of the vocabulary has M vectors of the size of the values, in one table that all layers read. In each layer and head a
gate, told by the hidden state, mixes them into the values that attention computes. So knowledge of tokens is kept outside the model
and costs hardly any arithmetic: a row for each token, and M multiplications a number. It is found by the token's id alone, and by
no likeness of contents. Values are mixed before they go into a cache of keys and values: a new token costs one more row.

The baseline that the paper compares with (value embeddings as in nanochat, here LaVE) is the same bank with a slot for each layer
of its own and no gate on the value: ``shared=False, scaled=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdfast.cube import Form
from holdfast.errors import InputError, StaleError
from holdfast.latent.identity import config_digest, weights_digest
from holdfast.latent.tensors import differing, pack, unpack
from holdfast.taxonomy import Evolution, Formation, Function, MemoryProfile, Retrieval, Subform, Subject, Trainable
from holdfast.torched import Tensor, nn, torch
from holdfast.weights.mapped import put
from holdfast.weights.places import decoder, hooked, one_route, value_maps
from holdfast.weights.sparse_adam import AdamW
from holdfast.weights.value_table import ValueTable

PROFILE = MemoryProfile(
    Form.WEIGHTS,
    Subform.EXTERNAL,
    (Function.FACTS_ENVIRONMENT,),
    formation=(Formation.INTERNALISE,),
    evolution=(Evolution.UPDATE_INTERNAL,),
    retrieval=(Retrieval.AUTOMATIC,),
    subject=(Subject.WORLD,),
    trainable=Trainable.FULL,
)


class ValueBank(nn.Module):  # type: ignore[misc]
    """A table of value vectors and the gates of every layer, bound to one model of ``transformers``.

    It begins without effect: the table is zero and the gates are 1. ``gates`` are parameters as any, for an optimiser of one's
    own; the rows of the table are trained by ``step``.

    Args:
        model: whose values are mixed; its tokens are the table's rows.
        slots: vectors a token, M. Where they are not ``shared`` each layer has ``slots`` of its own, and the table that many more.
        scaled: whether a gate scales the model's own value too, g_0.
        folder: where the table lies; None: in memory.
        kind, keep: as of ``ValueTable``. zero: tokens without a row, by default the one that pads.

    Raises InputError for no slots or a model that is not known, StaleError where the folder's table is of another model.
    """

    def __init__(
        self,
        model: Any,
        slots: int,
        *,
        shared: bool = True,
        scaled: bool = True,
        folder: Path | None = None,
        kind: torch.dtype = torch.float32,
        keep: int = 1024,
        zero: Iterable[int] | None = None,
    ) -> None:
        super().__init__()
        if slots < 1:
            raise InputError(f"a token has one vector or more, not {slots}")
        maps = value_maps(model)
        config = model.config.get_text_config(decoder=True)
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.slots, self.shared, self.scaled, self.layers = slots, shared, scaled, len(maps)
        self.heads, self.head_dim, self.vocabulary = maps[0][1], head, config.vocab_size
        self.columns = slots if shared else slots * len(maps)
        outputs = self.heads * (slots + scaled)
        self.gates = nn.ModuleList(nn.Linear(config.hidden_size, outputs, bias=False) for _ in maps)
        for one in self.gates:
            nn.init.zeros_(one.weight)
        pads = config.pad_token_id
        padding = [pads] if isinstance(pads, int) and 0 <= pads < config.vocab_size else []
        self._key = {
            "kind": "value bank",
            "slots": slots,
            "shared": shared,
            "scaled": scaled,
            **self._key_of(model),
        }
        self.table = ValueTable(
            config.vocab_size,
            self.heads * self.columns * head,
            folder=folder,
            key=self._key,
            kind=kind,
            keep=keep,
            zero=padding if zero is None else zero,
        )
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._folder = folder
        if folder is not None and (kept := folder / "gates.safetensors").exists():
            self._put_gates(unpack(kept.read_bytes(), self._key))

    @property
    def width(self) -> int:
        """Numbers of a value over all heads, D."""
        return int(self.heads * self.head_dim)

    @property
    def size(self) -> int:
        """Numbers in the table."""
        return int(self.vocabulary * self.columns * self.width)

    def flops(self, hidden: int) -> int:
        """Floating-point operations that a token costs more in all layers: 2·hidden·H·(M+1) for the gates, 2·M·D to mix."""
        each = 2 * hidden * self.heads * (self.slots + self.scaled) + 2 * self.slots * self.width
        return self.layers * each

    # --- reading ---

    def lookup(self, ids: Tensor) -> Tensor:
        """The vectors of tokens, shape (B, T): (B, T, M, D); where layers share none, M is that of all of them."""
        unique, inverse = ids.detach().cpu().unique(return_inverse=True)
        rows = self.table.read(unique).view(-1, self.heads, self.columns, self.head_dim)
        return rows.transpose(1, 2).reshape(-1, self.columns, self.width)[inverse].to(ids.device)

    def prefetch(self, ids: Iterable[int]) -> None:
        """Begin to read the rows of tokens that will come."""
        self.table.prefetch(ids)

    def fetch(self, address: Sequence[int]) -> Mapping[str, Tensor]:
        """Of each token of an address its vectors, shape (M, D), by its id."""
        found = self.lookup(torch.tensor([*address], dtype=torch.int64)[None])[0]
        return {str(one): rows for one, rows in zip(address, found, strict=True)}

    def nearest(self, id: int, count: int = 5) -> list[tuple[int, float]]:
        """The tokens whose vectors are most like a token's, with the cosine; those without any are none."""
        own = self.table.read(torch.tensor([id])).float()[0]
        found = []
        for some in torch.arange(self.vocabulary).split(max(1, (1 << 22) // len(own))):
            rows = self.table.read(some).float()
            found.append(nn.functional.cosine_similarity(rows, own, dim=-1))
        likeness = torch.cat(found)
        likeness[id] = 0
        best = likeness.topk(min(count, self.vocabulary))
        return [(at, value) for value, at in zip(best.values.tolist(), best.indices.tolist(), strict=True) if value]

    @contextmanager
    def attach(self, model: nn.Module, address: Sequence[int] = ()) -> Iterator[None]:
        """Within the block the model's values are mixed with those of its tokens.

        ``address``: tokens whose rows are fetched ahead. Where gradients are on, each pass leaves what ``step`` learns from. A
        cache of keys and values that was written with another state of the bank, or without it, raises StaleError. So does another
        model, but for one that learns beside the bank in the same block.
        """
        self.check(model)
        self.prefetch(address)
        values: list[Tensor] = []

        def begin(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            ids = args[0] if args else given.get("input_ids")
            if ids is None:
                raise InputError("a bank of value vectors is read by token ids: call the model with input_ids")
            values[:] = self._rows(ids)

        hook = decoder(model).register_forward_pre_hook(begin, with_kwargs=True)
        marks = lambda: (id(self.table), self.table.version, *(one.weight._version for one in self.gates))  # noqa: E731
        try:
            maps = [module for module, _ in value_maps(model)]
            with hooked(maps, lambda at: self._mixing(at, values)), one_route(model, marks):
                yield
        finally:
            hook.remove()

    def seen_by(self, layer: int, ids: Tensor) -> Tensor | None:
        """Which rows a layer reads for tokens; None: the tokens' own, which are looked up once for all layers."""
        return None

    # --- learning ---

    def step(self, rule: AdamW, share: float = 1.0) -> None:
        """Train the rows that passes since the last step have read, by their gradients summed; no other row changes."""
        waiting, self._waiting = self._waiting, []
        some = [(ids, rows.grad) for ids, rows in waiting if rows.grad is not None]
        if not some:
            return
        ids, inverse = torch.cat([ids for ids, _ in some]).unique(return_inverse=True)
        found = torch.zeros(len(ids), self.table.width)
        found.index_add_(0, inverse, torch.cat([one.float().cpu() for _, one in some]))
        self.table.step(ids, found, rule, share)

    def waiting(self) -> list[Tensor]:
        """The rows that the next step will train, with their gradients: to clip them together with others."""
        return [rows for _, rows in self._waiting]

    # --- keeping ---

    def drop(self, address: Sequence[int]) -> None:
        """Erase the vectors of tokens, in the file, with all that was kept of their training."""
        self.table.erase(address)

    def check(self, model: Any) -> None:
        """Raises StaleError for another model than the bank's."""
        if wrong := differing(self._key, {**self._key, **self._key_of(model)}):
            raise StaleError(f"the bank is of another {', '.join(wrong)}: make it anew, or rebind it")

    def rebind(self, model: Any) -> None:
        """Make it the bank of a model that has learnt beside it. One in a folder is not rebound: its files are of the first."""
        if self._folder is not None:
            raise InputError(
                "a bank in a folder is bound to its model: pack it, and restore it in one made for the new model"
            )
        self._key |= self._key_of(model)

    def pack(self) -> bytes:
        """Table, gates and the state of the training as one file, for a cube of form ``weights``."""
        every = torch.arange(self.vocabulary)
        moments, steps = self.table.state(every)
        return pack({"values": self.table.read(every), "moments": moments, "steps": steps, **self._gates()}, self._key)

    def restore(self, data: bytes) -> None:
        """What ``pack`` gave. Raises StaleError for that of another model or of other slots."""
        found = unpack(data, self._key)
        self.table.restore(torch.arange(self.vocabulary), found["values"], found["moments"], found["steps"])
        self._put_gates(found)

    def flush(self) -> None:
        """Wait until a bank in a folder is on disk, gates and all."""
        self.table.flush()
        if self._folder is not None:
            put(self._folder / "gates.safetensors", pack(self._gates(), self._key))

    # --- inside ---

    def _rows(self, ids: Tensor) -> list[Tensor]:
        """What each layer mixes in, shape (B, T, heads, columns, head): one tensor for all where they see the same tokens."""
        found: list[Tensor] = []
        for layer in range(self.layers):
            seen = self.seen_by(layer, ids)
            if seen is None and found:
                found.append(found[0])
                continue
            unique, inverse = (ids if seen is None else seen).detach().cpu().unique(return_inverse=True)
            rows = self.table.read(unique).to(ids.device)
            if torch.is_grad_enabled():
                rows.requires_grad_()
                self._waiting.append((unique, rows))
            shape = (*ids.shape, self.heads, self.columns, self.head_dim)
            found.append(rows.index_select(0, inverse.flatten().to(ids.device)).view(shape))
        return found

    def _mixing(self, layer: int, values: list[Tensor]) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        def mixed(_module: nn.Module, x: Tensor, said: Tensor) -> Tensor:
            rows = values[layer]
            if not self.shared:
                rows = rows[..., layer * self.slots : (layer + 1) * self.slots, :]
            gate = self.gates[layer]
            # Gates may be kept in another precision than the model: they are small, and are trained.
            logits = gate(x.to(gate.weight.dtype)).view(*x.shape[:-1], self.heads, -1)
            gates = (2 * torch.sigmoid(logits)).to(said.dtype)
            kept, own = (
                said[..., : -self.width],
                said[..., -self.width :].view(*x.shape[:-1], self.heads, self.head_dim),
            )
            if self.scaled:
                own, gates = gates[..., :1] * own, gates[..., 1:]
            own = own + (gates[..., None, :] @ rows.to(said.dtype))[..., 0, :]
            return torch.cat([kept, own.flatten(-2)], dim=-1)

        return mixed

    def _gates(self) -> dict[str, Tensor]:
        return {f"gate.{at}": one.weight for at, one in enumerate(self.gates)}

    def _put_gates(self, found: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for at, one in enumerate(self.gates):
                one.weight.copy_(found[f"gate.{at}"])

    @staticmethod
    def _key_of(model: Any) -> dict[str, Any]:
        return {"model": config_digest(model), "weights": weights_digest(model)}
