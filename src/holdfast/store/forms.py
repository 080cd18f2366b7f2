"""What was made of memories in another form: who keeps it, and how forgetting, revoking and changing reach it.

Promoted to a cached state, a soft token, an edit or an adapter, a memory lives on outside its row (MemOS, arXiv 2507.03724
§5: text, activations, parameters). Whoever keeps such things joins the store's ``Forms`` as a ``Holder``. What happens to a
memory then happens to what was made of it: erased, it is dropped there; changed, archived or revoked, what was made of the
version before is served no more. The journal is the order of work: it says what was purged and changed, in the transaction
that did it, so a holder that was away, or that died on the way, is brought up to date when it joins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from holdfast.cube import RECALLABLE, Cube, Form, Ref, to_micros
from holdfast.errors import HoldfastError, InputError
from holdfast.store.base import Action
from holdfast.store.engine import Database, Engine
from holdfast.store.rows import id_bytes, id_text

HOLDER = "holder"
"""In the ``data`` of a cube: the name of the holder that keeps what it stands for. Forgotten without it, it is not proved gone."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One thing that a holder keeps: the version of the memory that it was made for, and its name there.

    ``stale``: it is served no more, for that version is no longer the one that holds.
    """

    ref: Ref
    name: str
    stale: bool = False


class Holder(Protocol):
    """Keeps things that were made of memories: tensor files, a bank of cached states, an editor of a model, an adapter.

    Every method may be called again for what is done already. Errors are HoldfastErrors that hold none of the words.
    """

    @property
    def name(self) -> str:
        """What it is called in receipts and in ``data["holder"]`` of the cubes whose things it keeps."""
        ...

    def held(self, ids: Collection[str] | None = None) -> Sequence[Kept]:
        """What it keeps of these memories, of any version; of all where None is given."""
        ...

    def drop(self, kept: Sequence[Kept]) -> Sequence[Kept]:
        """Let go of some things for good; return those that stay, because a memory that is still there shares them."""
        ...

    def outdate(self, kept: Sequence[Kept]) -> None:
        """Serve these things no more; they may be kept to be made anew from."""
        ...

    def left(self, kept: Sequence[Kept]) -> Sequence[str]:
        """Look, not only in its books, for what should be gone: a line for each thing that can still be found."""
        ...


@runtime_checkable
class Probing(Holder, Protocol):
    """A holder that does not only say that it dropped something, but asks what is left: a model what it still knows."""

    def measured(self) -> Mapping[str, float]:
        """What was measured when it dropped something last, by name; none of the words."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What one holder did for one receipt: the things, those of them that stay for others, and what went wrong.

    ``measured``: what a ``Probing`` holder found, before and afterwards.
    """

    holder: str
    things: tuple[Kept, ...] = ()
    shared: tuple[Kept, ...] = ()
    error: str = ""
    measured: Mapping[str, float] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready; names and counts."""
        found: dict[str, object] = {"holder": self.holder, "things": len(self.things), "shared": len(self.shared)}
        found |= {"measured": dict(self.measured)} if self.measured else {}
        return found | ({"error": self.error} if self.error else {})

    @property
    def line(self) -> str:
        """For a person."""
        shared = f", {len(self.shared)} stay for other memories" if self.shared else ""
        asked = ", ".join(f"{name} {value:.2f}" for name, value in self.measured.items())
        return (
            f"{self.holder}: {len(self.things)} held{shared}"
            + (f"; asked: {asked}" if asked else "")
            + (f"; {self.error}" if self.error else "")
        )


