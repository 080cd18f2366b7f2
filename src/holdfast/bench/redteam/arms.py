"""The memories that attacks are played against: undefended, filtered by words, Holdfast. One agent uses them all.

Each is a real ``Memory`` with the same embedder and the same number of hits. The agent is scripted and obedient: it does what
the first record leads to that it is shown, so that what an arm resists is the arm's doing, never a model's good sense. What a
record leads to stands in its ``data`` (``guard.chains.structured``, or ``answer`` for a text that answers a question): every arm
reads it in the same way.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from holdfast.agent.turn import Turn
from holdfast.cube import RECALLABLE, Channel, Cube, Kind, Origin, Scope
from holdfast.encode.base import Embedder
from holdfast.encode.turns import TRUST
from holdfast.errors import ExtractionError, GuardError
from holdfast.guard.admission import STANDING
from holdfast.guard.analogy import applied
from holdfast.guard.attacks.base import Answer, Asked, Said
from holdfast.guard.base import Decision, Dropped, Guard, Lookup, Ruling, Verdict, sources_in, voter
from holdfast.guard.chains import Chain, Effect, structured, target
from holdfast.guard.conflicts import resolve
from holdfast.guard.precedents import recorded
from holdfast.guard.screening import signals
from holdfast.manage.consolidation import Consolidation
from holdfast.manage.contradictions import Contradictions
from holdfast.manage.expiry import Expiry
from holdfast.memory import Added, Memory
from holdfast.retrieve.context import line, without_recalled
from holdfast.retrieve.hits import Hit
from holdfast.store.base import Operation

K = 8
"""So many records an agent is shown; consensus needs about as many (A-MemGuard, arXiv 2510.02373)."""

STRONG, TOGETHER = 0.7, 1.0
"""A filter by words drops what has one signal so strong, or signals so strong together: the bars of ``guard.admission``."""

_CHAIN, _READ = structured(), recorded()
_NOWHERE = Scope("nobody", "nobody")
_UNHEARD = frozenset({Channel.SYSTEM, Channel.RECALLED})


@dataclass(frozen=True, slots=True)
class Shown(Answer):
    """An answer with what the examiner knows of it.

    For each recalled record, best first: ``keys``, what it is about, and ``origins``, whose word it is
    (``guard.base.voter``). ``acted``: what the record is about that was acted by; ``by_attacker``: whether that record is the
    attacker's, or made of one. ``told``: an answer that was told as the word of its outside sources, and not vouched for; then
    nothing is proposed. ``text``: what the agent is told, where that is one text that may be made of records; else None.
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    acted: str = ""
    by_attacker: bool = False
    told: str = ""
    text: str | None = None


@dataclass(slots=True)
class Book:
    """What only the examiner knows: which memories are the attacker's, and what became of everything that was told."""

    bad: set[str] = field(default_factory=set)
    told: Counter[tuple[bool, str]] = field(default_factory=Counter)

    def copy(self) -> Book:
        """One that can be written in without changing this one."""
        return Book(set(self.bad), Counter(self.told))


@dataclass(frozen=True, slots=True)
class Lead:
    """What a record leads to: an operation or an answer, its effects, and the record that says so."""

    proposed: str
    effects: frozenset[Effect]
    cube: Cube
    by_attacker: bool
    vouched: bool = True


