"""Two stores that differ only in what is hidden from somebody answer them alike."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from given import KINDS, PLACES, SCOPES, Given, may, told
from holdfast.cube import Channel, Cube, Origin, Policy, Scope, Status
from holdfast.errors import HoldfastError
from holdfast.guard.precedents import Precedents
from holdfast.memory import Memory
from holdfast.retrieve.hits import Hits
from holdfast.store.base import Operation, Where
from holdfast.store.grants import Right
from holdfast.store.transfer import bring_in
from support import MEMORY, Clock, HashEmbedder, open_memory

_rights = st.sets(st.sampled_from(list(Right)), max_size=4).map(lambda some: some | {Right.READ})
_given = st.lists(
    st.tuples(st.sampled_from(PLACES), _rights | st.just(set(Right)), st.sets(st.sampled_from(KINDS), max_size=1)),
    min_size=1,
    max_size=2,
)
_kept = st.lists(
    st.tuples(
        st.sampled_from(SCOPES[:4]),
        st.sampled_from(KINDS),
        st.sampled_from(((), (), ("bot",), ("eve",))),
        st.sampled_from((Status.GENERATED, Status.GENERATED, Status.QUARANTINED)),
        st.none() | st.integers(0, 3),
    ),
    min_size=3,
    max_size=7,
)
_NOT_TOLD = re.compile(r"[0-9a-f]{64}|\b\d+\.\d+\b")  # hashes are of salted words; scores depend on all words there are


class World:
    """A store in which what is hidden from bot says one thing; in the other world it says another. All else is the same."""

    def __init__(self, folder: Path, side: int, given_: list[Any], kept: list[Any]) -> None:
        self.clock = Clock()
        self.memory = open_memory(
            folder, user=None, tenant="acme", clock=self.clock, embedder=HashEmbedder(dimension=8)
        )
        self.memory.access.enrol("bot")
        self.given = [
            Given("bot", place, frozenset(rights), frozenset(kinds), self._grant(place, rights, kinds))
            for place, rights, kinds in given_
        ]
        self.cubes: list[Cube] = []
        for number, (scope, kind, readers, status, parent) in enumerate(kept):
            thing = "reactor"
            cube = Cube(
                scope,
                "",
                kind,
                status=status,
                policy=Policy(readers=readers),
                id=f"0190f3a0-0000-7000-8000-{number:012d}",
            )
            if not may(self.given, "bot", Right.READ, cube):
                thing = ("harbour", "orchard")[side]
            parents = (self.cubes[parent].ref,) if parent is not None and parent < len(self.cubes) else ()
            origin = Origin(Channel.USER, f"Speaker {thing}", f"https://{thing}.example", derived_from=parents)
            cube = cube.with_(text=f"the {thing} stands in hall {number}", origin=origin)
            self.clock.tick()
            self.cubes += self.memory.store.commit([Operation.add(cube, f"because of the {thing}")]).cubes
        self.memory.flush()
        self.names = {cube.id: f"memory {number}" for number, cube in enumerate(self.cubes)}

    def _grant(self, place: str, rights: Any, kinds: Any) -> str:
        try:
            return self.memory.access.grant("bot", place, rights, kinds=kinds).id
        except HoldfastError:
            return ""

    def observe(self, call: Callable[[Memory], Any]) -> str:
        self.clock.tick()
        try:
            result = call(self.memory.held_by("bot"))
        except HoldfastError as error:
            return self._plain(f"{type(error).__name__}: {error}")
        if isinstance(result, Hits):
            beside = [[cube.id for cube in (*hit.before, *hit.after)] for hit in sorted(result, key=lambda hit: hit.id)]
            return self._plain(
                told(
                    (
                        sorted(hit.id for hit in result),
                        beside,
                        [hit.text for hit in sorted(result, key=lambda hit: hit.id)],
                        result.degraded,
                    )
                )
            )
        return self._plain(told(result))

    def _plain(self, heard: str) -> str:
        def name(match: re.Match[str]) -> str:
            return self.names.setdefault(match[0], f"new {len(self.names)}")

        return re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", name, _NOT_TOLD.sub("#", heard))


def _calls(cube: Cube, asked: Scope, seq: int) -> list[Callable[[Memory], Any]]:
    here = dict(zip(("tenant", "user", "agent", "session"), asked.parts, strict=True))
    home = {"tenant": asked.tenant, "user": asked.user}
    words = "the harbour stands in hall"
    found: list[Callable[[Memory], Any]] = [
        lambda m: m.search("harbour", k=50, neighbours=1, **here),
        lambda m: m.search("what did Speaker harbour say of the harbour?", k=50, **here),
        lambda m: m.search("reactor in the hall", k=50, **here),
        lambda m: m.as_of("2026-01-01T12:00:03").search("harbour hall", k=50, **here),
        lambda m: m.alike(["the harbour", "hall"], **here),
        lambda m: m.get(cube.id, **here),
        lambda m: m.get(cube.id, version=1, **here),
        lambda m: [
            list(m.select(Where(author="Speaker harbour"), **here)),
            list(m.select(Where(source="https://harbour.example"), **here)),
        ],
        lambda m: list(m.select(Where(data={"role": None}), **here)),
        lambda m: m.history(**here),
        lambda m: [m.lineage(cube.id, **here), m.lineage(cube.id, down=False, **here)],
        lambda m: m.quarantined(**here),
        lambda m: m.release(dry_run=True, **here),
        lambda m: m.release(**here),
        lambda m: _weighed(m.precedents("where does the harbour stand?", **here)),
        lambda m: [lesson.id for lesson in m.lessons(**here).all()],
        lambda m: m.answers(m.canary("where is the harbour?", "harbour", **here)),
        lambda m: m.answers(Cube(cube.scope, "where is the harbour?", data={"expects": "harbour"})),
        lambda m: m.apply(
            [Operation.add(Cube(asked, "the reactor has moved", origin=Origin(Channel.USER, "bot")))], actor="x"
        ),
        lambda m: m.apply([Operation.delete(cube)], actor="x"),
        lambda m: m.add(
            [
                Cube(cube.scope, f"{words} {number}", cube.kind, origin=Origin(Channel.USER, "Speaker harbour"))
                for number in range(7)
            ],
            tenant=cube.scope.tenant,
            user=cube.scope.user,
        ),
        lambda m: m.add([Cube(asked, words, id=cube.id)], **home),
        lambda m: m.add([Cube(asked, words, origin=Origin(Channel.ASSISTANT, derived_from=(cube.ref,)))], **home),
        lambda m: m.correct(cube.id, f"{words} 0", **here),
        lambda m: m.feedback([cube.id], 0.5, **here),
        lambda m: m.retract(cube.id, **here),
        lambda m: m.restore(cube.id, **here),
        lambda m: m.approve(cube.id, **here),
        lambda m: m.freeze(cube.id, **here),
        lambda m: m.undo(seq, **here),
        lambda m: m.forget(cube.id, dry_run=True, **here),
        lambda m: m.forget(author="Speaker harbour", dry_run=True, **here),
        lambda m: m.forget(cube.id, **here),
        lambda m: m.revoke(source="https://harbour.example", dry_run=True, **home),
        lambda m: m.revoke(since="2000-01-01", dry_run=True, **home),
        lambda m: m.revoke(author="Speaker reactor", **home),
        lambda m: bring_in(m.door, [Cube(asked, f"{words} 1", origin=Origin(Channel.IMPORT, "Speaker harbour"))]),
        lambda m: m.degraded,
    ]
    return found


def _weighed(found: Precedents) -> Any:
    """Scores depend on all words there are, and so does the order of what they rank."""
    return [
        sorted(hit.id for hit in found.kept),
        sorted((one.hit.id, one.reason) for one in found.dropped),
        [found.abstained, found.reason, found.cautions, found.learnt, found.degraded],
    ]


COUNT = len(_calls(Cube(SCOPES[0], "a"), SCOPES[0], 1))


@given(
    given_=_given,
    kept=_kept,
    steps=st.lists(
        st.tuples(st.integers(0, COUNT - 1), st.integers(0, 6), st.sampled_from(SCOPES[:4])), min_size=4, max_size=12
    ),
)
def test_what_is_hidden_makes_no_difference_to_anything(given_: list[Any], kept: list[Any], steps: list[Any]) -> None:
    """Two stores that differ in the words of what bot may not see answer it alike, whatever it does in them."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        worlds = [World(Path(folder) / str(side), side, given_, kept) for side in (0, 1)]
        for which, target, asked in steps:
            heard = []
            for world in worlds:
                cube = world.cubes[target % len(world.cubes)]
                heard.append(world.observe(_calls(cube, asked, target + 5)[which]))
            assert heard[0] == heard[1], (which, target, asked)
        for world in worlds:
            assert world.memory.verify() == []
            world.memory.close()