class Forms:
    """The holders of one store. Any thread may call it.

    ``clock``: the present, for memories that expire.
    """

    def __init__(self, connections: Engine, clock: Callable[[], datetime], *holders: Holder) -> None:
        self._connections = connections
        self._clock = clock
        self._holders = {holder.name: holder for holder in holders}
        # Up to which event each holder was told; those that the store comes with look into its rows themselves.
        self._told: dict[str, dict[str, int]] = {}
        self._lock = threading.RLock()

    @property
    def names(self) -> tuple[str, ...]:
        """Who has joined, in order."""
        return tuple(self._holders)

    def join(self, holder: Holder) -> Step:
        """From now on a holder is told. What was forgotten while it was away is dropped at once, what changed is outdated.

        Raises InputError where the name is taken, and what the holder raises.
        """
        with self._lock:
            if holder.name in self._holders:
                raise InputError(f"a holder named {holder.name!r} has joined already; give this one another name")
            head = self._head()
            kept = list(holder.held())
            gone = self._purged({one.ref.id for one in kept})
            dropped = [one for one in kept if one.ref.id in gone]
            shared = tuple(holder.drop(dropped)) if dropped else ()
            old = self._old([one for one in kept if one.ref.id not in gone])
            if old:
                holder.outdate(old)
            self._holders[holder.name] = holder
            self._told[holder.name] = head
        return Step(holder.name, (*dropped, *old), shared)

    def leave(self, name: str) -> None:
        """Tell a holder no more. What it keeps is brought up to date when it joins again."""
        with self._lock:
            self._holders.pop(name, None)
            self._told.pop(name, None)

    def follow(self) -> list[Step]:
        """Tell every holder what was purged and changed since it was told last, by any program; to be called before it serves.

        A holder that fails is told the same again next time.
        """
        steps = []
        with self._lock:
            for name, since in list(self._told.items()):
                head = self._head()
                if head == since:
                    continue
                purged, changed = self._events(since, head)
                holder = self._holders[name]
                some = (self._drop(holder, purged), self._outdate(holder, changed - purged))
                if not any(step.error for step in some):
                    self._told[name] = head
                steps += [step for step in some if step.things or step.error]
        return steps

    def plan(self, ids: Collection[str]) -> list[Step]:
        """What the holders keep of some memories; nothing is done."""
        return [step for holder in self._all() if (step := self._asked(holder, ids)).things or step.error]

    def drop(self, ids: Collection[str], named: Iterable[str] = ()) -> list[Step]:
        """Let every holder drop what it keeps of memories that were purged. ``named``: holders that must have joined for it."""
        steps = [self._drop(holder, ids) for holder in self._all()]
        return [*(step for step in steps if step.things or step.error), *self._absent(named)]

    def outdate(self, ids: Collection[str], named: Iterable[str] = ()) -> list[Step]:
        """Let every holder outdate what no longer holds of some memories, and of what was derived from them."""
        steps = [self._outdate(holder, ids) for holder in self._all()]
        return [*(step for step in steps if step.things or step.error), *self._absent(named)]

    def left(self, steps: Iterable[Step], ids: Collection[str]) -> list[str]:
        """What can still be found of what was dropped, and which holders failed or were not there: a line each."""
        found = [f"{step.holder}: {step.error}" for step in steps if step.error]
        things = {step.holder: [one for one in step.things if one not in step.shared] for step in steps}
        for holder in self._all():
            try:
                still = list(holder.held(ids))
                found += [f"{holder.name} still keeps {one.name} of {one.ref.id}" for one in still]
                found += [f"{holder.name}: {line}" for line in holder.left(things.get(holder.name, []))]
            except Exception as error:
                found.append(f"{holder.name}: {_told(error)}")
        return found

    def served(self, ids: Collection[str]) -> list[str]:
        """What of some memories is still served by a holder, and which cannot say: a line each; empty after a revocation."""
        found = []
        for step in self.plan(self._below(ids)):
            found += [f"{step.holder}: {step.error}"] if step.error else []
            found += [f"{step.holder} still serves {one.name} of {one.ref.id}" for one in step.things if not one.stale]
        return found

    # --- inside ---

    def _all(self) -> list[Holder]:
        with self._lock:
            return list(self._holders.values())

    def _asked(self, holder: Holder, ids: Collection[str]) -> Step:
        try:
            return Step(holder.name, tuple(holder.held(ids)))
        except Exception as error:
            return Step(holder.name, error=_told(error))

    def _drop(self, holder: Holder, ids: Collection[str]) -> Step:
        step = self._asked(holder, ids) if ids else Step(holder.name)
        if step.error or not step.things:
            return step
        try:
            shared = tuple(holder.drop(step.things))
            asked = dict(holder.measured()) if isinstance(holder, Probing) else {}
            return Step(holder.name, step.things, shared, measured=asked)
        except Exception as error:
            return Step(holder.name, step.things, error=_told(error))

    def _outdate(self, holder: Holder, ids: Collection[str]) -> Step:
        step = self._asked(holder, self._below(ids)) if ids else Step(holder.name)
        if step.error or not step.things:
            return step
        try:
            old = self._old(step.things)
            if old:
                holder.outdate(old)
        except Exception as error:
            return Step(holder.name, step.things, error=_told(error))
        return Step(holder.name, tuple(old))

    def _absent(self, named: Iterable[str]) -> list[Step]:
        absent = sorted(set(named) - set(self.names))
        why = "it has not joined here, so what it keeps is still there; it drops it when it joins again"
        return [Step(name, error=why) for name in absent]

    def _old(self, kept: Sequence[Kept]) -> list[Kept]:
        fresh: set[Ref] = set()
        for tenant, blobs in self._connections.owners_of(id_bytes(one.ref.id) for one in kept).items():
            known = set(map(id_text, blobs))
            with self._connections.reading(tenant) as connection:
                holds = Freshness(connection, self._clock())
                fresh.update(one.ref for one in kept if one.ref.id in known and holds(one.ref))
        return [one for one in kept if one.ref not in fresh]

    def _head(self) -> dict[str, int]:
        return {tenant: seq for tenant, (seq, _) in self._connections.heads().items()}

    def _purged(self, ids: Collection[str]) -> set[str]:
        query = "SELECT 1 FROM tombstones WHERE id = ?"
        found: set[str] = set()
        for tenant, blobs in self._connections.owners_of(map(id_bytes, ids)).items():
            with self._connections.reading(tenant) as connection:
                found.update(id_text(id) for id in blobs if connection.execute(query, (id,)).fetchone() is not None)
        return found

    def _events(self, since: Mapping[str, int], until: Mapping[str, int]) -> tuple[set[str], set[str]]:
        """The ids that were purged, and those that were changed."""
        query = "SELECT id, action FROM journal WHERE seq > ? AND seq <= ? AND action IN (?, ?, ?, ?)"
        kinds = (Action.PURGE, Action.UPDATE, Action.DELETE, Action.UNDO)
        found: list[tuple[str, str]] = []
        for tenant, last in until.items():
            if last != since.get(tenant, 0):
                with self._connections.reading(tenant) as connection:
                    rows = connection.execute(query, (since.get(tenant, 0), last, *kinds))
                    found += [(id_text(id), action) for id, action in rows]
        purged = {id for id, action in found if action == Action.PURGE}
        return purged, {id for id, action in found if action != Action.PURGE}

    def _below(self, ids: Collection[str]) -> set[str]:
        """The ids and everything derived from them."""
        query = (
            "WITH RECURSIVE below(id) AS (SELECT ? UNION SELECT child FROM links JOIN below ON parent = below.id) "
            "SELECT id FROM below"
        )
        found: set[str] = set()
        for tenant, blobs in self._connections.owners_of(map(id_bytes, ids)).items():
            with self._connections.reading(tenant) as connection:
                for id in blobs:
                    if id_text(id) not in found:
                        found.update(id_text(blob) for (blob,) in connection.execute(query, (id,)))
        return found.union(ids)