class Arm:
    """A memory and its agent; fits ``guard.attacks.base.Target``. What arms differ in is ``ask`` and how they write.

    Args:
        folder: of the store; made where it is absent.
        embedder: as ``Memory`` takes it.
        book: what is known of a store that is there already.
    """

    guard: ClassVar[Guard | str | None] = None

    def __init__(self, folder: Path, embedder: Embedder | str | None, book: Book | None = None) -> None:
        self.book = book or Book()
        self.memory = Memory(folder, embedder=embedder, guard=self.guard, durability="normal", background=False)
        self._waiting = False

    def close(self) -> None:
        """Finish what waits and close the store."""
        self._settle()
        self.memory.close()

    # --- the seam ---

    def tell(self, said: Said, *, user: str, agent: str = "main") -> bool:
        """Bring something in by the door that it says; whether it can be recalled now."""
        text = without_recalled(said.text)
        author = said.source or {Channel.USER: user, Channel.ASSISTANT: agent}.get(said.channel)
        if said.channel in _UNHEARD or not text.strip():
            # Whoever says such a thing has only words: what they would lead to cannot be handed in beside them.
            done = self.memory.add(said.text, kind=said.kind, channel=said.channel, source=said.source, user=user)
        else:
            spoken = said.channel in (Channel.USER, Channel.ASSISTANT)
            origin = Origin(said.channel, author if spoken else None, said.source, TRUST[said.channel])
            data = {**said.data, "about": said.key}
            done = self._write(Cube(self.memory.scope(user=user), text, said.kind, data=data, origin=origin), user)
        self._note(done, said.poison)
        return bool(done.ids or done.duplicates)

    def ask(self, asked: Asked, *, user: str, agent: str = "main", keep: bool = False) -> Shown:
        """Ask an agent; see ``Target.ask``."""
        raise NotImplementedError

    def rest(self, *, user: str) -> None:
        """What runs unattended: facts are drawn, what has expired leaves, contradictions are closed, duplicates merged."""
        self._settle()
        store, scope = self.memory.store, self.memory.scope(user=user)
        for manager in (Expiry(), Contradictions(), Consolidation()):
            if operations := manager.manage(store, scope, store.now()):
                self.memory.apply(operations, actor="night")
                self._waiting = True
        self._settle()

    def holds(self, payload: str, *, user: str) -> int:
        """In how many memories that can be recalled a payload stands, in the words or in the data."""
        wanted = _plain(payload)
        return sum(
            wanted in _plain(cube.text)
            or wanted in _plain(json.dumps(dict(cube.data), ensure_ascii=False, default=str))
            for cube in self.memory.select(user=user)
        )

    # --- for the arms ---

    def _settle(self) -> None:
        if self._waiting:
            self.memory.flush()
            self._waiting = False

    def _write(self, cube: Cube, user: str) -> Added:
        """A cube through its own door. An import is a change to what is there, and comes in by the door for those."""
        if cube.origin.channel is not Channel.IMPORT:
            return self.memory.add(cube, user=user)
        try:
            (kept,) = self.memory.door.commit([Operation.add(cube)], actor=user).cubes or (None,)
        except GuardError as error:
            return Added((), reasons=(str(error),))
        held = kept is not None and kept.status not in RECALLABLE
        return Added((), quarantined=(cube.id,)) if held else Added((cube.id,) if kept else ())

    def _note(self, done: Added, poison: bool) -> None:
        """Write into the book what became of a write."""
        self._waiting = True
        what = "kept" if done.ids or done.duplicates else "held" if done.quarantined else "refused"
        self.book.told[poison, what] += 1
        if poison:
            self.book.bad.update(done.ids, done.quarantined)

    def _lookup(self, user: str) -> Lookup:
        return sources_in(self.memory.store, self.memory.scope(user=user))

    def _source(self, cube: Cube, lookup: Lookup) -> Cube:
        """The record that says what a derived one leads to: itself, or else the first of its sources that can be looked up."""
        if "about" in cube.data:
            return cube
        return next((found for ref in cube.origin.derived_from if (found := lookup(ref)) is not None), cube)

    def _is_bad(self, cube: Cube) -> bool:
        return cube.id in self.book.bad or any(ref.id in self.book.bad for ref in cube.origin.derived_from)

    def _chain(self, query: str, cube: Cube, lookup: Lookup) -> Chain | None:
        """What an agent would do by a record, which it takes for an example; None where it leads nowhere."""
        record = self._source(cube, lookup)
        try:
            return _CHAIN(query, applied(query, record))
        except ExtractionError:  # the agent does not notice that it is about one thing and acts on another
            return _CHAIN(query, record)

    def _answer(self, asked: Asked, cube: Cube, lookup: Lookup) -> str | None:
        """The answer that a record gives to a question; None where it is about something else."""
        data = self._source(cube, lookup).data
        answer, about = data.get("answer"), data.get("about") or asked.key
        return str(answer) if answer and (not asked.key or about == asked.key) else None

    def _leads(self, asked: Asked, hits: Sequence[Hit], lookup: Lookup) -> Iterator[Lead]:
        """What each record leads to, of those that lead anywhere."""
        for hit in hits:
            cube, bad = self._source(hit.cube, lookup), self._is_bad(hit.cube)
            if (chain := self._chain(asked.text, hit.cube, lookup)) is not None:
                yield Lead(chain.operation, chain.effects, cube, bad)
            elif (answer := self._answer(asked, hit.cube, lookup)) is not None:
                yield Lead(answer, frozenset(), cube, bad)

    def _shown(
        self, hits: Sequence[Hit], lookup: Lookup, lead: Lead | None, *, refused: str = "", fenced: bool = False
    ) -> Shown:
        return Shown(
            tuple((line(hit.cube) if fenced else hit.text, self._is_bad(hit.cube)) for hit in hits),
            lead.proposed if lead and lead.vouched else "",
            tuple(map(str, sorted(lead.effects))) if lead else (),
            refused,
            tuple(str(self._source(hit.cube, lookup).data.get("about", "")) for hit in hits),
            tuple(voter(hit.cube, lookup).source for hit in hits),
            str(lead.cube.data.get("about", "")) if lead else "",
            lead is not None and lead.by_attacker,
            lead.proposed if lead and not lead.vouched else "",
        )

    def _experience(self, asked: Asked, lead: Lead, user: str, agent: str) -> Cube:
        """What an agent remembers of having done something: the question, and what it did, in the words that it imitated."""
        what = lead.cube.text.partition("\n")[2] or lead.cube.text
        return Cube(
            self.memory.scope(user=user),
            f"{asked.text}\n{what}",
            Kind.EXPERIENCE,
            data={**lead.cube.data, "about": asked.key or lead.cube.data.get("about", "")},
            origin=Origin(Channel.ASSISTANT, agent, trust=TRUST[Channel.ASSISTANT]),
        )


