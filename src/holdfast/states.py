"""Memories as state inside a model: what was promoted to a KV cache once, used again without being read again.

MemOS (arXiv 2507.03724 §5.5, activation memory). ``States.promote`` lets a model read some memories and keeps what it made of each
as a cube of the form ``state``, derived from that memory and from those read before it. ``States.attach`` takes the longest run of
memories that is kept so, for a prompt that goes on with a question. ``States.tick`` decides by density which runs earn their bytes.

Nothing stale is ever served: a run is found by the tokens that its memories have now, and used only where it was made of the very
versions that the store holds now, by a model whose weights, tokenizer and words before are the same. Whoever attaches must be able
to read every memory of the run. What is forgotten takes every run that read it along, on disk and in this program.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.cube import RECALLABLE, Cube, Form, Ref, Scope
from holdfast.errors import InputError, IntegrityError, NotFoundError, StaleError
from holdfast.keeping import Apply, made, recallable
from holdfast.latent.identity import digest
from holdfast.latent.reader import Reader
from holdfast.latent.rotary import rotation
from holdfast.latent.segments import Segment, joined, mapped, packed, unpacked
from holdfast.latent.tensors import Key
from holdfast.manage.scheduler import Block, Move, WorkingSet
from holdfast.retrieve.context import CLOSE, NOTICE, OPEN, line
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Operation, Where
from holdfast.store.forms import Kept
from holdfast.store.sql import SqlStore
from holdfast.torched import Tensor, torch

KIND = "kv"
"""The kind of the cubes that hold a stretch of a KV cache."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Memories in front of a question, as far as may be as state.

    Fields
        tokens: the whole beginning of the prompt, fence and memories.
        segments: what is there of it as state; the rest is read with the question.
        cubes: the memories in it, in their order.
        exact: whether the state is what reading it afresh would give; else some of it was moved to another place.
        reused: so many memories did not have to be read.
        gone: ids that were asked for and are not to be recalled any more.
        problems: caches that were not used, and why; the memories were read instead.
    """

    tokens: tuple[int, ...]
    segments: tuple[Segment, ...]
    cubes: tuple[Cube, ...]
    exact: bool
    reused: int
    gone: tuple[str, ...]
    problems: tuple[str, ...]
    _reader: Reader

    @property
    def cached(self) -> int:
        """How many tokens are there as state."""
        return self.segments[-1].end if self.segments else 0

    def cache(self) -> Any:
        """A ``DynamicCache`` of this state, new at every call: what is read on it stays in it."""
        return joined(self.segments)

    def prompt(self, question: str) -> dict[str, Tensor]:
        """What ``generate`` and the model take beside ``cache=``: the ids of the whole prompt, and a mask of ones."""
        reader = self._reader
        ids = [*self.tokens, *reader.ids(f"{CLOSE}{reader.between}{question}{reader.after}")]
        tensor = torch.tensor([ids], device=reader.model.device)
        return {"input_ids": tensor, "attention_mask": torch.ones_like(tensor)}


class Resident:
    """Segments that are at hand in this program, the least used leaving first; a holder of the store's ``Forms``.

    ``size``: so many bytes at most.
    """

    def __init__(self, size: int = 1 << 30) -> None:
        self.size = size
        self._held: OrderedDict[Ref, Segment] = OrderedDict()

    @property
    def name(self) -> str:
        """``resident states``."""
        return "resident states"

    def get(self, ref: Ref) -> Segment | None:
        """One that is at hand."""
        found = self._held.get(ref)
        if found is not None:
            self._held.move_to_end(ref)
        return found

    def put(self, ref: Ref, segment: Segment) -> None:
        """Have one at hand; others leave where there is no room."""
        self._held[ref] = segment
        while sum(one.size for one in self._held.values()) > self.size:
            self._held.popitem(last=False)

    def held(self, ids: Collection[str] | None = None) -> list[Kept]:
        """See ``Holder``."""
        return [Kept(ref, f"{ref.id}.{ref.version}") for ref in self._held if ids is None or ref.id in ids]

    def drop(self, kept: Sequence[Kept]) -> list[Kept]:
        """See ``Holder``."""
        for one in kept:
            self._held.pop(one.ref, None)
        return []

    def outdate(self, kept: Sequence[Kept]) -> None:
        """See ``Holder``: it is on disk still, where history may read it."""
        self.drop(kept)

    def left(self, kept: Sequence[Kept]) -> list[str]:
        """See ``Holder``."""
        return [f"{one.name} is still in memory" for one in kept if one.ref in self._held]


@dataclass(frozen=True, slots=True)
class _Run:
    """A memory as it is read after others: its tokens, all memories up to it, and the names of the run and of it alone."""

    ids: tuple[int, ...]
    cubes: tuple[Cube, ...]
    chain: str
    alone: str

    def name(self, exact: bool) -> str:
        """That of the run, or of its last memory alone."""
        return self.chain if exact else self.alone

    def made_of(self, exact: bool) -> tuple[Cube, ...]:
        """What a state of it has read."""
        return self.cubes if exact else self.cubes[-1:]


class States:
    """The states of one reader in one scope. ``Memory.states`` makes it.

    Args:
        store, scope: where the memories are, and whose.
        reader: the model.
        apply: commits what is kept.
        resident: what is at hand in this program; to be joined to the store's ``forms``.
        budget: bytes that ``tick`` lets the kept runs take up; None: ``tick`` is not used.
        half_life: seconds in which a use counts half.
    """

    def __init__(
        self,
        store: SqlStore,
        scope: Scope,
        reader: Reader,
        apply: Apply,
        resident: Resident,
        *,
        budget: int | None = None,
        half_life: float = 3600.0,
    ) -> None:
        self._store, self._scope, self._reader, self._apply, self._resident = store, scope, reader, apply, resident
        self._schedule = None if budget is None else WorkingSet(budget, half_life)
        self._known: dict[str, _Run] = {}
        self._load = 0.0  # seconds to load a byte, of late

    def promote(self, cubes: Iterable[Cube | Hit | str], *, exact: bool = True) -> tuple[Cube, ...]:
        """Let the model read memories once, in this order, and keep what it makes of each; the cubes of the form ``state``.

        ``exact``: each after those before it, to be used for that very beginning of a prompt. Otherwise each by itself, to be used
        wherever it stands, as an approximation. What is kept already stays. Raises NotFoundError for a memory that is not to be
        recalled in this scope, and what a commit raises.
        """
        self._sweep()
        key, runs, gone = self._runs_of(cubes)
        if gone:
            raise NotFoundError(f"no memory {', '.join(gone)} is to be recalled in {self._scope.path}")
        rows, root = self._rows(key), self._reader.begin(self._opening, key)
        past = [root]
        new: list[Cube] = []
        for run in runs:
            segment = self._found(rows, run, exact, key, [])
            if segment is None:
                damaged = rows.get(run.name(exact))
                if damaged is not None:  # it goes before its file is put there anew
                    demote(self._store.owner, self._scope, [damaged])
                segment = self._reader.read(run.ids, past if exact else [root])
                new.append(self._kept(segment, key, run, exact))
            past += [segment] if exact else []
        if new:
            self._apply([Operation.add(row) for row in new])
        rows = self._rows(key)  # of what another program kept meanwhile there is one
        return tuple(rows[run.name(exact)] for run in runs if run.name(exact) in rows)

    def attach(self, cubes: Iterable[Cube | Hit | str], *, exact: bool = True) -> Attached:
        """These memories, in this order, as the beginning of a prompt, with all of it that is kept as state.

        ``exact``: only what is what reading it afresh would give. Otherwise memories that were kept by themselves are moved to
        where they stand, and it says so. Memories that are not to be recalled any more are left out and named.
        """
        self._store.owner.forms.follow()
        key, runs, gone = self._runs_of(cubes)
        rows, root = self._rows(key), self._reader.begin(self._opening, key)
        segments = [root]
        problems: list[str] = []
        for run in runs:
            segment = self._found(rows, run, True, key, problems)
            if segment is None:
                break
            segments.append(segment)
        reused, moved = len(segments) - 1, 0
        if not exact:
            moved = self._move(runs, rows, key, segments, problems)
        if self._schedule is not None:
            self._use(runs, root)
        tokens = (*root.tokens, *(id for run in runs for id in run.ids))
        memories = runs[-1].cubes if runs else ()
        return Attached(
            tokens, tuple(segments), memories, not moved, reused + moved, tuple(gone), tuple(problems), self._reader
        )

    def tick(self) -> tuple[Move, ...]:
        """Promote and demote by what was attached since: the densest runs under the budget of bytes; what was done.

        Raises InputError where there is no budget.
        """
        if self._schedule is None:
            raise InputError("there is no budget to keep to: memory.states(..., budget=)")
        self._sweep()
        rows = self._rows(self._reader.key)
        for block in self._schedule.held:
            if block.ref.id not in rows:  # stale, or forgotten, or let go of by another program
                self._schedule.drop(block.ref.id)
        moves = self._schedule.tick(self._store.now().timestamp())
        demote(self._store, self._scope, [rows[move.block.ref.id] for move in moves if move.action == "demote"])
        done: list[Move] = [move for move in moves if move.action == "demote"]
        kept: set[str] = set()
        for move in reversed(moves):  # what others were read after comes with them
            name = move.block.ref.id
            if move.action == "promote" and name not in kept:
                _, runs, gone = self._runs_of(cube.id for cube in self._known[name].cubes)
                if gone or runs[-1].chain != name:  # changed since it was asked for
                    self._schedule.drop(name)
                    continue
                self.promote(runs[-1].cubes)
                kept.update(run.chain for run in runs)
        done += [move for move in moves if move.action == "promote" and move.block.ref.id in kept]
        self._known = {name: run for name, run in self._known.items() if self._schedule.knows(name)}
        return tuple(done)

    @property
    def kept(self) -> tuple[Cube, ...]:
        """The cubes of this reader in this scope."""
        return tuple(self._rows(self._reader.key).values())

    # --- inside ---

    def _runs_of(self, cubes: Iterable[Cube | Hit | str]) -> tuple[Key, list[_Run], list[str]]:
        """The reader's key, the memories as they are now and how they are read, and the ids of those not to be recalled."""
        key = self._reader.key
        chain = first = _link(_digest(key), self._reader.ids(self._opening, first=True))
        found: list[_Run] = []
        gone: list[str] = []
        for one in cubes:
            id = one if isinstance(one, str) else one.id
            try:
                cube = recallable(self._store, self._scope, id)
            except NotFoundError:
                gone.append(id)
                continue
            if cube.form is not Form.TEXT:
                raise InputError(f"{id} is no text but a {cube.form}: only text is read")
            ids = self._reader.ids(f"{line(cube)}\n")
            chain = _link(chain, ids, cube.ref)
            found.append(_Run(ids, (*(found[-1].cubes if found else ()), cube), chain, _link(first, ids, cube.ref)))
        return key, found, gone

    def _move(
        self, runs: Sequence[_Run], rows: Mapping[str, Cube], key: Key, segments: list[Segment], problems: list[str]
    ) -> int:
        """Go on with memories that were kept by themselves, moved to where they stand; those between are read. How many moved."""
        last = max((at for at, run in enumerate(runs) if run.alone in rows), default=-1)
        moved = 0
        for run in runs[len(segments) - 1 : last + 1]:
            segment = self._found(rows, run, False, key, problems)
            if segment is None:
                segment = self._reader.read(run.ids, segments)
            else:
                segment = segment.moved(segments[-1].end, rotation(self._reader.model))
                moved += 1
            segments.append(segment)
        return moved

    @property
    def _opening(self) -> str:
        return f"{self._reader.before}{OPEN}\n{NOTICE}\n"

    def _rows(self, key: Key) -> dict[str, Cube]:
        """What is kept for this reader, by chain; of two the newer."""
        where = Where(kinds=(KIND,), statuses=tuple(sorted(RECALLABLE)), data={"reader": _digest(key)})
        return {cube.data["chain"]: cube for cube in self._store.select(self._scope, where)}

    def _found(self, rows: Mapping[str, Cube], run: _Run, exact: bool, key: Key, problems: list[str]) -> Segment | None:
        """What is kept of a run, and was made of these very versions; None where nothing is that can be used."""
        row = rows.get(run.name(exact))
        if row is None or row.origin.derived_from != tuple(cube.ref for cube in run.made_of(exact)):
            return None
        return self._opened(row, key, problems)

    def _opened(self, row: Cube, key: Key, problems: list[str]) -> Segment | None:
        """The segment of a cube, from this program's memory or the disk; None where it cannot be used."""
        found = self._resident.get(row.ref)
        if found is not None:
            return found
        began = time.perf_counter()
        try:
            if self._reader.seal is None:
                found = mapped(self._store.blobs.whole(row), key)
            else:
                data = self._reader.seal.open(self._store.blobs.read(row), row.scope.partition)
                found = unpacked(data, key)
        except (InputError, IntegrityError, StaleError, OSError) as error:
            problems.append(f"{row.id}: {error}")
            return None
        found = found.to(self._reader.model.device)
        pace = (time.perf_counter() - began) / found.size
        self._load = pace if not self._load else 0.8 * self._load + 0.2 * pace
        self._resident.put(row.ref, found)
        return found

    def _kept(self, segment: Segment, key: Key, run: _Run, exact: bool) -> Cube:
        """A cube for a segment, whose file is written."""
        data = packed(segment, key)
        if self._reader.seal is not None:
            data = self._reader.seal.close(data, self._scope.partition)
        told = {
            "reader": _digest(key),
            "chain": run.name(exact),
            "start": segment.start,
            "tokens": len(segment.tokens),
        }
        return made(self._store, run.made_of(exact), self._scope, data, KIND, told)

    def _sweep(self) -> None:
        """Let go of what was made of versions that no longer hold: whoever comes first does it, for all of that user's."""
        owner = self._store.owner
        rows = {
            cube.id: cube for cube in owner.select(Scope(self._scope.tenant, self._scope.user), Where(kinds=(KIND,)))
        }
        stale = sorted({kept.ref.id for kept in owner.blobs.held(rows) if kept.stale} & rows.keys()) if rows else []
        if stale:
            purged = owner.purge(
                stale, Scope(self._scope.tenant, self._scope.user), actor=self._scope.path, reason="stale"
            )
            owner.forms.drop([cube.id for cube in purged.versions])

    def _use(self, runs: Sequence[_Run], root: Segment) -> None:
        """Tell the schedule what was asked for: each run by what it would take up and save."""
        assert self._schedule is not None
        at = self._store.now().timestamp()
        for place, run in enumerate(runs):
            size = root.size // len(root.tokens) * len(run.ids)
            saved = max(0.0, len(run.ids) * self._reader.pace - size * self._load)
            after = runs[place - 1].chain if place else None
            self._schedule.use(Block(Ref(run.chain, 1), size, saved, after), at)
            self._known[run.chain] = run


def demote(store: SqlStore, scope: Scope, states: Iterable[Cube | str]) -> None:
    """Let go of cubes of the form ``state``, files and all, also in this program; the memories stay.

    Raises NotFoundError, AccessError, and InputError for a cube that is none.
    """
    ids = [state if isinstance(state, str) else state.id for state in states]
    for id in ids:
        cube = store.get(id, scope)
        if cube.kind != KIND or cube.form is not Form.STATE:
            raise InputError(f"{id} is no state but a {cube.kind}; memory.forget erases it")
    if ids:
        purged = store.purge(ids, scope, actor=scope.path, reason="demoted")
        store.owner.forms.drop([cube.id for cube in purged.versions])


def _link(before: str, ids: Sequence[int], ref: Ref | None = None) -> str:
    """The name of a run: of what stood before it, of its tokens, and of the version that says so, for two may say the same."""
    return hashlib.sha256(f"{before} {ref} {' '.join(map(str, ids))}".encode()).hexdigest()


def _digest(key: Key) -> str:
    return digest(json.dumps(key, sort_keys=True).encode())
