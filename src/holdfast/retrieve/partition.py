"""Everything that searches of one tenant's user run over, as a fold over the journal.

A partition is loaded from the store on first use and catches up before it answers: what another process committed a
moment ago is found by the next search here. It is never the only copy of anything; dropping it costs a reload.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.cube import RECALLABLE
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.retrieve.arrays import Column, Rows
from holdfast.retrieve.entities import EntityIndex
from holdfast.retrieve.fusion import POOL
from holdfast.retrieve.lexical import LexicalIndex
from holdfast.retrieve.loops import Loops, suited
from holdfast.retrieve.pgvectors import HELD_ROWS, StoredVectors
from holdfast.retrieve.text import ROLES
from holdfast.retrieve.vectors import VectorIndex
from holdfast.store.grants import Reach
from holdfast.store.nearest import searched
from holdfast.store.rows import forget_read
from holdfast.store.schema import PARTITION_BITS
from holdfast.store.sql import SqlStore

FOREVER = np.iinfo(np.int64).max
_LOW = (1 << PARTITION_BITS) - 1
MASKS = 4
"""Of so many views it is known which rows they show: a recipe asks for records of one kind and for those of another, turn about."""
_SPAN_BYTES = 8  # of a time that a text speaks of: its first and its last day

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class View:
    """Which rows a search may see.

    Times in microseconds. ``known``: the moment whose knowledge is asked for (None: everything known now). ``now``: what
    had ended or expired by then is left out. ``true_at``: only what was true at that moment. ``reach``: what a principal may read;
    None: the owner asks. ``inside``: nothing in which anything from outside has a part. ``without``: nothing of these authors.
    """

    now: int
    known: int | None = None
    true_at: int | None = None
    asked: int | None = None
    kinds: tuple[str, ...] = ()
    agent: str | None = None
    session: str | None = None
    reach: Reach | None = None
    inside: bool = False
    without: tuple[str | None, ...] = ()


class Partition:
    """The rows of one tenant/user with their lexical, vector, name and date folds; row n of the store is row n here."""

    def __init__(self, store: SqlStore, no: int) -> None:
        self.no = no
        self.lock = threading.RLock()
        self._store = store
        self._seen: dict[int, int] = {}
        self._reset()

    def _reset(self) -> None:
        self._seq = self._arrival = 0
        self.size = 0
        self.lexical = LexicalIndex()
        self.entities = EntityIndex()
        self.vectors: VectorIndex | StoredVectors | None = None
        self._room = (
            HELD_ROWS  # so many rows have their vectors here before the server is asked whether it can search them
        )
        self.model: str | None = None
        self._fold: str | None = None
        self._columns = {name: Column(np.int64) for name in ("known_from", "valid_from", "said")}
        self._columns |= {name: Column(np.int64, fill=FOREVER) for name in ("known_to", "valid_to", "expires_at")}
        self._codes = {name: Column(np.int32) for name in ("kind", "agent", "session", "author", "readers")}
        self._labels: dict[str, dict[str | None, int]] = {name: {} for name in self._codes}
        self._first = Column(np.int64)  # of each row, the row of its memory's first version
        self._near = {name: Column(np.int32, fill=-1) for name in ("previous", "next")}
        self._last_turn: dict[tuple[int, int], int] = {}
        self._live = Column(np.bool_)
        self._recallable = Column(np.bool_)
        self._trust = Column(np.float32)
        self._tainted = Column(np.bool_)
        self._mentioned = {fold: Column(np.bool_) for fold in ("names", "dates")}
        self._masks: dict[tuple[object, ...], tuple[int, int, Mask]] = {}
        self._authors: tuple[int, frozenset[str]] = (0, frozenset())
        self._speakers: tuple[Mask | None, frozenset[str]] = (None, frozenset())

    # --- following the journal ---

    @property
    def watermark(self) -> int:
        """The last event that is folded in."""
        return self._seq

    def catch_up(self) -> None:
        """Fold in everything that any process has committed. Costs microseconds when nothing has changed."""
        with self.lock:
            connection, version = self._store.data_version(self.no)
            if self._seen.get(connection) == version:
                return
            try:
                with self._store.connections.reading(self._store.connections.tenant_of(self.no)):
                    self._follow()
            except BaseException as error:
                self._seen.clear()  # half a step would look like a whole one; the next search loads afresh
                self._reset()
                if isinstance(error, IndexError | TypeError | ValueError) and not isinstance(error, HoldfastError):
                    raise IntegrityError(
                        f"an index of this store is damaged ({error}); no memory is lost. Make it again: holdfast doctor --repair"
                    ) from error
                raise
            if len(self._seen) > 256:  # connections come and go
                self._seen.clear()
            self._seen[connection] = version

    def _follow(self) -> None:
        changes = self._store.changes(self.no, self._seq, self._arrival)
        serving = next(((f"vectors_{no}", name, d) for no, name, d, active in self._store.models() if active), None)
        if any(fold in ("cubes", "terms") for fold, _ in changes.arrivals) and self.size:
            self._reset()  # something was purged, or analysed anew: nothing of it may linger here
            forget_read()
            changes = self._store.changes(self.no, 0, 0)
        fresh = self._seq == 0  # rows come with all their folds
        if changes.seq != self._seq:
            rows = self._add_rows()
            for rid, known_to in changes.ended.items():
                self._columns["known_to"].values[rid & _LOW] = known_to
                self._live.values[rid & _LOW] = False
            if fresh:
                self._masks.clear()
            elif changes.ended:
                self._end([rid & _LOW for rid in changes.ended])
            if changes.ended or fresh:
                self._order_turns()
            else:
                self._append_turns(rows)
        if (serving and serving[0]) != self._fold or self._outgrown():
            self._load_vectors(serving)
        for fold, rids in changes.arrivals:
            if fold == self._fold:
                lacking = [rid for rid in rids if not self._has_vector(rid & _LOW)]
                self._put_vectors(self._store.fold_rows(fold, lacking, bodies=self._holds))
            elif fold in self._mentioned:
                self._put_mentions(fold, self._store.fold_rows(fold, rids))
        self._seq, self._arrival = changes.seq, changes.arrival

    def _end(self, rows: Sequence[int]) -> None:
        """Take rows that have ended out of what is known of views of the present; of the others nothing is known any more."""
        for asked, (since, until, shown) in list(self._masks.items()):
            if asked[0] is not None:
                del self._masks[asked]
                continue
            left = shown.copy()  # whoever holds a mask holds it as it was
            left[[row for row in rows if row < len(left)]] = False
            self._masks[asked] = since, until, left

    def _add_rows(self) -> npt.NDArray[np.int64]:
        headers = self._store.headers(self.no, self.size - 1)
        if not headers:
            return np.empty(0, np.int64)
        table = list(zip(*headers, strict=True))
        rows = np.asarray(table[0], np.int64) & _LOW
        self.size = int(rows[-1]) + 1
        # Mostly they follow one another, and are a slice: a commit brings few, and a row has many columns.
        together = self.size - int(rows[0]) == len(rows)
        where = slice(int(rows[0]), self.size) if together else rows
        for name, at, empty in (
            ("known_from", 1, 0),
            ("known_to", 2, FOREVER),
            ("valid_from", 3, 0),
            ("valid_to", 4, FOREVER),
            ("expires_at", 5, FOREVER),
        ):
            self._columns[name].fill(where, self.size, [empty if value is None else value for value in table[at]])
        said = [start if start is not None else known for start, known in zip(table[3], table[1], strict=True)]
        self._columns["said"].fill(where, self.size, said)
        for name, at in (("kind", 6), ("agent", 8), ("session", 9), ("author", 10), ("readers", 13)):
            labels = self._labels[name]
            for value in dict.fromkeys(table[at]):
                labels.setdefault(value, len(labels))
            self._codes[name].fill(where, self.size, list(map(labels.__getitem__, table[at])))
        recallable = [status in RECALLABLE for status in table[7]]
        self._recallable.fill(where, self.size, recallable)
        live = [some and known_to is None for some, known_to in zip(recallable, table[2], strict=True)]
        self._live.fill(where, self.size, live)
        self._trust.fill(where, self.size, table[11])
        for mentioned in self._mentioned.values():
            mentioned.resize(self.size)
        for column in self._near.values():
            column.resize(self.size)
        self._first.fill(where, self.size, rows)
        for row, before in zip(rows.tolist(), table[12], strict=True):
            if before is not None:
                self._first.values[row] = self._first.values[before & _LOW]
        folds = self._store.fold("terms", self.no, int(rows[0]) - 1)
        self.lexical.append([rid & _LOW for rid, _ in folds], [body for _, body in folds])
        self.lexical.resize(self.size)
        if self.vectors is not None:
            self.vectors.resize(self.size)
        if self._fold is not None:
            self._put_vectors(self._store.fold(self._fold, self.no, int(rows[0]) - 1, bodies=self._holds))
        for fold in self._mentioned:
            self._put_mentions(fold, self._store.fold(fold, self.no, int(rows[0]) - 1))
        return rows

    def _append_turns(self, rows: npt.NDArray[np.int64]) -> None:
        """Neighbours in the conversation: the messages before and after, in the same agent's session."""
        message = self._labels["kind"].get("message", -1)
        kinds, agents, sessions = (self._codes[name].values for name in ("kind", "agent", "session"))
        live = self._live.values
        previous, following = self._near["previous"].values, self._near["next"].values
        for row in rows.tolist():
            if kinds[row] != message or not live[row]:
                continue
            key = int(agents[row]), int(sessions[row])
            before = self._last_turn.get(key)
            if before is not None:
                previous[row] = before
                following[before] = row
            self._last_turn[key] = row

    def _order_turns(self) -> None:
        """The same for all rows at once: a new version stands where the first one stood, what is retracted stands nowhere."""
        message = self._labels["kind"].get("message", -1)
        rows = np.flatnonzero(self._live.values & (self._codes["kind"].values == message))
        agents, sessions = (self._codes[name].values[rows] for name in ("agent", "session"))
        rows = rows[np.lexsort((self._first.values[rows], sessions, agents))]
        agents, sessions = (self._codes[name].values[rows] for name in ("agent", "session"))
        joined = (agents[1:] == agents[:-1]) & (sessions[1:] == sessions[:-1])
        previous, following = self._near["previous"].values, self._near["next"].values
        previous[:], following[:] = -1, -1
        previous[rows[1:][joined]] = rows[:-1][joined]
        following[rows[:-1][joined]] = rows[1:][joined]
        self._last_turn = {
            (agent, session): row
            for agent, session, row in zip(agents.tolist(), sessions.tolist(), rows.tolist(), strict=True)
        }

    def _has_vector(self, row: int) -> bool:
        present = self.vectors.present if self.vectors is not None else ()
        return row < len(present) and bool(present[row])

    def _load_vectors(self, serving: tuple[str, str, int] | None) -> None:
        self._fold, self.model = (serving[0], serving[1]) if serving else (None, None)
        self.vectors = None
        if serving is not None:
            self.vectors = self._stored(int(serving[0][8:]), serving[2]) or VectorIndex(serving[2])
            self.vectors.resize(self.size)
            self._put_vectors(self._store.fold(serving[0], self.no, bodies=self._holds))

    def _stored(self, model: int, dimension: int) -> StoredVectors | None:
        """The vectors of a large scope where they are, if the server can search them there."""
        connections = self._store.connections
        if not connections.searches or self.size <= max(self._room, POOL):
            return None
        tenant = connections.tenant_of(self.no)
        with connections.reading(tenant) as connection:
            rows = searched(connection, model)
        if rows is None:
            self._room = 2 * self.size
            return None
        return StoredVectors(lambda: connections.reading(tenant), self.no, model, dimension, rows)

    @property
    def _holds(self) -> bool:
        """Whether the vectors themselves are here."""
        return isinstance(self.vectors, VectorIndex)

    def _outgrown(self) -> bool:
        return self._holds and self._store.connections.searches and self.size > max(self._room, POOL)

    def _put_vectors(self, folds: Sequence[tuple[int, bytes]]) -> None:
        if folds and self.vectors is not None:
            self.vectors.put_folds([rid & _LOW for rid, _ in folds], [body for _, body in folds])

    def _put_mentions(self, fold: str, found: Sequence[tuple[int, bytes]]) -> None:
        """Take in names or dates of rows that have none here yet; a worker that was overtaken puts the same ones twice."""
        here = self._mentioned[fold]
        fresh = {rid & _LOW: body for rid, body in found if not here.values[rid & _LOW]}
        if not fresh:
            return
        rows = sorted(fresh)
        here.values[rows] = True
        if fold == "names":
            self.entities.append(rows, [fresh[row] for row in rows])
        elif any(not body or len(body) % _SPAN_BYTES for body in fresh.values()):
            raise ValueError("a row's dates are cut short")

    # --- what searches read ---

    def visible(self, view: View) -> Mask:
        """Which rows a view shows; shape (size,)."""
        asked = (view.known, view.true_at, view.kinds, view.agent, view.session, view.reach, view.inside, view.without)
        known = self._masks.get(asked)
        before = known if known is not None and known[0] <= view.now < known[1] else None
        if before is not None and len(before[2]) == self.size:
            return before[2]
        start = 0 if before is None else len(before[2])  # what has come since is looked at alone
        shown, until = self._shown(view, start)
        if before is not None:
            until, shown = min(before[1], until), np.concatenate((before[2], shown))
        if known is None and len(self._masks) == MASKS:
            del self._masks[next(iter(self._masks))]
        self._masks[asked] = view.now, until, shown
        return shown

    def _shown(self, view: View, start: int) -> tuple[Mask, int]:
        """Which rows from ``start`` on a view shows, and when the next of them ends or expires: until then that stays so."""
        until = FOREVER
        some = slice(start, None)
        if view.known is None:
            shown: Mask = self._live.values[some].copy()
        else:
            known_from, known_to = (self._columns[name].values[some] for name in ("known_from", "known_to"))
            shown = self._recallable.values[some] & (known_from <= view.known) & (view.known < known_to)
        for name in ("expires_at",) if view.true_at is not None else ("expires_at", "valid_to"):
            ends = self._columns[name].values[some]
            later = ends > view.now
            until = min(until, int(ends.min(where=later, initial=FOREVER)))
            shown &= later
        if view.true_at is not None:
            shown &= self._columns["valid_from"].values[some] <= view.true_at
            shown &= self._columns["valid_to"].values[some] > view.true_at
        for name, wanted in (("agent", view.agent), ("session", view.session)):
            if wanted is not None:
                shown &= self._codes[name].values[some] == self._labels[name].get(wanted, -1)
        if view.kinds:
            shown &= self._of_kinds(view.kinds, some)
        if view.reach is not None:
            shown &= self._granted(view.reach, some)
        if view.without:
            shown &= ~np.isin(
                self._codes["author"].values[some], [self._labels["author"].get(one, -1) for one in view.without]
            )
        if view.inside:
            shown &= ~self._from_outside()[some]
        return shown, until

    def _granted(self, reach: Reach, some: slice) -> Mask:
        """Which of some rows another than the owner may read: what it may not see must have no part in a score either."""
        readers_of = self._codes["readers"].values[some]
        granted = np.zeros(len(readers_of), np.bool_)
        for grant in reach.grants or ():
            if reach.right not in grant.rights:
                continue
            covered = np.ones(len(granted), np.bool_)
            for name, wanted in (("agent", grant.agent), ("session", grant.session)):
                if wanted is not None:
                    covered &= self._codes[name].values[some] == self._labels[name].get(wanted, -1)
            if grant.kinds:
                covered &= self._of_kinds(grant.kinds, some)
            granted |= covered
        for readers, code in self._labels["readers"].items():
            if readers is not None and reach.reader not in json.loads(readers):
                granted &= readers_of != code
        return granted

    def _of_kinds(self, kinds: Collection[str], some: slice) -> Mask:
        """Which of some rows are of these kinds: there are few kinds, so a table says it in one step a row."""
        labels = self._labels["kind"]
        wanted = np.zeros(len(labels), np.bool_)
        wanted[[labels[kind] for kind in kinds if kind in labels]] = True
        found: Mask = wanted[self._codes["kind"].values[some]]
        return found

    def _from_outside(self) -> Mask:
        """Which rows are tainted: read when it is first asked for, which is when somebody crowds out the others."""
        known = len(self._tainted.values)
        if known < self.size:
            self._tainted.resize(self.size)
            self._tainted.values[[rid & _LOW for rid in self._store.tainted(self.no, known - 1)]] = True
        found: Mask = self._tainted.values
        return found

    def column(self, name: str) -> npt.NDArray[np.int64]:
        """known_from, known_to, valid_from, valid_to, expires_at, or ``said`` (valid_from, else known_from)."""
        found: npt.NDArray[np.int64] = self._columns[name].values
        return found

    def codes(self, name: str) -> npt.NDArray[np.int32]:
        """kind, agent, session or author of each row, as a small number."""
        found: npt.NDArray[np.int32] = self._codes[name].values
        return found

    def labels(self, name: str) -> dict[str | None, int]:
        """What those numbers stand for."""
        return self._labels[name]

    def neighbours(self, name: str) -> npt.NDArray[np.int32]:
        """The row of the ``previous`` or ``next`` turn in the same session, -1 where there is none."""
        found: npt.NDArray[np.int32] = self._near[name].values
        return found

    def surroundings(self, rows: Rows, shown: Mask) -> tuple[Rows, Rows, Rows, Rows]:
        """Some rows and the turns before and after them, and where in these they are: see ``loops.Loops``."""
        return self.loops.surroundings(rows, self.neighbours("previous"), self.neighbours("next"), shown)

    @property
    def loops(self) -> Loops:
        """What runs over so many rows."""
        return suited(self.size)

    @property
    def trust(self) -> npt.NDArray[np.float32]:
        """The trust of each row's origin."""
        found: npt.NDArray[np.float32] = self._trust.values
        return found

    @property
    def authors(self) -> frozenset[str]:
        """The people who speak here (not the parts of a chat, such as "user")."""
        labels = self._labels["author"]
        if self._authors[0] != len(labels):
            self._authors = len(labels), frozenset(name for name in labels if name is not None) - ROLES
        return self._authors[1]

    def crowding(self, rows: Rows) -> tuple[str | None, ...]:
        """The authors that have written half or more of some rows; one that was erased since it was found does not count."""
        there = rows[rows < self.size]
        codes = self._codes["author"].values[there[self._recallable.values[there]]].tolist()
        many = {code for code, count in Counter(codes).items() if 2 * count >= len(codes)}
        return tuple(name for name, code in self._labels["author"].items() if code in many)

    def speakers(self, view: View) -> frozenset[str]:
        """As ``authors``, of what a view shows; for the owner, of everything."""
        if view.reach is None:
            return self.authors
        shown = self.visible(view)
        if self._speakers[0] is not shown:  # a search asks three times
            labels = self._labels["author"]
            rows = np.bincount(self._codes["author"].values[shown], minlength=len(labels)).tolist()
            spoke = frozenset(name for name, code in labels.items() if name is not None and rows[code])
            self._speakers = shown, spoke - ROLES
        return self._speakers[1]

    @property
    def dated(self) -> Mask:
        """Which rows speak of a time; shape (size,)."""
        found: Mask = self._mentioned["dates"].values  # a row without a time has no such fold
        return found