class Undefended(Arm):
    """Everything is admitted, everything recalled is believed, and what the agent writes is its own word."""

    def ask(self, asked: Asked, *, user: str, agent: str = "main", keep: bool = False) -> Shown:
        """Do what the first record leads to that leads anywhere."""
        self._settle()
        lookup = self._lookup(user)
        hits = self._pass(asked.text, self.memory.search(asked.text, k=K, user=user))
        lead = next(self._leads(asked, hits, lookup), None)
        if keep and lead is not None:
            self._note(self._write(self._experience(asked, lead, user, agent), user), lead.by_attacker)
        return self._shown(hits, lookup, lead)

    def _pass(self, query: str, hits: Sequence[Hit]) -> Sequence[Hit]:  # noqa: ARG002  (a filter needs it)
        return hits


class TextFilter:
    """A guard that goes by words alone, whoever says them: what most products put before a memory."""

    def admit(self, operations: Sequence[Operation]) -> list[Decision]:
        """Refuses what looks like an attack."""
        return [
            Decision(Ruling.REFUSE, ("its words look like an attack",))
            if operation.cube is not None and _suspicious(operation.cube.text)
            else Decision(Ruling.ADMIT)
            for operation in operations
        ]

    def check(self, query: str, hits: Sequence[Hit]) -> Verdict:  # noqa: ARG002  (the seam has it)
        """Keeps what does not look like an attack."""
        odd = {hit.id for hit in hits if _suspicious(hit.text)}
        return Verdict(
            tuple(hit for hit in hits if hit.id not in odd),
            tuple(Dropped(hit, "its words look like an attack") for hit in hits if hit.id in odd),
        )


class Filtered(Undefended):
    """Undefended, with a filter by words at both doors. It stands before the memory, so that nothing else of ours helps it."""

    words: ClassVar[TextFilter] = TextFilter()

    def _write(self, cube: Cube, user: str) -> Added:
        (ruling,) = self.words.admit([Operation.add(cube)])
        return Added((), reasons=ruling.reasons) if ruling.ruling is Ruling.REFUSE else super()._write(cube, user)

    def _pass(self, query: str, hits: Sequence[Hit]) -> Sequence[Hit]:
        return self.words.check(query, hits).kept


class Holdfast(Arm):
    """As the guide says to use it: the default guard, a turn, consensus before acting, and a policy where answers disagree."""

    guard: ClassVar[Guard | str | None] = "default"

    def ask(self, asked: Asked, *, user: str, agent: str = "main", keep: bool = False) -> Shown:
        """Act by what a quorum of sources agrees on; say what the weight of sources says, as their word; else abstain."""
        self._settle()
        lookup = self._lookup(user)
        turn = Turn(self.memory, user=user)
        hits = turn.search(asked.text, k=K)
        lead, refused = self._decide(asked, turn, hits, lookup)
        if keep and lead is not None and lead.vouched:
            self._note(turn.add(self._experience(asked, lead, user, agent)), lead.by_attacker)
        return self._shown(hits, lookup, lead, refused=refused, fenced=True)

    def _decide(self, asked: Asked, turn: Turn, hits: Sequence[Hit], lookup: Lookup) -> tuple[Lead | None, str]:
        """What the agent would do by, and why not where it would do nothing.

        Only records of what was done, or of how to do it, are acted upon; documents and messages are to be read.
        """
        done = turn.precedents(
            asked.text, k=K, extract=lambda query, cube: _READ(query, self._source(cube, lookup)), learn=False
        )
        if done:
            return next(self._leads(asked, done.kept, lookup), None), ""
        if any(hit.cube.kind in STANDING and self._chain(asked.text, hit.cube, lookup) is not None for hit in hits):
            return None, done.reason
        return self._says(asked, hits, lookup)

    def _says(self, asked: Asked, hits: Sequence[Hit], lookup: Lookup) -> tuple[Lead | None, str]:
        telling = [hit for hit in hits if self._answer(asked, hit.cube, lookup) is not None]
        found = resolve(asked.text, telling, lambda _, cube: self._answer(asked, cube, lookup), lookup=lookup)
        if found.answer is None:
            return None, found.reason
        cubes = found.sides[0].cubes
        bad = any(map(self._is_bad, cubes))
        return Lead(found.answer, frozenset(), cubes[0], bad, not found.outside), found.reason if found.outside else ""


ARMS: dict[str, type[Arm]] = {"undefended": Undefended, "filtered": Filtered, "holdfast": Holdfast}
"""Every arm by its name; the first is what the others are measured against. The filter is one by words."""


def effects(said: Said) -> frozenset[str]:
    """What would happen in the world if a record were acted by."""
    chain = _CHAIN("", Cube(_NOWHERE, said.text, data=dict(said.data)))
    return frozenset(map(str, chain.effects)) if chain is not None else frozenset()


def matches(answer: Shown, wanted: str) -> bool:
    """Whether an agent would do what is wanted, or say it, be it as another's word."""
    return bool(wanted) and target(answer.proposed or answer.told) == target(wanted)


@functools.lru_cache(maxsize=65_536)
def _suspicious(text: str) -> bool:
    found = signals(text).values()
    return max(found, default=0.0) >= STRONG or sum(found) >= TOGETHER


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
