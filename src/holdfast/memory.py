"""The facade: everything a user does with memories, in one class.

    memory = Memory("./team.holdfast")
    memory.add("I moved to Lisbon in May", user="ana")
    hits = memory.search("where does Ana live?", user="ana")

Every call names whose memory it means (``user=``, or a default given once); none falls back to everybody's.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np

from holdfast.as_of import RECALLED, AsOf
from holdfast.chat import Chat, count_tokens
from holdfast.cube import Channel, Cube, Form, Kind, Ref, Scope, Status, from_micros, to_micros, utc
from holdfast.encode.base import Embedder, Encoder, Outcome, Trajectory
from holdfast.encode.turns import Content, to_cubes
from holdfast.enrichment import Enrichment, Progress
from holdfast.errors import AccessError, ConflictError, EmbedderError, GuardError, InputError, NotFoundError, ScopeError
from holdfast.guard.base import Guard
from holdfast.guard.governor import BY, WITHIN, Door, Governor, Purpose, answered
from holdfast.guard.revocation import Revocation, put_back, revoke
from holdfast.guard.voices import WIDER, heard
from holdfast.keeping import Apply, keep, kept
from holdfast.manage.retraction import consequences
from holdfast.opening import choose, default_encoders, default_guard, open_store, opened
from holdfast.recipes.base import Guidance, Phase, Provider, Recipe, Taken
from holdfast.retrieve.context import Packed, pack, without_recalled
from holdfast.retrieve.hits import Hit, Hits
from holdfast.retrieve.likeness import ALIKE
from holdfast.retrieve.partition import View
from holdfast.retrieve.resemblance import FEWEST, Likeness
from holdfast.retrieve.search import Hearing, Ranking, Recall
from holdfast.retrieve.text import ANALYSER, fold_terms
from holdfast.retrieve.utility import Useful, Utility
from holdfast.store.access import Access, HeldStore
from holdfast.store.base import Action, Event, Operation, Where
from holdfast.store.forget import Receipt, forget
from holdfast.store.grants import Reach, Right
from holdfast.store.journal import Problem
from holdfast.store.rewards import Rewarded
from holdfast.store.schema import PARTITION_BITS
from holdfast.store.sql import SqlStore

if TYPE_CHECKING:
    from holdfast.guard.chains import Ask, Extractor
    from holdfast.guard.lessons import LessonStore
    from holdfast.guard.precedents import Precedents
    from holdfast.guard.release import Releases, Rule
    from holdfast.imprint import Gate, Imprint, Promotion
    from holdfast.latent.document_bank import DocumentBank
    from holdfast.latent.reader import Reader
    from holdfast.replying import Reply
    from holdfast.shelf import Shelf
    from holdfast.states import Attached, Resident, States
    from holdfast.teaching import Teach
    from holdfast.trained import Place, TrainedBank, TrainedModel, Unlearn
    from holdfast.weights.base import Batch, Teachable
    from holdfast.weights.block_bank import BlockBank
    from holdfast.weights.block_training import Training

BATCH = 512
MAX_PAGE = 1_000
MAX_QUERY = 100_000


@dataclass(frozen=True, slots=True)
class Added:
    """What an ``add`` did: the ids now durable and findable, those that were there already, and why something was not kept.

    ``quarantined`` are durable but not findable until somebody approves them; ``reasons`` say why.
    """

    ids: tuple[str, ...]
    duplicates: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.duplicates or self.quarantined)


@dataclass(frozen=True, slots=True)
class Page:
    """Some memories of many, the newest first. ``next``: where the page after this one begins; None where this is the last.

    ``total``: how many there are on all pages. ``first``, ``last``: when the oldest and the newest of them were recorded.
    """

    cubes: tuple[Cube, ...]
    total: int
    next: str | None = None
    first: datetime | None = None
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a memory's history: the event, and the version it made (None where it was erased)."""

    event: Event
    cube: Cube | None


