"""The one door for every change: a ruling, a snapshot, canary questions, a certificate in the journal, and the way back.

An admission gate with canary questions and rollback bounds the damage of what slips through (the governance loop of paper 22;
paper 14 asks for the same door for every form of memory). A canary is a question whose answer must not change: where one is
answered before a change and not after, the change is undone as a whole, and the certificate says so.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from holdfast.cube import RECALLABLE, Channel, Cube, Form, Origin, Scope, Status
from holdfast.errors import GuardError
from holdfast.guard.base import Guard, Ruling
from holdfast.retrieve.hits import Hit, Hits
from holdfast.store.base import Commit, Op, Operation, Store, Where
from holdfast.store.provenance import Standings
from holdfast.store.sql import SqlStore, tenant
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.FACTS_USER, Function.FACTS_ENVIRONMENT),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.USER, Subject.WORLD),
)

CANARY, CERTIFICATE = "canary", "certificate"
"""Kinds of the governor's own records: archived, so that no search finds them, and in the journal like everything."""

_CANARIES = "holdfast:canary"  # a source: they are found by its index, where the kind alone would read a whole scope
_CERTIFIED = "holdfast:"  # and the change: likewise

WITHIN = 5
"""A canary's answer must be among so many first hits."""

BY = "by"
"""In a canary's ``data``: the principal that set it; absent where the owner did."""

Ask = Callable[[Cube], Hits]


