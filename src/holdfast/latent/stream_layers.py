"""One layer of a stream's cache (``streaming``): its keys and values, what its policy has noted of them, and what it looks for.

What is new is written in place behind what is held, so that a step copies nothing of the cache; and what a policy is to be told of
an entry or a query waits until some of them are there, since small calls at every step would cost more than the step of a small
model can spare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from holdfast.errors import InputError, MissingExtraError
from holdfast.latent.retention import Entries, Merging, RetentionPolicy, gathered, kept
from holdfast.latent.rotary import Rotation
from holdfast.latent.virtual import Rows
from holdfast.torched import Tensor, nn, torch

try:
    from transformers.cache_utils import DynamicLayer
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

PROFILE = ()  # part of a stream's cache

_UNREAD = 64
"""So many queries wait at most between two steps to be read by a policy."""

_UNWRITTEN = 32
"""So many hidden states wait at most between two steps until a policy makes notes of them."""

READING: ContextVar[Sequence[StreamLayer] | None] = ContextVar("READING", default=None)
"""The layers of the attached cache that the model reads with, while it does."""


class StreamLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's entries. While a step runs, ``keys`` and ``values`` hold the new ones too.

    Args:
        at: its number. policy: what is worth keeping.
        buffer: so many more than are kept a head may gather: once something has left there is room for as many.
        turn: turns keys to places in the cache; None where positions are those that were read.
        rows: where keys and values lie; None for tensors of the layer's own.
    """

    is_croppable = False

    def __init__(
        self, at: int, policy: RetentionPolicy, buffer: int = 0, turn: Rotation | None = None, rows: Rows | None = None
    ) -> None:
        super().__init__()
        self._at, self._policy, self._buffer, self._turn, self._rows = at, policy, buffer, turn, rows
        self._needs = policy.needs
        self._read = self._fresh = 0
        self._told = True  # what was read last
        self._room: tuple[Tensor, Tensor] | None = None  # of which keys and values are the first places
        self._positions: Tensor | None = None
        self._notes: dict[str, Tensor] = {}
        self._late: list[tuple[int, dict[str, Tensor]]] = []  # steps whose positions and notes are not put in place yet
        self._unwritten: list[Tensor] = []  # their hidden states
        self._queries: list[Tensor] = []  # the newest
        self._unread: list[Tensor] = []  # of steps that the policy has not read yet
        self._scaling = 1.0
        self.hidden: Tensor | None = None

    @property
    def positions(self) -> Tensor | None:
        """Where each entry stood in what was read, shape (B, H, S)."""
        return None if (found := self.entries) is None else found.positions

    @property
    def notes(self) -> dict[str, Tensor]:
        """What was noted of each entry, shape (B, H, S) by name."""
        return {} if (found := self.entries) is None else found.notes

    @property
    def entries(self) -> Entries | None:
        """What is held; None where nothing is."""
        if not self._read:
            return None
        self._catch_up()
        return self._all()

    @property
    def counts(self) -> Tensor:
        """How many entries each head holds, shape (B, H)."""
        return torch.full(self.keys.shape[:2], self._held) if self._read else torch.zeros((0, 0), dtype=torch.int64)

    def tensors(self) -> list[Tensor]:
        """All that is held between two steps, and the room for what comes."""
        late = [note for _, notes in self._late for note in notes.values()]
        waiting = [*self._unwritten, *self._queries, *self._unread]
        states = (self.keys, self.values) if self._room is None else self._room
        every = [*states, self._positions, *waiting, *self._notes.values(), *late]
        return [one for one in every if one is not None]

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_given: Any) -> tuple[Tensor, Tensor]:
        """See ``transformers``: all that is kept and what is new. Raises InputError where nobody told of the step before."""
        if not self._told:
            raise InputError("nothing would ever leave this cache: call the model within attached()")
        if self._needs.hidden and self.hidden is None:
            raise InputError("this policy asks for hidden states: call the model within attached()")
        found = self._grown(key_states, value_states)
        if self.hidden is not None:
            self._unwritten.append(self.hidden.detach())
        self._fresh = key_states.shape[2]
        self._late.append((self._fresh, {}))
        self._told, self.hidden = False, None
        self._read += self._fresh
        return found

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given: Any
    ) -> Any:
        """New queries, shape (B, Hq, T, D), look at what ``update`` gave: see ``AttentionInterface`` of ``transformers``."""
        self._asked(query, given.get("scaling"))
        return sdpa_attention_forward(module, query, key, value, mask, **given)

    def get_seq_length(self) -> int:
        """How many tokens were read, or with positions in the cache how many entries there are: where the next token stands."""
        return self._read if self._turn is None else self._held

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys there will be, and by how much their places lag behind their positions: what is new stays causal."""
        return self._held + query_length, self.get_seq_length() - self._held

    def note(self, notes: Mapping[str, Tensor]) -> None:
        """Take notes on what the last step brought, shape (B, T) each: the step is over."""
        self._told = True
        new = {name: note.float()[:, None] for name, note in notes.items()}
        if self._late:
            self._late[-1][1].update(new)
        else:
            for name, note in new.items():
                held = self._notes.get(name)
                if held is None:
                    assert self._positions is not None
                    held = self._notes[name] = torch.zeros(self._positions.shape, device=note.device)
                held[..., -self._fresh :] = note
        if self._unread and sum(some.shape[2] for some in self._unread) >= _UNREAD:
            self._catch_up()
        elif self._unwritten and sum(some.shape[1] for some in self._unwritten) >= _UNWRITTEN:
            self._settle()

    def turn(self) -> None:
        """The policy may change its notes."""
        if self._read:
            self._catch_up()
            self._settle()
            self._policy.turn(self._notes)

    def is_over(self, shares: Sequence[int]) -> bool:
        """Whether any head holds more than its share and the buffer."""
        return self._held > shares[0] + self._buffer

    def keep(self, count: int, seen: int) -> None:
        """Let go of all but so many, now that ``seen`` tokens were read."""
        entries = self.entries
        assert entries is not None
        scores = self._policy.score(self._at, entries, seen).expand_as(entries.positions)
        places = kept(scores, count)
        if isinstance(self._policy, Merging):
            mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(2, places, True)
            entries.values = self._policy.merge(self._at, entries, scores, mask)
        left = gathered(entries, places)
        if self._turn is not None:
            new = torch.arange(count, device=places.device)
            left.keys = self._turn(left.keys, new - places)
            if self._queries:  # they stand before the next token, wherever that is
                by = torch.full((1, 1, 1), count - self._held, device=places.device)
                self._queries = [self._turn(self._newest(), by)]
        self._positions, self._notes = left.positions, left.notes
        if self._rows is not None:
            self.keys, self.values = self._rows.replace(self._at, left.keys, left.values)
        else:
            self.keys, self.values, self._room = left.keys, left.values, None
            if self._buffer and not (left.keys.requires_grad or left.values.requires_grad):
                self._make_room(count + self._buffer)

    def _grown(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Take in what is new, and give all that is held."""
        if self._rows is not None:
            self.device, self.is_initialized = keys.device, True
            self.keys, self.values = self._rows.append(self._at, keys, values)
            return self.keys, self.values
        start, end = self._held, self._held + keys.shape[2]
        if self._room is None or end > self._room[0].shape[2] or keys.requires_grad or values.requires_grad:
            # Gradients flow through what is put together alone; and of the last step before some leave all is new anyway.
            self._room = None
            found: tuple[Tensor, Tensor] = super().update(keys, values)
            return found
        for room, new in zip(self._room, (keys, values), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def _make_room(self, places: int) -> None:
        """Let keys and values lie where there is room for so many entries a head."""
        held = self._held
        rooms = [one.new_empty((*one.shape[:2], places, one.shape[3])) for one in (self.keys, self.values)]
        for room, one in zip(rooms, (self.keys, self.values), strict=True):
            room[:, :, :held] = one
        self.keys, self.values = (room[:, :, :held] for room in rooms)
        self._room = (rooms[0], rooms[1])

    def reset(self) -> None:
        """See ``transformers``."""
        super().reset()
        self._room = self._positions = self.hidden = None
        self._notes, self._late = {}, []
        self._unwritten, self._queries, self._unread = [], [], []
        self._read, self._fresh, self._told = 0, 0, True

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search takes some rows anew, with all that was noted of them."""
        self._catch_up()
        self._settle()
        self._room = None
        if self._rows is None:
            super().reorder_cache(beam_idx)
        elif self._rows.count:
            self.keys, self.values = self._rows.view(self._at)
        if self._positions is not None:
            self._positions = self._positions.index_select(0, beam_idx)
            self._notes = {name: note.index_select(0, beam_idx) for name, note in self._notes.items()}
        self._queries = [queries.index_select(0, beam_idx) for queries in self._queries]

    @property
    def _held(self) -> int:
        """Places that there are, S."""
        return int(self.keys.shape[2]) if self._read else 0

    def _asked(self, queries: Tensor, scaling: float | None) -> None:
        """Keep what the policy is to be told of new queries."""
        needs = self._needs
        self._scaling = float(scaling or queries.shape[-1] ** -0.5)
        if needs.queries:
            new = queries.detach()
            # Of a long prompt's queries the newest alone stay, and nothing of their storage.
            self._queries.append(new if new.shape[2] <= needs.queries else new[:, :, -needs.queries :].clone())
            if sum(some.shape[2] for some in self._queries) > 2 * needs.queries:
                self._queries = [self._newest()]
        if needs.reads:
            # Nothing leaves before they were read, so that those of many steps can be read at once, for a fraction of the time.
            self._unread.append(queries.detach())

    def _newest(self) -> Tensor:
        """The newest queries, as many as the policy asks for."""
        return torch.cat(self._queries, dim=2)[:, :, -self._needs.queries :].clone()

    def _catch_up(self) -> None:
        """Let the policy read what was looked for since it last did."""
        if self._unread:
            queries, self._unread = torch.cat(self._unread, dim=2), []
            self._renew(self._policy.read(self._at, self._all(), queries))

    def _all(self) -> Entries:
        """What is held, with the newest queries where the policy asks for them."""
        self._settle()
        assert self._positions is not None
        entries = Entries(self.keys, self.values, self._positions, self._notes)
        entries.scaling = self._scaling
        if self._queries:
            entries.queries = self._newest()
            many = entries.queries.shape[2]
            entries.asked = torch.arange(self._read - many, self._read, device=entries.queries.device)
        return entries

    def _renew(self, notes: Mapping[str, Tensor]) -> None:
        """Notes on all entries take the place of those that there are."""
        self._notes.update({name: note.float() for name, note in notes.items()})

    def _came(self, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the newest entries, shape (B, H, count, D)."""
        return self.keys[:, :, -count:], self.values[:, :, -count:]

    def _settle(self) -> None:
        """Put what waits in its place: positions, what was told of tokens, and what the policy notes of what is written."""
        if not self._late:
            return
        rows, heads = self.keys.shape[:2]
        many, device = sum(count for count, _ in self._late), self.keys.device
        new = torch.arange(self._read - many, self._read, device=device).expand(rows, heads, -1)
        old = new[..., :0] if self._positions is None else self._positions
        hidden = torch.cat(self._unwritten, dim=1) if self._unwritten else None
        written = self._policy.write(self._at, hidden, *self._came(many))
        told = dict.fromkeys(name for _, notes in self._late for name in notes)
        pieces = [(old.shape[-1], self._notes), *self._late]
        if written:
            pieces = [pieces[0], (many, {**_joined(told, self._late, rows, heads, device), **written})]
        names = [*dict.fromkeys([*self._notes, *told, *written])]
        self._notes = _joined(names, pieces, rows, heads, device)
        self._positions, self._late, self._unwritten = torch.cat([old, new], dim=-1), [], []


def _joined(
    names: Sequence[str] | Mapping[str, Any],
    pieces: Sequence[tuple[int, Mapping[str, Tensor]]],
    rows: int,
    heads: int,
    device: Any,
) -> dict[str, Tensor]:
    """Notes of pieces that follow each other, so many entries each; of what is not noted, 0."""
    return {
        name: torch.cat(
            [
                notes[name].detach().float().expand(rows, heads, count)
                if name in notes
                else torch.zeros((rows, heads, count), device=device)
                for count, notes in pieces
            ],
            dim=-1,
        )
        for name in names
    }