class Memory:
    """Memories in one folder. Safe for any number of threads and processes at once.

    Args:
        path: the folder of the store; created on first use.
        tenant, user, agent, session: the scope that calls use unless they name their own. There is no default user: a
            call without one raises ScopeError.
        embedder: "auto" (the one the store was made with, else the offline one if it is installed), None (lexical
            search only), a name that ``open_embedder`` knows, or an Embedder.
        encoders: what draws facts from turns; by default the rules that need no language model.
        durability: "full" (a returned add survives power loss) or "normal" (it survives the death of the process).
        guard: rules on everything that wants to be remembered: "default" (``guard.admission``), None (everything is admitted), or
            a Guard.
        recipe: how to learn from what an agent did, by ``provide`` and ``take_in``: a name in ``recipes.book``, a file
            of one (``*.json``), its data, or a Recipe.
        chat: the chat model that writes where the recipe has something written, such as ``agent.chat.Endpoint``.
        background: embed and enrich in a thread; without it, call ``flush``.
        clock: the present, for replays and tests.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tenant: str = "default",
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        embedder: Embedder | str | None = "auto",
        encoders: Sequence[Encoder] | None = None,
        durability: str = "full",
        guard: Guard | str | None = "default",
        recipe: Recipe | str | Mapping[str, Any] | Path | None = None,
        chat: Chat | None = None,
        background: bool = True,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._defaults = {"tenant": tenant, "user": user, "agent": agent, "session": session}
        self._recipe, self._chat = _recipe(recipe), chat
        self._store = open_store(path, terms=fold_terms, tasks=("embed", "enrich"), clock=clock, durability=durability)
        self._owner, self._closes = self._store, True
        self._resident: list[Resident] = []
        self._access: Access | None = None
        try:
            if self._store.meta("analyser") != ANALYSER:
                self._store.rebuild(fold_terms, ANALYSER)
            chosen, self._degraded = choose(embedder, self._store.models())
            self._governor = Governor(self._store, default_guard(guard), self._ask)
            self._enrichment = self._enriching(chosen, default_encoders() if encoders is None else encoders)
            self.recall = Recall(self._store, chosen)
        except BaseException:
            self._owner.close()
            raise
        if background:
            self._enrichment.start()

    # --- remember ---

    def add(
        self,
        content: Content,
        *,
        kind: str = Kind.MESSAGE,
        channel: Channel | str = Channel.USER,
        author: str | None = None,
        source: str | None = None,
        trust: float | None = None,
        at: datetime | str | None = None,
        ttl: timedelta | None = None,
        data: Mapping[str, Any] | None = None,
        derived_from: Sequence[Ref] = (),
        taint: Sequence[str] = (),
        **scope: str | None,
    ) -> Added:
        """Keep a string, chat messages or cubes, verbatim. Returns when they are durable and lexically findable.

        Vectors and facts follow from the queue. Adding the same content again changes nothing. A call that keeps nothing
        says why in ``reasons``. ``data`` stands beside the words of each, unsearched, such as the steps of an experience
        (``precedents``). ``derived_from`` and ``taint`` name what it was made from, where it is not the user's own word
        (``agent.turn`` does that). Raises InputError, ScopeError, StoreError.
        """
        here = self.scope(**scope)
        cubes, reasons = to_cubes(
            content,
            here,
            kind=kind,
            channel=channel,
            author=author,
            source=source,
            trust=trust,
            at=at,
            data={} if data is None else data,
            derived_from=derived_from,
            taint=taint,
            clean=without_recalled,  # memory must not feed on its own echo
        )
        if ttl is not None:
            ends = self._store.now() + ttl
            cubes = [cube.with_(policy=replace(cube.policy, expires_at=ends)) for cube in cubes]
        ids: list[str] = []
        duplicates: list[str] = []
        quarantined: list[str] = []
        for start in range(0, len(cubes), BATCH):
            some = [Operation.add(cube) for cube in cubes[start : start + BATCH]]
            done = self._governor.apply(Purpose.WRITE, some, actor=here.path)
            ids += [cube.id for cube in done.cubes if cube.id not in done.quarantined]
            quarantined += done.quarantined
            duplicates += done.duplicates
            reasons += [*done.refused, *done.quarantined.values()]
        if ids:
            self._enrichment.wake()
        return Added(tuple(ids), tuple(duplicates), tuple(reasons), tuple(quarantined))

    def correct(self, id: str, text: str, *, reason: str = "", **scope: str | None) -> Cube:
        """Give a memory other words. The old version stays in history; what was derived from it is up for review."""
        here = self.scope(**scope)
        cube = self._store.get(id, here).with_(text=text)
        done = self._governor.apply(Purpose.EDIT, [Operation.update(cube, reason)], actor=here.path)
        if not done.cubes:
            raise GuardError("; ".join(done.refused))
        self._enrichment.wake()
        return done.cubes[0]

    def apply(
        self, operations: Sequence[Operation], *, actor: str, change: Purpose = Purpose.CONSOLIDATE
    ) -> tuple[Cube, ...]:
        """Commit what an encoder or a manager proposed; the cubes as stored. Raises GuardError where a canary dies of it."""
        done = self._governor.apply(change, operations, actor=actor)
        self._enrichment.wake()
        return done.cubes

    @property
    def door(self) -> Door:
        """The store as an import sees it: what comes in is ruled upon, and faces the canaries."""
        return self._governor.door(Purpose.IMPORT)

    def feedback(self, hits: Iterable[Hit | str], reward: float, **scope: str | None) -> dict[str, str]:
        """Say how well memories served (a reward in [-1, 1]). Being looked at changes nothing; this does.

        What something from outside had a part in can lose by it, and gains nothing. Returns why some gained nothing, by id.
        """
        here = self.scope(**scope)
        ids = [hit.id if isinstance(hit, Hit) else hit for hit in hits]
        return self._store.feedback(ids, here, reward, actor=here.path)

    def reward(self, token: str, reward: float, **scope: str | None) -> Rewarded:
        """Say how what ``useful`` recalled has served (a reward in [-1, 1]), once: a second time changes nothing and says so.

        Days later, from another process too. Raises InputError, NotFoundError for a token that is none in this scope.
        """
        here = self.scope(**scope)
        return self._store.redeem(token, here, reward, actor=here.path)

    # --- experience ---

    def provide(
        self, task: str, phase: str = "begin", *, context: str = "", author: str | None = None, **scope: str | None
    ) -> Guidance:
        """What the recipe has to tell an agent for a task before it begins, or at a "step" after what ``context`` says.

        ``author``: for whom the agent works, by default the agent. Raises InputError where there is no recipe, and ChatError.
        """
        return self._cook(self.scope(**scope), author).provide(task, Phase(phase), context=context)

    def take_in(
        self, trajectory: Trajectory, outcome: Outcome | float | None, *, author: str | None = None, **scope: str | None
    ) -> Taken:
        """Keep what an agent did, and learn from it by the recipe; ``outcome`` is how it went, a reward in [-1, 1] or None.

        The same run a second time does only what was left undone. Raises InputError where there is no recipe, and ChatError.
        """
        went = outcome if isinstance(outcome, Outcome) else Outcome(outcome)
        return self._cook(self.scope(**scope), author).take_in(trajectory, went)

    def manage(self, **scope: str | None) -> tuple[str, ...]:
        """Let the recipe tend what it made; the ids of what changed."""
        here = self.scope(**scope)
        self._store.reach(here, Right.WRITE)  # a recipe that finds nothing to tend would ask for no right
        return self._cook(here).manage()

    def provider(
        self,
        *,
        author: str | None = None,
        recipe: Recipe | str | Mapping[str, Any] | Path | None = None,
        chat: Chat | None = None,
        **scope: str | None,
    ) -> Provider:
        """The recipe at work in one scope; another ``recipe`` and ``chat`` than the memory's own may be named."""
        return self._cook(self.scope(**scope), author, recipe, chat)

    def tally(self, *, back: int, kinds: Sequence[str] = (), **scope: str | None) -> tuple[int, datetime | None]:
        """How many memories a search may find, and when the ``back``-th newest was recorded, None where there are no more.

        Raises ScopeError.
        """
        reach = self._store.reach(self.scope(**scope))
        view = self._view(reach, kinds)
        return (0, None) if view is None else self.recall.tally(reach.scope, view, back)

    def changed(self, since: datetime, *, kinds: Sequence[str] = (), **scope: str | None) -> list[Cube]:
        """What a search may find that was recorded or changed since a time. Raises ScopeError."""
        reach = self._store.reach(self.scope(**scope))
        view = self._view(reach, kinds)
        return [] if view is None else self.recall.changed(reach.scope, view, since)

    # --- recall ---

    def nearest(
        self, text: str, *, k: int = 10, kinds: Sequence[str] = (), by: Ranking = ALIKE, **scope: str | None
    ) -> Hits:
        """The k memories most like a text, the nearest first; ``relevance`` is the cosine of their meaning.

        ``by`` says what makes them alike, by default meaning alone (``retrieve.likeness``). What has no vector yet is compared by
        its words. Raises InputError, ScopeError.
        """
        return self._search(text, self.scope(**scope), k, kinds, 0, None, None, ranking=by)

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        kinds: Sequence[str] = (),
        neighbours: int = 0,
        now: datetime | str | None = None,
        **scope: str | None,
    ) -> Hits:
        """The k memories that best answer a query, best first, each with a score that explains itself.

        ``neighbours`` adds that many turns before and after each hit. ``now`` is the moment from which "last week" in the
        query counts, by default the present. ``hits.abstain`` is true where nothing found is
        likely to answer; ``hits.degraded`` names what could not be used. Raises InputError, ScopeError.
        """
        asked = None if now is None else utc(now)
        return self._search(query, self.scope(**scope), k, kinds, neighbours, None, None, asked)

    def context(
        self,
        query: str,
        *,
        budget: int = 800,
        k: int = 50,
        count: Callable[[str], int] = count_tokens,
        **scope: str | None,
    ) -> str:
        """What is worth telling a model about a query, within a budget of tokens, fenced as data; "" where nothing is.

        ``count`` counts tokens; the default estimates four bytes a token. ``pack`` also says which memories are in it.
        """
        return self.pack(query, budget=budget, k=k, count=count, **scope).text

    def pack(
        self,
        query: str,
        *,
        budget: int = 800,
        k: int = 50,
        count: Callable[[str], int] = count_tokens,
        **scope: str | None,
    ) -> Packed:
        """As ``context``, with the cubes, at their versions, that the text holds."""
        return self._pack(query, self.scope(**scope), budget, k, count, known=None, true_at=None)

    def useful(
        self,
        task: str,
        *,
        by: Utility | None = None,
        kinds: Sequence[str] = (),
        random: np.random.Generator | int | None = None,
        **scope: str | None,
    ) -> Useful:
        """What is like a task and has helped before, with the token by which ``reward`` says whether it helped this time.

        ``by`` says how likeness and utility are weighed; where that explores, ``random`` is a seed or a generator. Any other
        recall can be rewarded likewise: ``store.hand_out`` gives a token for memories. Raises InputError, ScopeError.
        """
        here, by = self.scope(**scope), by or Utility()
        drawn = None if random is None else np.random.default_rng(random)
        found = self._search(task, here, by.pool, kinds, 0, None, None, ranking=ALIKE)
        hits = by.choose(found, drawn)
        return Useful(hits, self._store.hand_out([hit.cube for hit in hits], here, by.terms))

    def alike(self, texts: Sequence[str], *, k: int = 5, **scope: str | None) -> list[Likeness]:
        """The k sessions that are most like several texts (a conversation, a profile), the nearest first.

        A single text is a question: ``search`` answers it. Raises InputError for fewer than two texts, EmbedderError where
        there is no embedder.
        """
        if isinstance(texts, str) or len(texts) < FEWEST or not all(isinstance(text, str) for text in texts):
            raise InputError("alike compares several texts, such as a conversation's turns; for one text use search")
        here = self.scope(**scope)
        reach = self._store.reach(here)
        if not reach.covers(reach.scope, Kind.MESSAGE):
            raise AccessError(
                f"what is alike is told of whole sessions, and not all messages of {here.path} are to be read"
            )
        here = reach.scope
        view = self._view(reach, (Kind.MESSAGE,))
        assert view is not None  # all messages are to be read
        return self.recall.alike(texts, here, view, k)

    def get(self, id: str, *, version: int | None = None, **scope: str | None) -> Cube:
        """One memory by its id. Raises NotFoundError."""
        return self._store.get(id, self.scope(**scope), version=version)

    def select(self, where: Where | None = None, **scope: str | None) -> Iterator[Cube]:
        """The memories that pass a filter, oldest first; by default all that can be recalled."""
        return self._store.select(self.scope(**scope), where or RECALLED)

    def as_of(self, known: datetime | str | None = None, *, true_at: datetime | str | None = None) -> AsOf:
        """The memory as it was: what was known then, and, with ``true_at``, what was true then.

        ``as_of("2026-01-01")`` answers as a search on that day would have.
        """
        times = [None if when is None else utc(when) for when in (known, true_at)]
        return AsOf(self._store, self.scope, self._search, self._pack, *times)

    def page(
        self,
        *,
        limit: int = 100,
        after: str | None = None,
        known: datetime | str | None = None,
        true_at: datetime | str | None = None,
        kinds: Sequence[str] = (),
        statuses: Sequence[str] = (),
        source: str | None = None,
        author: str | None = None,
        **scope: str | None,
    ) -> Page:
        """Memories by when they were recorded, the newest first, a page at a time; ``after`` is the ``next`` of the page before.

        ``known``, ``true_at``: as it was known, and what was true, at some time. What is recorded meanwhile moves no page. These
        are what a search may find; with ``statuses``, ``source`` or ``author``, it is all that is kept and passes, whatever its
        status. Raises InputError, ScopeError.
        """
        if not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
            raise InputError(f"limit must be a whole number from 1 to {MAX_PAGE}, not {limit!r}")
        begin = None
        if after is not None:
            found = re.fullmatch(r"(-?[0-9]{1,18})\.([0-9]{1,18})", after)
            if found is None:
                raise InputError(f"{after!r} is no place in a list; use the 'next' of the page before")
            begin = int(found[1]), int(found[2])
        reach = self._store.reach(self.scope(**scope))
        times = [None if when is None else utc(when) for when in (known, true_at)]
        if statuses or source is not None or author is not None:
            where = Where(_several(kinds, "kinds"), _several(statuses, "statuses"), source, author)
            where = replace(where, known_at=times[0], valid_at=times[1])
            return _page(self._store, reach, where, limit, None if begin is None else begin[1])
        view = self._view(reach, kinds, *times)
        if view is None:
            return Page((), 0)
        cubes, total, following, ends = self.recall.page(reach.scope, view, limit, begin)
        return Page(
            tuple(cubes),
            total,
            None if following is None else f"{following[0]}.{following[1]}",
            *(from_micros(when) for when in ends or ()),
        )

    # --- take back ---

    def history(
        self, id: str | None = None, *, since: int = 0, until: int | None = None, **scope: str | None
    ) -> list[Change]:
        """Every event of one memory, or of the whole scope's tenant and user, oldest first; after ``since``, up to ``until``."""
        here = self.scope(**scope)
        versions: dict[str, dict[int, Cube]] = {}
        changes = []
        for event in self._store.events(since, scope=here, id=id, until=until):
            if event.id not in versions:
                try:
                    found = self._store.versions(event.id, here)
                except NotFoundError:  # erased, or of another agent or session
                    found = []
                versions[event.id] = {row.cube.version: row.cube for row in found}
            changes.append(Change(event, versions[event.id].get(event.version)))
        return changes

    def undo(self, seq: int, *, reason: str = "", **scope: str | None) -> tuple[Cube, ...]:
        """Take back the change that event ``seq`` belongs to, by a new change; an undo can be undone.

        What was drawn from a memory that goes, goes with it, and what that had ended holds again.
        """
        here = self.scope(**scope)
        home = Scope(here.tenant, here.user)
        txn = next((event.txn for event in self._store.events(seq - 1, scope=here) if event.seq == seq), None)
        events = [event for event in self._store.events((txn or seq) - 1, scope=here) if event.txn == txn]
        also = consequences(self._owner, [event.id for event in events if event.action is Action.ADD], home)
        touched = {event.id for event in events}  # these return to the version before by the undo itself
        also = [operation for operation in also if operation.cube is None or operation.cube.id not in touched]
        done = self._owner.undo(seq, here, also=also, actor=here.path, reason=reason, through=self._store)
        self._enrichment.wake()
        return tuple(cube for cube in done.cubes if self._store.sees(cube))

    def retract(self, id: str, *, reason: str = "", **scope: str | None) -> None:
        """Take a memory, and what was drawn from it alone, out of recall and keep all in history; ``undo`` brings it back."""
        here = self.scope(**scope)
        cube = _no_lesson(self._store.get(id, here))
        also = consequences(self._owner, [id], Scope(here.tenant, here.user))
        self._owner.commit([Operation.delete(cube, reason)], also=also, actor=here.path, through=self._store)

    def restore(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """Bring an archived or expired memory back into recall. What stands in quarantine is let out by ``approve``."""
        here = self.scope(**scope)
        cube = _no_lesson(self._store.get(id, here))
        if cube.status is Status.QUARANTINED:
            raise ConflictError(f"memory {id} stands in quarantine; look at it, then approve or reject it")
        back = Operation.update(cube.with_(status=Status.ACTIVATED), reason)
        return self._store.commit([back], actor=here.path).cubes[0]

    def freeze(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """Forbid every change of a memory until ``thaw``; it stays findable."""
        here = self.scope(**scope)
        cube = _no_lesson(self._store.get(id, here)).with_(status=Status.FROZEN)
        return self._store.commit([Operation.update(cube, reason)], actor=here.path).cubes[0]

    def thaw(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """Allow changes of a frozen memory again."""
        return self.restore(id, reason=reason, **scope)

    def forget(
        self,
        ids: str | Iterable[str] = (),
        *,
        source: str | None = None,
        author: str | None = None,
        since: datetime | str | None = None,
        everything: bool = False,
        reason: str = "",
        dry_run: bool = False,
        **scope: str | None,
    ) -> Receipt:
        """Erase memories for good, with all that was derived from them, in every form; the receipt's ``verify`` proves it.

        Name ids, or a source, an author, a time since when; ``everything=True`` alone means the whole scope.
        """
        here = self.scope(**scope)
        where = Where(source=source, author=author, since=None if since is None else utc(since))
        named = [ids] if isinstance(ids, str) else list(ids)
        by = where if where != Where() or everything else None
        if by is None and not named:
            raise InputError("forget what? Give ids, source=, author=, since=, or everything=True")
        receipt = forget(self._store, here, ids=named, where=by, reason=reason, actor=here.path, dry_run=dry_run)
        if not dry_run:
            self._owner.commit(put_back(self._owner, here), actor=self._holder or here.path)
        return receipt

    def lineage(self, id: str, *, down: bool = True, **scope: str | None) -> list[Ref]:
        """What was derived from a memory (``down``), or what it was derived from."""
        return self._store.lineage(id, self.scope(**scope), down=down)

    # --- the guard ---

    def quarantined(self, **scope: str | None) -> list[Cube]:
        """What waits for somebody to look at it; ``history`` of each says why."""
        return list(self._store.select(self.scope(**scope), Where(statuses=(Status.QUARANTINED,))))

    def approve(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """Let a memory out of quarantine. It stays tainted: something to read, that authorises nothing."""
        return self._judge(id, Status.ACTIVATED, f"approved: {reason}" if reason else "approved", self.scope(**scope))

    def reject(self, id: str, *, reason: str = "", **scope: str | None) -> Cube:
        """Archive a memory that stands in quarantine."""
        return self._judge(id, Status.ARCHIVED, f"rejected: {reason}" if reason else "rejected", self.scope(**scope))

    def release(self, *, rule: Rule | None = None, dry_run: bool = False, **scope: str | None) -> Releases:
        """Let out of quarantine what enough independent sources say as well, and put back what they no longer do.

        ``rule`` says how many are enough. What comes out stays tainted. ``dry_run`` only says what would come out, and why
        the rest waits.
        """
        from holdfast.guard.release import Releases, Rule, propose

        here, rule = self.scope(**scope), rule or Rule()
        self._store.reach(here, Right.JUDGE)
        back = put_back(self._owner, here)
        if not dry_run:
            self._owner.commit(back, actor=self._holder or here.path)
        found, waiting = propose(self._store, here, rule)
        released = []
        for one in found if not dry_run else ():
            evidence = {"memory": one.cube.id, "because": list(one.because), "inside": rule.inside, "sites": rule.sites}
            try:
                done = self._governor.release(one.cube, one.reason, evidence, actor=here.path)
            except (ConflictError, GuardError) as error:  # changed meanwhile, or a canary died: it waits
                waiting[one.cube.id] = str(error)
                continue
            if done.cubes:
                released.append(one)
            else:
                waiting[one.cube.id] = "; ".join(done.refused)
        self._enrichment.wake()
        withdrawn = tuple(some.cube.id for some in back if some.cube is not None and self._store.sees(some.cube))
        return Releases(tuple(found if dry_run else released), withdrawn, waiting, planned=dry_run)

    def revoke(
        self,
        *,
        source: str | None = None,
        author: str | None = None,
        by: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        reason: str = "",
        dry_run: bool = False,
        **scope: str | None,
    ) -> Revocation:
        """Take memories of a source, an author or a time out of recall, with what was made of them; ``undo`` brings all back.

        ``by``: the principal that added them.
        """
        here = self.scope(**scope)
        times = [None if when is None else utc(when) for when in (since, until)]
        where = Where(source=source, author=author, by=by, since=times[0], until=times[1])
        home = Scope(here.tenant, here.user)
        reach = self._store.reach(home, Right.JUDGE)
        if not reach.covers(home):
            raise AccessError(
                f"what was made of a source may lie anywhere in {here.partition}, and not all of it is to be judged"
            )
        return revoke(
            self._owner,
            here,
            where,
            reason=reason,
            actor=self._holder or here.path,
            dry_run=dry_run,
            judged=reach.sees,
            shown=self._store.sees,
        )

    def canary(self, question: str, expects: str, **scope: str | None) -> Cube:
        """Keep a question that must go on finding a memory, by its id or words of it: a change that ends that is undone."""
        here = self.scope(**scope)
        self._store.reach(here, Right.JUDGE)
        return self._governor.add_canary(question, expects, here, actor=self._holder or here.path, by=self._holder)

    def answers(self, canary: Cube) -> bool:
        """Whether a canary's question finds what it expects now. Raises NotFoundError for one that is not kept."""
        kept = self._store.get(canary.id, canary.scope)
        return answered(kept, self._search(kept.text, kept.scope, WITHIN, (), 0, None, None))

    def precedents(
        self,
        task: str,
        *,
        k: int = 12,
        model: Ask | None = None,
        judge: bool = False,
        extract: Extractor | None = None,
        min_sources: int = 2,
        learn: bool = True,
        **scope: str | None,
    ) -> Precedents:
        """What was done in a like case (experiences and skills), and may be acted upon: what a quorum of sources agrees on.

        At most ``k`` records are compared. What they would lead to is read from their ``data``, by a chat ``model`` (such as
        ``guard.chat.ChatModel``), or by ``extract``; ``judge`` lets the model drop more. An effect needs ``min_sources`` trusted
        sources. What was caught becomes a lesson, unless ``learn`` is false. Raises InputError, ScopeError.
        """
        from holdfast.guard.precedents import BREADTH, KINDS, weigh

        here = self.scope(**scope)
        hits = self._search(task, here, BREADTH * k, KINDS, 0, None, None, hear=_VOTING)
        return weigh(
            task,
            hits,
            self._store,
            here,
            self.lessons(**scope),
            guard=self._governor.guard,
            k=k,
            extract=extract,
            model=model,
            judge=judge,
            min_sources=min_sources,
            learn=learn and not self._holder,
        )

    def lessons(self, **scope: str | None) -> LessonStore:
        """What was caught before it was acted upon, in any session: ``all``, ``for_action``, ``confirm``, ``retract``."""
        from holdfast.guard.lessons import LessonStore

        return LessonStore(self._store, replace(self.scope(**scope), session=None), clock=self._store.now)

    # --- other forms ---

    def keep(self, data: bytes, *, of: Iterable[Cube | Hit | str], kind: str = "session", **scope: str | None) -> Cube:
        """Keep what a model has in mind, a file of tensors as ``latent`` packs them, derived from the memories that went into it.

        Raises InputError for another file, NotFoundError for a memory that is not to be recalled in this scope.
        """
        here = self.scope(**scope)
        return keep(self._store, self._applying(here), here, data, [_id(one) for one in of], kind)

    def kept(self, id: str, **scope: str | None) -> bytes:
        """The file of such a cube. Raises NotFoundError, and StaleError where a memory that went into it no longer holds."""
        return kept(self._store, self.scope(**scope), id)

    @overload
    def promote(
        self,
        cubes: Iterable[Cube | Hit | str],
        *,
        to: Literal["state"] = "state",
        model: Reader,
        exact: bool = True,
        **scope: str | None,
    ) -> tuple[Cube, ...]: ...

    @overload
    def promote(
        self,
        cubes: Iterable[Cube | Hit | str],
        *,
        to: Literal["weights"],
        model: Imprint,
        exact: bool = True,
        **scope: str | None,
    ) -> Promotion: ...

    def promote(
        self,
        cubes: Iterable[Cube | Hit | str],
        *,
        to: str = Form.STATE,
        model: Reader | Imprint,
        exact: bool = True,
        **scope: str | None,
    ) -> tuple[Cube, ...] | Promotion:
        """Let a model read or learn memories, and keep what it makes of them as cubes of another form, derived from them.

        ``to``: "state", a KV cache on disk that ``attach`` uses, by a ``latent.reader.Reader``; or "weights", facts that the model
        tells without reading them, by what ``imprint`` gave: a ``Promotion`` then, which says what did not pass and why. ``exact``,
        of states: of each memory after those before it, in this order; otherwise of each by itself. Needs the extra
        ``holdfast[torch]``. Raises NotFoundError, InputError.
        """
        here = self.scope(**scope)
        if to == Form.WEIGHTS:
            from holdfast.imprint import Imprint

            if not isinstance(model, Imprint):
                raise InputError("to teach a model, say memory.imprint(editor) and give what it returns as model=")
            if model.scope != here:
                raise InputError(f"this model learns what is in {model.scope.path}, and nothing of {here.path}")
            return model.promote(cubes)
        from holdfast.latent.reader import Reader

        if to != Form.STATE:
            raise InputError(f"memories are promoted to 'state' or to 'weights', not to {to!r}")
        if not isinstance(model, Reader):
            raise InputError(
                "memories are promoted to 'state' by a Reader, and to 'weights' by what memory.imprint returns"
            )
        return self._states(model, here).promote(cubes, exact=exact)

    def imprint(
        self,
        editor: Teachable,
        *,
        gate: Gate | None = None,
        teach: Teach | None = None,
        controls: Sequence[str] = (),
        contexts: Sequence[str] = (),
        name: str = "weights",
        **scope: str | None,
    ) -> Imprint:
        """Facts of one scope in a model's weights, by an editor of ``weights``; what was promoted before is taught again.

        ``gate``: what a memory, and the model with it, must be. ``teach``: what is taught of a memory. ``controls``: texts of which
        the model must go on saying what it says. ``contexts``: in which it is asked whether it learnt a fact. ``name``: what it is
        called in receipts. Raises InputError where a holder of that name has joined, or the editor holds edits already.
        """
        from holdfast.imprint import Imprint

        here = self.scope(**scope)
        made = Imprint(
            self._store,
            here,
            editor,
            self._applying(here),
            gate=gate,
            teach=teach,
            controls=controls,
            contexts=contexts,
            name=name,
        )
        self._owner.forms.join(made)
        made.load()
        return made

    def chat(
        self,
        question: str,
        *,
        model: Reader,
        imprint: Imprint | None = None,
        k: int = 5,
        length: int = 64,
        **scope: str | None,
    ) -> Reply:
        """Let a model answer from memory, in whichever form is cheapest and holds; the reply says which, and what it rests on.

        ``imprint``: the facts in the model's weights. ``k``: memories that are recalled. ``length``: tokens of the answer at most.
        Needs the extra ``holdfast[torch]``.
        """
        from holdfast.replying import reply

        here = self.scope(**scope)
        if imprint is not None and imprint.scope != here:
            raise InputError(f"these facts are of {imprint.scope.path}, and not to be told in {here.path}")
        hits = self.search(question, k=k, tenant=here.tenant, user=here.user, agent=here.agent, session=here.session)
        return reply(self._store, question, hits, model, self._states(model, here), imprint, length)

    def attach(
        self, cubes: Iterable[Cube | Hit | str], *, model: Reader, exact: bool = True, **scope: str | None
    ) -> Attached:
        """Memories as the beginning of a prompt, with all of it that was promoted to state for this model and still holds."""
        return self._states(model, self.scope(**scope)).attach(cubes, exact=exact)

    def demote(self, states: Iterable[Cube | str], **scope: str | None) -> None:
        """Let go of cubes of the form ``state``, files and all; the memories stay.

        Raises NotFoundError, AccessError, and InputError for a cube that is none.
        """
        from holdfast.states import demote

        demote(self._store, self.scope(**scope), states)

    def states(
        self, model: Reader, *, budget: int | None = None, half_life: float = 3600.0, **scope: str | None
    ) -> States:
        """What is kept as state for a model.

        With a ``budget`` of bytes ``States.tick`` promotes and demotes by how often memories are attached.
        """
        return self._states(model, self.scope(**scope), budget, half_life)

    # --- access ---

    @property
    def access(self) -> Access:
        """Who may do what here: principals, grants and keys. Raises AccessError for anybody but the owner."""
        if self._access is None or self._access.store is not self._store:
            self._access = Access(self._store)  # it remembers what it read, until the journal of it moves
        return self._access

    def with_key(self, key: str, *, closes: bool = False) -> Memory:
        """This memory in the hands of a key's holder. ``closes``: to close that one closes this. Raises AccessError."""
        return self._for(self.access.open(key), closes)

    def held_by(self, name: str) -> Memory:
        """As ``with_key``, for a program that knows by other means who calls. Raises NotFoundError, AccessError."""
        return self._for(self.access.held_by(name), closes=False)

    # --- care ---

    def flush(self, progress: Progress | None = None) -> None:
        """Embed and enrich everything that waits, in this thread."""
        self._store.queue.retry()
        self._enrichment.drain(progress=progress)

    def verify(self, head: tuple[int, str] | None = None) -> list[Problem]:
        """Check the journal's hash chain and every memory against it; an empty list means all is well.

        ``head`` is the (seq, hash) that ``status`` said earlier, noted elsewhere: it proves that nothing was cut off since.
        """
        return self._store.verify(head)

    def status(self) -> dict[str, Any]:
        """What the store holds, what still waits, and what is degraded."""
        seq, head = self._store.head()
        backlog = {
            task: {"waiting": waiting, "failed": failed, "error": error}
            for task, (waiting, failed, error) in self._store.queue.backlog().items()
        }
        return {
            "path": self._store.name,
            **self._store.counts(),
            "head": {"seq": seq, "hash": head},
            "durability": self._store.connections.durability,
            "embedder": self._enrichment.embedder.model if self._enrichment.embedder else None,
            "backlog": backlog,
            "degraded": self.degraded,
        }

    @property
    def degraded(self) -> list[str]:
        """What could not be used, each in one line with what to do; empty when all is well."""
        serving = next((name for _, name, _, active in self._store.models() if active), None)
        return [*self._trouble(), *self.recall.degraded(serving)]

    @property
    def learns(self) -> bool:
        """Whether there is a recipe."""
        return self._recipe is not None

    @property
    def guarded(self) -> bool:
        """Whether there is a guard."""
        return self._governor.guarded

    @property
    def store(self) -> SqlStore:
        """The store beneath, for managers and tools."""
        return self._store

    def reembed(self, embedder: Embedder | str, progress: Progress | None = None) -> int:
        """Give every memory vectors of another model; the old ones serve searches until all new ones are there."""
        if self._holder:
            raise AccessError(f"{self._holder} may not give the whole store other vectors; only its owner may")
        chosen = opened(embedder)
        before = self._enrichment
        working = before.stop()
        after = self._enriching(before.embedder, before.encoders)
        try:
            no = self._store.add_model(chosen.model, chosen.dimension)
            left, error = Enrichment(self._store, chosen, ()).complete(progress)
            if left:
                raise EmbedderError(
                    f"{left} memories could not be embedded ({error}); "
                    f"{before.embedder.model if before.embedder else 'lexical search'} goes on serving. Try again"
                )
            self._store.activate(no)
            after = self._enriching(chosen, before.encoders)
            self.recall = Recall(self._store, chosen)
            self._degraded = []
        finally:
            self._enrichment = after
            if working:
                after.start()
        return self._store.counts()["memories"]

    def close(self) -> None:
        """Finish the batch at hand and close the files; what waits is done by whoever opens the store next."""
        if self._closes:
            self._enrichment.stop()
            self._owner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def scope(self, **named: str | None) -> Scope:
        """The scope that a call means: what it names, over the defaults. Raises ScopeError when no user is named."""
        unknown = set(named) - set(self._defaults)
        if unknown:
            raise InputError(f"unknown argument {', '.join(sorted(unknown))}; a scope has tenant, user, agent, session")
        parts = {**self._defaults, **{name: value for name, value in named.items() if value is not None}}
        if parts["user"] is None:
            raise ScopeError("whose memory? Name the user: user='ana', here or in Memory(..., user='ana')")
        return Scope(**parts)  # type: ignore[arg-type]

    # --- inside ---

    @property
    def _holder(self) -> str:
        return self._store.holder if isinstance(self._store, HeldStore) else ""

    def _cook(
        self,
        scope: Scope,
        author: str | None = None,
        recipe: Recipe | str | Mapping[str, Any] | Path | None = None,
        chat: Chat | None = None,
    ) -> Provider:
        chosen = _recipe(recipe) or self._recipe
        if chosen is None:
            raise InputError("this memory has no recipe: name one, as in Memory(..., recipe='voyager')")
        from holdfast.recipes.provider import Cook

        return Cook(self, chosen, scope, model=chat or self._chat, author=author)

    def shelve(self, bank: DocumentBank, tokenizer: Any, *, name: str = "shelf", **scope: str | None) -> Shelf:
        """A bank of documents that memories of one scope are put into, and leave when they are forgotten or no longer hold.

        ``name``: what it is called in receipts. Raises InputError where a holder of that name has joined.
        """
        from holdfast.shelf import Shelf

        shelf = Shelf(self._store, self.scope(**scope), bank, tokenizer, name)
        self._owner.forms.join(shelf)
        return shelf

    def bank(
        self,
        bank: BlockBank,
        model: Any,
        tokenizer: Any,
        *,
        place: Place,
        training: Training | None = None,
        name: str = "bank",
        **scope: str | None,
    ) -> TrainedBank:
        """A bank of blocks that memories of one scope train; what is forgotten or changed goes with the blocks that it reached.

        ``place``: where in the bank's tree a memory is learnt. ``name``: what it is called in receipts. Raises InputError where a
        holder of that name has joined, StaleError for another model than the bank's.
        """
        from holdfast.trained import TrainedBank
        from holdfast.weights.block_training import Training

        chosen = training or Training()
        made = TrainedBank(
            self._store, self.scope(**scope), bank, model, tokenizer, place=place, training=chosen, name=name
        )
        self._owner.forms.join(made)
        return made

    def trained(
        self,
        model: Any,
        *,
        unlearn: Unlearn,
        unseen: Batch,
        exact: bool = False,
        size: int = 64,
        name: str = "model",
        **scope: str | None,
    ) -> TrainedModel:
        """A model whose own weights were trained on memories of one scope; what is forgotten is unlearnt, and it is said how well.

        ``unlearn``: how; ``exact``: that trains anew. ``unseen``: rows that the model never saw, for the test. Raises InputError.
        """
        from holdfast.trained import TrainedModel

        made = TrainedModel(
            self._store, self.scope(**scope), model, unlearn=unlearn, unseen=unseen, exact=exact, size=size, name=name
        )
        self._owner.forms.join(made)
        return made

    def _states(self, model: Reader, here: Scope, budget: int | None = None, half_life: float = 3600.0) -> States:
        from holdfast.states import Resident, States

        if not self._resident:  # one for this memory in anybody's hands
            self._resident.append(Resident())
            self._owner.forms.join(self._resident[0])

        apply = self._applying(here)
        return States(self._store, here, model, apply, self._resident[0], budget=budget, half_life=half_life)

    def _applying(self, here: Scope) -> Apply:
        def apply(operations: Sequence[Operation]) -> tuple[Cube, ...]:
            return self.apply(operations, actor=self._holder or here.path, change=Purpose.WRITE)

        return apply

    def _for(self, store: HeldStore, closes: bool) -> Memory:
        memory = copy(self)
        memory._store, memory._closes = store, closes
        memory._governor = self._governor.through(store)
        memory.recall = self.recall.through(store)
        return memory

    def _enriching(self, embedder: Embedder | None, encoders: Sequence[Encoder]) -> Enrichment:
        return Enrichment(self._store, embedder, encoders, door=self._governor.door(Purpose.WRITE))

    def _ask(self, canary: Cube) -> Hits:
        """What a canary finds, in the eyes of whoever set it: it must not tell them of what they cannot see."""
        by = canary.data.get(BY)
        try:
            memory = self.held_by(by) if isinstance(by, str) else self
            return memory._search(canary.text, canary.scope, WITHIN, (), 0, None, None)
        except (AccessError, NotFoundError):  # who set it may no longer read there
            return Hits()

    def _judge(self, id: str, status: Status, reason: str, scope: Scope) -> Cube:
        cube = self._store.get(id, scope)
        if cube.status is not Status.QUARANTINED:
            raise ConflictError(f"memory {id} is {cube.status}, not in quarantine")
        done = self._store.commit([Operation.update(cube.with_(status=status), reason)], actor=scope.path)
        self._enrichment.wake()
        return done.cubes[0]

    def _trouble(self) -> list[str]:
        found = list(self._degraded)
        if self._enrichment.trouble:  # which may quote what somebody else said
            known = "what waits could not all be indexed; the store's owner can see why"
            found.append(known if self._holder else self._enrichment.trouble)
        return found

    def _search(
        self,
        query: str,
        scope: Scope,
        k: int,
        kinds: Sequence[str],
        neighbours: int,
        known: datetime | None,
        true_at: datetime | None,
        asked: datetime | None = None,
        hear: Hearing | None = None,
        ranking: Ranking | None = None,
    ) -> Hits:
        if not isinstance(query, str):
            raise InputError(f"a query must be a string, not {type(query).__name__}")
        if not isinstance(k, int) or not isinstance(neighbours, int) or k < 1 or neighbours < 0:
            raise InputError("k must be a whole number from 1 on, and neighbours one from 0 on")
        if isinstance(kinds, str):
            raise InputError(f"kinds is a list: write kinds=[{str(kinds)!r}]")
        if not query.strip():
            return Hits(abstain=True, reason="the query is empty", degraded=tuple(self.degraded))
        reach = self._store.reach(scope)
        scope, view = reach.scope, self._view(reach, kinds, known, true_at, asked)
        if view is None:
            within = ", ".join(sorted(reach.kinds))
            return Hits(abstain=True, reason=f"only these kinds are to be read here: {within}")
        hear = hear or (_FAIR if self._governor.guarded else None)
        return self.recall.search(
            query[:MAX_QUERY], scope, view, k, neighbours, degraded=self._trouble(), hear=hear, ranking=ranking
        )

    def _view(
        self,
        reach: Reach,
        kinds: Sequence[str],
        known: datetime | None = None,
        true_at: datetime | None = None,
        asked: datetime | None = None,
    ) -> View | None:
        """What somebody sees who reaches so far; None where none of these kinds is for them."""
        within = sorted(reach.kinds)
        if within:
            kinds = [kind for kind in kinds if kind in within] if kinds else within
            if not kinds:
                return None
        return View(
            now=to_micros(self._store.now() if known is None else known),
            known=None if known is None else to_micros(known),
            true_at=None if true_at is None else to_micros(true_at),
            asked=None if asked is None else to_micros(asked),
            kinds=tuple(str(kind) for kind in kinds),
            agent=reach.scope.agent,
            session=reach.scope.session,
            reach=reach if reach.grants is not None else None,
        )

    def _pack(
        self,
        query: str,
        scope: Scope,
        budget: int,
        k: int,
        count: Callable[[str], int],
        known: datetime | None,
        true_at: datetime | None,
    ) -> Packed:
        hits = self._search(query, scope, k, (), 0, known, true_at)
        if hits.abstain:
            hits = Hits(hit for hit in hits if hit.cube.kind in (Kind.INSTRUCTION, Kind.PREFERENCE))
        return pack(hits, budget, count)


def _recipe(recipe: Recipe | str | Mapping[str, Any] | Path | None) -> Recipe | None:
    if recipe is None:
        return None
    from holdfast.recipes.book import opened as named

    return named(recipe)


def _page(store: SqlStore, reach: Reach, where: Where, limit: int, after: int | None) -> Page:
    """A page of what is kept, which no index of the searches holds; ``after``: the number of the row where the one before ended."""
    here, low = reach.scope, (1 << PARTITION_BITS) - 1
    rids = store.numbers(here, where)
    if reach.grants is not None:  # whoever may not see all is not told how much there is
        some = (rids[start : start + BATCH].tolist() for start in range(0, len(rids), BATCH))
        rids = array("q", (rid for part in some for rid in store.cubes_at(here, part)))
    end = len(rids) if after is None else bisect_left(rids, after, key=lambda rid: rid & low)
    shown = rids[max(0, end - limit) : end].tolist()
    ends = rids[:1].tolist() + rids[-1:].tolist()
    cubes = store.cubes_at(here, sorted({*shown, *ends}))
    first, last = (cubes[rid].recorded_at if rid in cubes else None for rid in ends or (0, 0))
    following = f"0.{shown[0] & low}" if end > limit else None
    return Page(tuple(cubes[rid] for rid in reversed(shown) if rid in cubes), len(rids), following, first, last)


def _several(some: Sequence[str], name: str) -> tuple[str, ...]:
    if isinstance(some, str):
        raise InputError(f"{name} is a list: write {name}=[{str(some)!r}]")
    return tuple(map(str, some))


def _id(one: Cube | Hit | str) -> str:
    return one if isinstance(one, str) else one.id


def _no_lesson(cube: Cube) -> Cube:
    """A memory to be changed by hand. A lesson has its own ways, which keep it out of recall."""
    if cube.kind == Kind.LESSON:
        from holdfast.guard.lessons import is_lesson

        if is_lesson(cube):
            raise ConflictError(f"{cube.id} is a lesson of the guard; confirm or retract it with: holdfast lessons")
    return cube


_FAIR = Hearing(WIDER, heard)
_VOTING = Hearing(WIDER, heard, everyone=True)