class Purpose(StrEnum):
    """Why memory changes. All of them are ruled upon and face the canaries; what is merely new waits in quarantine where one dies
    of it, and whatever changes what is there already is undone, and certified.

    ``release`` lets something out of quarantine by rule, and is done by ``Governor.release`` alone.
    """

    WRITE = "write"
    CONSOLIDATE = "consolidate"
    IMPORT = "import"
    EDIT = "edit"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change: what was stored (``quarantined`` among it), what was refused and why, and the certificates."""

    commits: tuple[Commit, ...]
    quarantined: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()

    @property
    def cubes(self) -> tuple[Cube, ...]:
        """The cubes as stored."""
        return tuple(cube for commit in self.commits for cube in commit.cubes)

    @property
    def duplicates(self) -> tuple[str, ...]:
        """The ids of what was there already."""
        return tuple(id for commit in self.commits for id in commit.duplicates)


def certificates(store: Store, scope: Scope, change: Purpose) -> list[Cube]:
    """The certificates of one kind of change in a scope, oldest first."""
    found = store.select(scope, Where(kinds=(CERTIFICATE,), source=f"{_CERTIFIED}{change}"))
    return [cube for cube in found if cube.origin.channel is Channel.SYSTEM]


class Governor:
    """Lets changes into one store.

    Args:
        guard: rules on every operation; None admits all.
        ask: what a canary's question finds.
    """

    def __init__(self, store: SqlStore, guard: Guard | None, ask: Ask) -> None:
        self._store = self._writer = store
        self._guard = guard
        self._ask = ask

    def through(self, store: SqlStore) -> Governor:
        """The same governor for somebody who sees the store through another; canaries and certificates are the owner's."""
        governor = copy(self)
        governor._writer = store
        return governor

    @property
    def guard(self) -> Guard | None:
        """What rules on every operation; None where all is admitted."""
        return self._guard

    @property
    def guarded(self) -> bool:
        """Whether anything is ruled upon at all."""
        return self._guard is not None

    def apply(self, change: Purpose, operations: Sequence[Operation], *, actor: str) -> Outcome:
        """Commit what may come in, what may not into quarantine or nowhere.

        Raises GuardError where a canary is answered no more; everything of that user is as before then. The store's own
        errors pass through.
        """
        if change is Purpose.RELEASE:
            raise GuardError("what stands in quarantine comes out by approve, or by the rule of release")
        ruled, quarantined, refused = self._ruled(operations)
        if change is Purpose.WRITE and all(operation.op is Op.ADD for operation in ruled):
            commit, held = self._written(ruled, actor)
            held |= {cube.id: quarantined[cube.id] for cube in commit.cubes if cube.id in quarantined}
            return Outcome((commit,), held, refused)
        by_home: defaultdict[Scope, list[Operation]] = defaultdict(list)
        for operation in ruled:
            if operation.cube is not None:
                by_home[_home(operation.cube.scope)].append(operation)
        commits, certificates = [], []
        for home, some in by_home.items():
            commit, certificate = self._watched(change, home, some, actor, refused)
            commits.append(commit)
            certificates += [certificate] if certificate else []
        return Outcome(tuple(commits), quarantined, refused, tuple(certificates))

    def release(self, cube: Cube, reason: str, evidence: Mapping[str, Any], *, actor: str) -> Outcome:
        """Let a memory out of quarantine, where the guard has nothing against it but that no one else said so.

        ``evidence`` stands in the certificate. Nothing is stored where the guard objects (``refused`` says why). Raises
        GuardError where a canary is answered no more; everything is as before then.
        """
        out = Operation.update(cube.with_(status=Status.ACTIVATED), reason)
        if self._guard is not None:
            (decision,) = self._guard.admit([out])
            held = decision.ruling is Ruling.QUARANTINE and not decision.uncorroborated
            if decision.ruling is Ruling.REFUSE or held or decision.signals:
                why = "; ".join(decision.reasons) or f"signs of an attack ({', '.join(sorted(decision.signals))})"
                return Outcome((), refused=(why,))
        commit, certificate = self._watched(Purpose.RELEASE, _home(cube.scope), [out], actor, (), evidence)
        return Outcome((commit,), certificates=(certificate,) if certificate else ())

    def door(self, change: Purpose) -> Door:
        """A store whose every commit is such a change: for what takes a store and knows of no guard."""
        return Door(self, self._writer, change)

    def _ruled(self, operations: Sequence[Operation]) -> tuple[list[Operation], dict[str, str], tuple[str, ...]]:
        if self._guard is None:
            return list(operations), {}, ()
        # As the store will mark them: what an encoder drew from a page is from outside too.
        passed: list[Operation] = []
        quarantined: dict[str, str] = {}
        refused: list[str] = []
        marked: list[Operation] = []
        known: Standings = {}
        with self._writer.connections.reading(tenant(operations)):
            for operation in operations:
                cube = operation.cube
                if cube is None or operation.op not in (Op.ADD, Op.UPDATE):
                    marked.append(operation)
                    continue
                held = self._writer.get(cube.id, cube.scope) if operation.op is Op.UPDATE else None
                if held is not None and held.status is Status.QUARANTINED and cube.status in RECALLABLE:
                    refused.append(f"memory {cube.id} stands in quarantine; only approve lets it out")
                    continue
                before = held.origin if held is not None else None
                cube = self._writer.as_of_its_sources(cube, before, known=known)
                marked.append(operation if cube is operation.cube else replace(operation, cube=cube))
        for operation, decision in zip(marked, self._guard.admit(marked), strict=True):
            why = "; ".join(decision.reasons)
            cube = operation.cube
            if decision.ruling is Ruling.REFUSE:
                refused.append(why)
            elif decision.ruling is Ruling.QUARANTINE and cube is not None and cube.status is not Status.QUARANTINED:
                quarantined[cube.id] = why
                passed.append(
                    replace(operation, cube=cube.with_(status=Status.QUARANTINED), reason=f"quarantined: {why}")
                )
            else:
                passed.append(operation)
        return passed, quarantined, tuple(refused)

    # --- canaries ---

    def add_canary(self, question: str, expects: str, scope: Scope, *, actor: str, by: str = "") -> Cube:
        """Keep a question and the id or the words of the memory that must go on answering it; ``by``: the principal who asks."""
        cube = Cube(
            scope,
            question,
            kind=CANARY,
            data={"expects": expects, **({BY: by} if by else {})},
            status=Status.ARCHIVED,
            origin=Origin(Channel.SYSTEM, author=actor, reference=_CANARIES),
        )
        return self._store.commit([Operation.add(cube, "a canary question")], actor=actor).cubes[0]

    def canaries(self, home: Scope) -> list[Cube]:
        """The canary questions of a tenant's user."""
        found = self._store.select(home, Where(kinds=(CANARY,), statuses=(Status.ARCHIVED,), source=_CANARIES))
        return [cube for cube in found if cube.origin.channel is Channel.SYSTEM]

    def sing(self, canaries: Sequence[Cube]) -> list[bool]:
        """Which canaries are answered."""
        return [answered(canary, self._ask(canary)) for canary in canaries]

    def _written(self, operations: Sequence[Operation], actor: str) -> tuple[Commit, dict[str, str]]:
        """Commit what is new, and keep it out of recall where a canary is answered no more: by it, it was pushed out."""
        homes = {_home(operation.cube.scope) for operation in operations if operation.cube is not None}
        canaries = [canary for home in homes for canary in self.canaries(home)]
        before = self.sing(canaries)
        commit = self._writer.commit(operations, actor=actor)
        if not canaries or not commit.seq:
            return commit, {}
        after = self.sing(canaries)
        lost = [canary for canary, was, now in zip(canaries, before, after, strict=True) if was and not now]
        reasons = {_home(canary.scope): f"the canary question {canary.text!r} was answered no more" for canary in lost}
        held = {
            cube.id: reasons[home]
            for cube in commit.cubes
            if (home := _home(cube.scope)) in reasons and cube.status in RECALLABLE
        }
        if not held:
            return commit, {}
        back = [
            Operation.update(cube.with_(status=Status.QUARANTINED), f"quarantined: {held[cube.id]}")
            for cube in commit.cubes
            if cube.id in held
        ]
        done = {cube.id: cube for cube in self._store.commit(back, actor=actor).cubes}
        return replace(commit, cubes=tuple(done.get(cube.id, cube) for cube in commit.cubes)), held

    def _watched(
        self,
        change: Purpose,
        home: Scope,
        operations: Sequence[Operation],
        actor: str,
        refused: Sequence[str],
        evidence: Mapping[str, Any] | None = None,
    ) -> tuple[Commit, str | None]:
        canaries = self.canaries(home)
        before = self.sing(canaries)
        certified = bool(canaries or refused or evidence)
        snapshot = self._store.journal_head(home) if certified else (0, "")
        commit = self._writer.commit(operations, actor=actor)
        if not commit.seq or not certified:
            return commit, None
        after = self.sing(canaries)
        lost = [canary for canary, was, now in zip(canaries, before, after, strict=True) if was and not now]
        if lost:
            self._store.undo(commit.seq, home, actor=actor, reason=f"{change}: canary questions were answered no more")
        record: dict[str, Any] = {
            "change": str(change),
            "before": {"seq": snapshot[0], "hash": snapshot[1]},
            "seq": commit.seq,
            "operations": hashlib.sha256(
                json.dumps([[op.op, op.cube.id if op.cube else "", op.reason] for op in operations]).encode()
            ).hexdigest(),
            "count": len(operations),
            "canaries": len(canaries),
            "answered_before": sum(before),
            "answered_after": sum(after),
            "refused": list(refused),
            "rolled_back": bool(lost),
        }
        if evidence:
            record["evidence"] = dict(evidence)
        what = "undone" if lost else "kept"
        text = (
            f"{change} of {len(operations)} at {commit.seq}, {sum(after)} of {len(canaries)} canaries answered: {what}"
        )
        certificate = Cube(
            home,
            text,
            kind=CERTIFICATE,
            data=record,
            status=Status.ARCHIVED,
            origin=Origin(Channel.SYSTEM, author=actor, reference=f"{_CERTIFIED}{change}"),
        )
        made = self._store.commit([Operation.add(certificate, "certificate")], actor=actor).cubes[0]
        if lost:
            told = next((f", the first {canary.text!r}" for canary in lost if self._writer.sees(canary)), "")
            raise GuardError(
                f"the change was undone: {len(lost)} canary question(s) would no longer be answered{told}; "
                f"see the certificate {made.id}"
            )
        return commit, made.id


def answered(canary: Cube, hits: Sequence[Hit]) -> bool:
    """Whether what a canary's question finds is what it expects."""
    expected = str(canary.data.get("expects"))
    return any(expected == hit.id or expected in hit.text for hit in hits[:WITHIN])


class Door:
    """A ``Store`` whose commits go through a governor; what is read is read from the store itself."""

    def __init__(self, governor: Governor, store: SqlStore, change: Purpose) -> None:
        self._governor = governor
        self._change = change
        self.get, self.select = store.get, store.select
        self.events, self.lineage = store.events, store.lineage

    def commit(self, operations: Sequence[Operation], *, actor: str = "") -> Commit:
        """As ``Store.commit``, of what may come in. Raises GuardError as ``Governor.apply`` does."""
        done = self._governor.apply(self._change, operations, actor=actor)
        return Commit(max((commit.seq for commit in done.commits), default=0), done.cubes, done.duplicates)


def _home(scope: Scope) -> Scope:
    return Scope(scope.tenant, scope.user)
