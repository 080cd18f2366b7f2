"""What follows an ``add``: vectors, names and dates, and the facts that encoders draw, from a queue in the same store.

raw -> indexed -> enriched. A job is taken under a lease, tried, and either settled together with what it made or put back
with a growing delay and its error; nothing is ever dropped, and a killed process leaves its jobs to the next.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from holdfast.cube import Channel, Cube, Kind, Scope
from holdfast.encode.base import Embedder, Encoder, Experience
from holdfast.errors import ConflictError, EmbedderError, HoldfastError
from holdfast.manage.retraction import ENDED_BY
from holdfast.retrieve.context import SUPERSEDED
from holdfast.retrieve.text import embeddable, pack_terms
from holdfast.store.base import Op, Operation, Store, Where
from holdfast.store.rows import Row
from holdfast.store.sql import SqlStore

EMBED, ENRICH = "embed", "enrich"
BATCH = 256
STOP_SECONDS = 10.0
READ = 200_000
"""Names and dates are read from so many characters of a text; a book would hold the queue for a minute."""
_DAY = 86_400

log = logging.getLogger("holdfast")

Progress = Callable[[str, int], None]


class Enrichment:
    """Works off the queue of one store, in a thread of its own or in the caller's.

    ``door`` is where what the encoders propose comes in: the governor's, so that it is ruled upon like everything.
    """

    def __init__(
        self,
        store: SqlStore,
        embedder: Embedder | None,
        encoders: Sequence[Encoder],
        *,
        door: Store | None = None,
    ) -> None:
        self._store = store
        self._door = door or store
        self.embedder = embedder
        self.encoders = tuple(encoders)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._working = threading.Lock()
        self._held = False  # whether to take what others have taken
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self.trouble: str | None = None

    # --- the thread ---

    def start(self) -> None:
        """Work in the background until ``stop``."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="holdfast-enrichment", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Say that there is something new."""
        self._wake.set()

    def stop(self) -> bool:
        """Finish the batch at hand and end the thread, if there is one (returned); what is left stays in the queue.

        An embedder that does not answer is not waited for longer than STOP_SECONDS: its batch stays in the queue too.
        """
        if os.getpid() != self._process:
            return False  # a forked child has no such thread
        self._stop.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_SECONDS)
        return thread is not None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self.step()
            except HoldfastError as error:  # the store is away: keep the jobs, try again later, say so
                log.warning("enrichment waits: %s", error)
                busy = False
            if not busy:
                self._wake.wait(timeout=5.0)
                self._wake.clear()

    # --- the work ---

    def step(self, scope: Scope | None = None) -> int:
        """Do one batch of each task; return how many jobs were done."""
        return self._batch(scope)[0]

    def _batch(self, scope: Scope | None) -> tuple[int, int]:
        """How many jobs were done, and how many failed."""
        with self._working:
            part = None if scope is None else self._store.partition(scope)
            if scope is not None and part is None:
                return 0, 0
            enriched, failed = self._enrich(part)
            embedded, refused = self._embed(part) if self.embedder is not None else (0, 0)
            return enriched + embedded, failed + refused

    def drain(self, scope: Scope | None = None, progress: Progress | None = None) -> int:
        """Work until nothing that can be done now is left; return how many jobs were done.

        A batch that fails does not stop the next ones, three in a row do.
        """
        total = failures = 0
        while not self._stop.is_set():
            done, failed = self._batch(scope)
            total += done
            if progress is not None:
                progress("enriched", done)
            failures = 0 if done else failures + 1
            if not done and (not failed or failures == 3):
                break
        return total

    def complete(self, progress: Progress | None = None) -> tuple[int, str | None]:
        """Embed every row that lacks a vector of this model; return how many cannot be, and the last error.

        What other programs have taken is taken too: theirs are another model's vectors. Rows that they add meanwhile are
        left to the queue.
        """
        self._held = True
        try:
            while self.drain(progress=progress):
                table = self.table()
                assert table is not None
                left, error = self._store.queue.lacking(table)
                if not left:
                    return 0, None
            table = self.table()
            assert table is not None
            left, error = self._store.queue.lacking(table)
            return (left, error) if error else (0, None)
        finally:
            self._held = False

    def table(self) -> str | None:
        """The vector table of this embedder in this store; made on first use. None without an embedder.

        Raises EmbedderError where the store's vectors are of another model by now, and ConflictError where the embedder
        gives another dimension than it did.
        """
        if self.embedder is None:
            return None
        models = self._store.models()
        serving = next((name for _, name, _, active in models if active), None)
        if serving is not None and all(name != self.embedder.model for _, name, _, _ in models):
            raise EmbedderError(
                f"this store's vectors are of {serving} by now, and this program embeds with {self.embedder.model}; open the "
                "store again"
            )
        for no, name, dimension, _ in models:
            if serving is not None and (name, dimension) == (self.embedder.model, self.embedder.dimension):
                return f"vectors_{no}"  # as mostly: nothing is to be written
        # Not beside another model: the store may have changed to one since we looked.
        no = self._store.add_model(self.embedder.model, self.embedder.dimension, beside=False)
        if serving is None:
            self._store.serve(no)
        return f"vectors_{no}"

    def _embed(self, part: int | None) -> tuple[int, int]:
        try:
            table = self.table()
        except (ConflictError, EmbedderError) as error:
            self.trouble = str(error)
            log.warning("embedding is put off: %s", error)
            return 0, 0
        embedder = self.embedder
        assert embedder is not None and table is not None
        rids = self._store.queue.take(EMBED, BATCH, partition=part, lacking=table, held=self._held)
        if not rids:
            return 0, 0
        rows = self._store.queue.texts(rids)  # without those that were forgotten meanwhile
        texts = [embeddable(row.cube) for row in rows]
        flat = [text for some in texts for text in some]
        try:
            vectors = np.asarray(embedder.embed(flat) if flat else np.empty((0, embedder.dimension), np.float32))
            if vectors.shape != (len(flat), embedder.dimension) or not np.isfinite(vectors).all():
                raise EmbedderError(
                    f"{embedder.model} gave vectors of shape {vectors.shape} for {len(flat)} texts and dimension "
                    f"{embedder.dimension}, or some that are no numbers; the store keeps its vectors as they are"
                )
        except Exception as error:  # an embedder may be anybody's code
            self._store.queue.postpone(EMBED, rids, _said(error))
            self.trouble = f"the embedder fails ({_said(error)}); what waits is tried again"
            log.warning("embedding is put off: %s", error)
            return 0, len(rids)
        packed = vectors.astype(np.float16)
        ends = np.cumsum([len(some) for some in texts])
        folds = [
            (row.rid, packed[end - len(some) : end].tobytes()) for row, some, end in zip(rows, texts, ends, strict=True)
        ]
        self._store.queue.put_folds({table: folds}, task=EMBED, done=rids)
        self.trouble = None
        return len(rids), 0

    def _enrich(self, part: int | None) -> tuple[int, int]:
        rids = self._store.queue.take(ENRICH, BATCH, partition=part)
        if not rids:
            return 0, 0
        from holdfast.encode.dates import find_dates  # a large grammar: compiled when there is something to read
        from holdfast.encode.people import find_names

        rows = self._store.queue.texts(rids)
        names, dates = [], []
        try:
            for row in rows:
                reference = row.cube.valid_from or row.cube.recorded_at
                assert reference is not None
                text = row.cube.text[:READ]
                names.append((row.rid, pack_terms(find_names(text))))
                spans = [(span.first, span.last) for span in find_dates(text, reference)]
                if spans:
                    days = [(int(a.timestamp()) // _DAY, int(b.timestamp() - 1) // _DAY) for a, b in spans]
                    dates.append((row.rid, np.asarray(days, "<i4").tobytes()))
            self._encode(rows)
        except Exception as error:  # so may an encoder be
            self._store.queue.postpone(ENRICH, rids, _said(error))
            log.warning("enrichment is put off: %s", error)
            return 0, len(rids)
        self._store.queue.put_folds({"names": names, "dates": dates}, task=ENRICH, done=rids)
        return len(rids), 0

    def _encode(self, rows: Sequence[Row]) -> None:
        """Run the encoders over new turns, scope by scope, and commit what they propose. Idempotent by content key."""
        if not self.encoders:
            return
        turns = [row.cube for row in rows if _is_evidence(row.cube)]
        for scope, group in groupby(sorted(turns, key=lambda cube: cube.scope.path), key=lambda cube: cube.scope):
            some = sorted(group, key=lambda cube: (cube.valid_from or cube.recorded_at, cube.id))
            home = replace(scope, agent=None, session=None)
            known = tuple(self._store.select(home, Where(kinds=DERIVED_KINDS)))
            for encoder in self.encoders:
                experience = Experience(tuple(some), now=self._store.now(), known=known)
                proposed = [operation for operation in encoder.encode(experience) if operation.op is not Op.NONE]
                if proposed:
                    proposed += self._outdated(proposed, home)
                    done = self._door.commit(_once(proposed), actor=f"encoder:{type(encoder).__name__}")
                    known += done.cubes

    def _outdated(self, proposed: Sequence[Operation], scope: Scope) -> list[Operation]:
        """Mark the turns that said little else than a claim which is being closed: they stay findable as what was once
        said, and no prompt is built from them."""
        marks = []
        for operation in proposed:
            claim = operation.cube
            if operation.op not in (Op.ADD, Op.UPDATE) or claim is None or ENDED_BY not in claim.data:
                continue
            assert claim.valid_to is not None
            begin, end = claim.data.get("span", (0, 0))
            for ref in claim.origin.derived_from:
                turn, quoted = self._store.get(ref.id, scope), self._store.get(ref.id, scope, version=ref.version)
                if (
                    turn.text != quoted.text or SUPERSEDED in turn.data
                ):  # the turn itself was corrected: it is up to date
                    continue
                if turn.kind == Kind.MESSAGE and end - begin >= MOST * len(turn.text):
                    data = {**turn.data, SUPERSEDED: claim.valid_to.isoformat()}
                    marks.append(
                        Operation.update(turn.with_(data=data), f"{operation.reason}; the turn said only that")
                    )
        return marks


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"


MOST = 0.6
"""A turn of which a closed claim is at least this share is outdated with it."""

DERIVED_KINDS = (Kind.FACT, Kind.EVENT, Kind.PREFERENCE, Kind.INSTRUCTION, Kind.PROFILE)


def _is_evidence(cube: Cube) -> bool:
    """Facts are drawn from what people and tools said, never from what was derived or recalled already."""
    return cube.kind in (Kind.MESSAGE, Kind.DOCUMENT) and cube.origin.channel not in (
        Channel.DERIVED,
        Channel.RECALLED,
        Channel.SYSTEM,
    )


def _once(operations: Sequence[Operation]) -> list[Operation]:
    """At most one update a cube in one transaction: the first wins, the others see it next time."""
    seen: set[str] = set()
    kept = []
    for operation in operations:
        if operation.op is Op.UPDATE and operation.cube is not None:
            if operation.cube.id in seen:
                continue
            seen.add(operation.cube.id)
        kept.append(operation)
    return kept
