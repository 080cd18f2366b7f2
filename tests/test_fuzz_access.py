"""Whatever a principal asks, and however: nothing beyond its grants is told, by a result, an error or an id, and nothing is changed."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from given import CASCADES, KINDS, PLACES, SCOPES, WHO, Given, may, told
from holdfast.cube import Channel, Cube, Origin, Policy, Ref, Scope, Status
from holdfast.errors import AccessError, HoldfastError
from holdfast.memory import Memory
from holdfast.store.base import Operation, Where
from holdfast.store.grants import Right
from holdfast.store.transfer import bring_in, everything, export_jsonl, read_jsonl
from support import MEMORY, Clock, HashEmbedder, open_memory

_scopes, _who = st.sampled_from(SCOPES), st.sampled_from(WHO)


class Walk(RuleBasedStateMachine):
    """Two principals and an owner in one memory of several tenants, users, agents and sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.clock = Clock()
        embedder = HashEmbedder(dimension=8)
        self.memory = open_memory(self.folder / "m", user=None, embedder=embedder, clock=self.clock, tenant="acme")
        self.given: list[Given] = []
        self.marks: dict[
            str, set[str]
        ] = {}  # of each memory: words that only it, its speaker, its source or its history holds
        self.own: dict[str, set[str]] = {who: set() for who in WHO}
        self.count = 0
        for who in WHO:
            self.memory.access.enrol(who)

    def teardown(self) -> None:
        assert self.memory.verify() == []
        self.memory.close()
        shutil.rmtree(self.folder)

    # --- the world ---

    def mark(self) -> str:
        self.count += 1
        return f"zq{self.count:04d}x"

    def truth(self) -> dict[str, Cube]:
        """Every memory there is, as its owner sees it."""
        store = self.memory.store
        homes = [Scope.parse(path) for path in store.partitions() if not path.startswith("@")]
        return {cube.id: cube for home in homes for cube in store.select(home, Where())}

    def any(self, data: st.DataObject) -> Cube:
        return data.draw(st.sampled_from(sorted(self.truth().values(), key=lambda cube: cube.id)))

    @staticmethod
    def near(cube: Cube, data: st.DataObject) -> Scope:
        """A scope from which a memory could be asked for, or one beside it."""
        home = Scope(cube.scope.tenant, cube.scope.user)
        return data.draw(
            st.sampled_from((home, home, cube.scope, replace(home, agent="plan"), replace(home, agent="work")))
        )

    @initialize(data=st.data())
    def something(self, data: st.DataObject) -> None:
        for scope in SCOPES[:4]:
            self.add(scope, "message", Channel.USER, (), Status.GENERATED, True, data)
        place = data.draw(st.sampled_from(PLACES))
        self.grant(
            "bot", place, data.draw(st.sampled_from(({Right.READ, Right.WRITE}, {Right.WRITE}, set(Right)))), set()
        )

    @rule(
        scope=_scopes,
        kind=st.sampled_from(KINDS),
        channel=st.sampled_from((Channel.USER, Channel.WEB)),
        readers=st.sampled_from(((), (), ("bot",), ("eve",))),
        status=st.sampled_from((Status.GENERATED, Status.GENERATED, Status.QUARANTINED)),
        derived=st.booleans(),
        data=st.data(),
    )
    def add(
        self,
        scope: Scope,
        kind: str,
        channel: Channel,
        readers: tuple[str, ...],
        status: Status,
        derived: bool,
        data: Any,
    ) -> None:
        words, author, source = self.mark(), self.mark(), self.mark()
        home = [cube for cube in self.truth().values() if cube.scope.partition == scope.partition]
        parents = (data.draw(st.sampled_from(home)).ref,) if derived and home else ()
        origin = Origin(channel, author, f"https://{source}.example", derived_from=parents)
        cube = Cube(
            scope,
            f"the ferry leaves at nine {words}",
            kind,
            origin=origin,
            status=status,
            policy=Policy(readers=readers),
        )
        self.clock.tick()
        self.memory.store.commit([Operation.add(cube, f"because {words}")])
        self.marks[cube.id] = {words, author, source, cube.id}

    @rule(data=st.data(), readers=st.sampled_from((("eve",), ("bot",), ())), hide=st.booleans())
    def restrict(self, data: st.DataObject, readers: tuple[str, ...], hide: bool) -> None:
        """The owner changes the words, and says who may read them from now on."""
        cube = self.any(data)
        words = self.mark()
        changed = cube.with_(text=f"the ferry leaves at ten {words}", policy=Policy(readers=readers))
        if hide and cube.status in (Status.GENERATED, Status.ACTIVATED):
            changed = changed.with_(status=Status.QUARANTINED)
        self.clock.tick()
        try:
            self.memory.store.commit([Operation.update(changed, f"because {words}")])
        except HoldfastError:  # frozen
            return
        self.marks[cube.id].add(words)

    @rule(
        who=_who,
        place=st.sampled_from(PLACES),
        rights=st.sets(st.sampled_from(list(Right)), min_size=1),
        kinds=st.sets(st.sampled_from(KINDS), max_size=1),
    )
    def grant(self, who: str, place: str, rights: set[Right], kinds: set[str]) -> None:
        try:
            id = self.memory.access.grant(who, place, rights, kinds=kinds).id
        except HoldfastError:  # granted already
            return
        self.given.append(Given(who, place, frozenset(rights), frozenset(kinds), id))

    @precondition(lambda self: len(self.given) > 3)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.given))
        self.memory.access.withdraw(gone.id)
        self.given.remove(gone)

    # --- the calls ---

    def watch(self, who: str, what: str, call: Callable[[Memory], Any], rights: set[Right], allowed: str = "") -> Any:
        """Make a call as a principal, and hold what it tells and what it changes against what it may. ``allowed``: its own words."""
        before = self.truth()
        hidden = [
            cube
            for cube in before.values()
            if not may(self.given, who, Right.READ, cube) and cube.id not in self.own[who]
        ]
        self.clock.tick()
        try:
            result = call(self.memory.held_by(who))
        except HoldfastError as error:
            result = error
        heard = told(result)
        for cube in hidden:
            for mark in self.marks[cube.id] - ({cube.id} if what in CASCADES else set()):
                assert mark not in heard or mark in allowed, f"{who} by {what} was told {mark} of {cube}: {heard}"
        after = self.truth()
        new = after.keys() - before.keys()
        changed = {id for id, cube in before.items() if after.get(id) != cube}
        permitted = {id for id in changed if any(may(self.given, who, right, before[id]) for right in rights)}
        reached = set(permitted)
        if what in CASCADES:
            while more := {
                id
                for id in changed - reached
                if any(ref.id in reached for ref in before[id].origin.derived_from)
                or self._above(before[id], before) & reached
            }:
                reached |= more
        assert changed <= reached, f"{who} by {what} changed {[before[id] for id in changed - reached]}"
        for id in new:
            assert what in ("add", "canary", "import", "apply"), f"{who} by {what} made {after[id]}"
            cube = after[id]
            if cube.kind not in ("canary", "certificate"):
                assert may(self.given, who, Right.WRITE, replace(cube, policy=Policy(), status=Status.GENERATED)), cube
            self.marks.setdefault(id, {id})
            self.own[who].add(id)
        return result

    @staticmethod
    def _above(cube: Cube, all_: dict[str, Cube]) -> set[str]:
        """What a memory was made of, at any remove."""
        found: set[str] = set()
        frontier = {ref.id for ref in cube.origin.derived_from}
        while frontier:
            found |= frontier
            frontier = {
                ref.id for id in frontier if id in all_ for ref in all_[id].origin.derived_from if ref.id not in found
            }
        return found

    @rule(who=_who, data=st.data())
    def reads(self, who: str, data: st.DataObject) -> None:
        cube = self.any(data)
        asked = self.near(cube, data)
        word = next(iter(sorted(self.marks[cube.id] - {cube.id})), "ferry")
        here = dict(zip(("tenant", "user", "agent", "session"), asked.parts, strict=True))
        past = self.clock.at.replace(second=self.clock.at.second // 2)
        calls: list[tuple[str, Callable[[Memory], Any]]] = [
            ("search", lambda m: m.search(f"when does the ferry leave {word}?", k=50, neighbours=2, **here)),
            ("search", lambda m: m.search(word, k=2, kinds=["fact"], **here)),
            ("context", lambda m: m.pack(f"ferry {word}", budget=5_000, **here).text),
            ("get", lambda m: m.get(cube.id, **here)),
            ("get", lambda m: m.get(cube.id, version=1, **here)),
            ("select", lambda m: list(m.select(**here))),
            ("select", lambda m: list(m.select(Where(author=cube.origin.author), **here))),
            ("select", lambda m: list(m.select(Where(source=cube.origin.reference), **here))),
            ("select", lambda m: list(m.select(Where(known_at=past), **here))),
            ("as of", lambda m: list(m.as_of(self.clock.at).search("ferry", k=50, **here))),
            ("as of", lambda m: list(m.as_of(past).search("ferry", k=50, **here))),
            ("as of", lambda m: m.as_of(past).get(cube.id, **here)),
            ("as of", lambda m: list(m.as_of(past).select(**here))),
            ("history", lambda m: self._events(m, who, asked, m.history(**here))),
            ("history", lambda m: self._events(m, who, asked, m.history(cube.id, **here))),
            ("lineage", lambda m: m.lineage(cube.id, **here)),
            ("lineage", lambda m: m.lineage(cube.id, down=False, **here)),
            ("alike", lambda m: m.alike(["the ferry", word], **here)),
            ("quarantined", lambda m: m.quarantined(**here)),
            ("release", lambda m: m.release(dry_run=True, **here)),
            ("precedents", lambda m: m.precedents(f"ferry {word}", **here).to_dict()),
            ("lessons", lambda m: m.lessons(**here).all()),
            ("answers", lambda m: m.answers(Cube(cube.scope, "ferry", data={"expects": word}))),
            ("export", lambda m: self._exported(m, asked)),
            ("versions", lambda m: m.store.versions(cube.id, asked)),
            (
                "sources",
                lambda m: m.store.as_of_its_sources(Cube(asked, "a", origin=Origin(derived_from=(Ref(cube.id, 1),)))),
            ),
            ("degraded", lambda m: m.degraded),
        ]
        for what, call in calls:
            self.watch(who, what, call, set(), allowed=f"{word} {cube.id}")

    def _events(self, memory: Memory, who: str, asked: Scope, changes: Iterable[Any]) -> list[Any]:
        """A history without the bare events that whoever may read the whole scope sees of what is hidden there."""
        whole = any(
            one.who == who and Right.READ in one.rights and not one.kinds and one.covers(asked) for one in self.given
        )
        truth = self.truth()
        shown = []
        for change in changes:
            cube = truth.get(change.event.id)
            if cube is not None and not may(self.given, who, Right.READ, cube):
                assert whole and change.cube is None and not change.event.reason, change
            else:
                shown.append(change)
        return shown

    def _exported(self, memory: Memory, asked: Scope) -> str:
        out = io.StringIO()
        export_jsonl(
            (cube.with_(origin=replace(cube.origin, derived_from=())) for cube in everything(memory.store, asked)), out
        )
        return out.getvalue()

    @rule(who=_who, data=st.data(), which=st.integers(0, 17))
    def changes(self, who: str, data: st.DataObject, which: int) -> None:
        cube = self.any(data)
        asked = self.near(cube, data)
        here = dict(zip(("tenant", "user", "agent", "session"), asked.parts, strict=True))
        seq = data.draw(st.sampled_from([event.seq for event in self.memory.store.events(id=cube.id)]))
        words = self.mark()
        update = Operation.update(cube.with_(text=f"overwritten {words}"))
        calls: list[tuple[str, Callable[[Memory], Any], set[Right]]] = [
            ("correct", lambda m: m.correct(cube.id, f"corrected {words}", **here), {Right.WRITE}),
            ("retract", lambda m: m.retract(cube.id, **here), {Right.WRITE}),
            ("restore", lambda m: m.restore(cube.id, **here), {Right.WRITE}),
            ("freeze", lambda m: m.freeze(cube.id, **here), {Right.WRITE}),
            ("thaw", lambda m: m.thaw(cube.id, **here), {Right.WRITE}),
            ("feedback", lambda m: m.feedback([cube.id], 1.0, **here), {Right.WRITE}),
            ("approve", lambda m: m.approve(cube.id, **here), {Right.JUDGE}),
            ("reject", lambda m: m.reject(cube.id, **here), {Right.JUDGE}),
            ("undo", lambda m: m.undo(seq, **here), {Right.WRITE, Right.JUDGE}),
            ("forget", lambda m: m.forget(cube.id, dry_run=True, **here), set()),
            ("forget", lambda m: m.forget(cube.id, **here), {Right.ERASE}),
            ("forget", lambda m: m.forget(author=cube.origin.author, since="2000-01-01", **here), {Right.ERASE}),
            ("revoke", lambda m: m.revoke(source=cube.origin.reference, dry_run=True, **here), set()),
            ("revoke", lambda m: m.revoke(since="2000-01-01", **here), {Right.JUDGE}),
            ("release", lambda m: m.release(**here), {Right.JUDGE}),
            ("apply", lambda m: m.apply([update], actor="x"), {Right.WRITE}),
            ("apply", lambda m: m.apply([Operation.delete(cube)], actor="x"), {Right.WRITE}),
            ("retract", lambda m: m.store.derived([cube.id], asked), set()),
        ]
        what, call, rights = calls[which]
        inputs = " ".join((cube.id, told(cube.origin), cube.text if what == "apply" else ""))
        self.watch(who, what, call, rights, allowed=inputs)
        self.marks.setdefault(cube.id, {cube.id}).add(words)

    @rule(who=_who, data=st.data(), which=st.integers(0, 4), derived=st.booleans())
    def writes(self, who: str, data: st.DataObject, which: int, derived: bool) -> None:
        """Adds of its own, of what somebody said before, under an id that is taken, by an import, and canaries."""
        cube = self.any(data)
        scope = self.near(cube, data)
        words = self.mark()
        parents = (cube.ref,) if derived else ()
        own = Cube(scope, f"a ferry of {who} {words}", origin=Origin(Channel.USER, who, derived_from=parents))
        guess = Cube(
            cube.scope, cube.text, cube.kind, origin=replace(cube.origin, derived_from=(), channel=Channel.USER)
        )
        stolen = Cube(scope, f"a ferry of {who} {words}", origin=Origin(Channel.USER, who), id=cube.id)
        here = {"tenant": scope.tenant, "user": scope.user}
        calls: list[tuple[str, Callable[[Memory], Any], str]] = [
            ("add", lambda m: m.add([own], **here), cube.id if derived else ""),
            (
                "add",
                lambda m: m.add([guess], tenant=cube.scope.tenant, user=cube.scope.user),
                told(cube).replace(cube.id, ""),
            ),
            ("add", lambda m: m.add([stolen], **here), cube.id),
            ("import", lambda m: bring_in(m.door, read_jsonl(self._file(own), scope)), cube.id if derived else ""),
            (
                "canary",
                lambda m: m.canary("when does the ferry leave?", sorted(self.marks[cube.id])[0], **here),
                told(tuple(self.marks[cube.id])),
            ),
        ]
        what, call, allowed = calls[which]
        self.watch(who, what, call, set(), allowed=allowed)

    @staticmethod
    def _file(cube: Cube) -> list[str]:
        out = io.StringIO()
        export_jsonl([cube], out)
        return out.getvalue().splitlines()

    @rule(who=_who, which=st.integers(0, 5))
    def owners_calls(self, who: str, which: int) -> None:
        m = self.memory.held_by(who)
        calls = [
            m.status,
            m.verify,
            lambda: m.reembed(HashEmbedder("other")),
            lambda: m.access,
            m.store.partitions,
            lambda: list(m.store.events()),
        ]
        with pytest.raises(AccessError):
            calls[which]()

    @invariant()
    def marks_are_known(self) -> None:
        assert set(self.truth()) <= set(self.marks)


TestWalk = Walk.TestCase