class Freshness:
    """Whether a version still holds, so that what was made of it may be served.

    A text answers for itself: its newest version, recallable, not expired. A cube of another form is as good as the versions
    that it was made from, all the way up to the texts.
    """

    def __init__(self, connection: Database, now: datetime) -> None:
        self._connection = connection
        self._now = to_micros(now)
        self._known: dict[Ref, bool] = {}

    def __call__(self, ref: Ref) -> bool:
        """As the class says; False for what is not there."""
        if ref not in self._known:
            self._known[ref] = False  # a circle of lineage rests on nothing
            self._known[ref] = self._look(ref)
        return self._known[ref]

    def _look(self, ref: Ref) -> bool:
        id = id_bytes(ref.id)
        found = self._connection.execute(
            "SELECT version, status, expires_at, json_extract(body, '$.form') FROM cubes WHERE id = ? AND known_to IS NULL",
            (id,),
        ).fetchone()
        if found is None or found[0] != ref.version or found[1] not in RECALLABLE:
            return False
        if found[2] is not None and found[2] <= self._now:
            return False
        if found[3] in (None, Form.TEXT):
            return True
        query = "SELECT parent, parent_version FROM links WHERE child = ? AND child_version = ?"
        parents = [Ref(id_text(blob), version) for blob, version in self._connection.execute(query, (id, ref.version))]
        return all(self(parent) for parent in parents)


def holders_of(cubes: Iterable[Cube]) -> set[str]:
    """The holders that some cubes name."""
    return {name for cube in cubes if isinstance(name := cube.data.get(HOLDER), str)}


def _told(error: Exception) -> str:
    """What went wrong; of anybody's error only its kind, for it may quote what was to be forgotten."""
    return str(error) if isinstance(error, HoldfastError) else f"it failed ({type(error).__name__})"
