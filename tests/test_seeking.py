"""Rankers that know where their best records are: what they reach without reading everything, and managers that look at what is new."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from holdfast import Cube, Memory
from holdfast.cube import Channel, Kind, Origin, Ref, Scope, Status
from holdfast.encode.records import LINKS, MAKER, Unit
from holdfast.encode.trials import TRIALS
from holdfast.manage.merging import Merging
from holdfast.manage.pruning import Pruning
from holdfast.recipes.base import Find, Recipe
from holdfast.recipes.book import RECIPES
from holdfast.retrieve.expansion import LOOKED_AT, Expanded
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.judged import Judged
from holdfast.retrieve.likeness import Meaning
from holdfast.retrieve.rewriting import Rewritten
from holdfast.retrieve.solved import Solved
from scribe import Scribe
from stream import opened, runs, trajectory
from support import Clock, HashEmbedder

HERE = Scope("default", "ana", "cook")


def record(memory: Memory, text: str, kind: str = Unit.DIGEST, sources: tuple[Ref, ...] = (), **data: Any) -> Cube:
    origin = Origin(Channel.DERIVED if sources else Channel.ASSISTANT, "cook", derived_from=sources)
    cube = Cube(HERE, text, kind, data={MAKER: "nodes", "turn": text, **data}, origin=origin)
    memory.add(cube)
    return memory.get(cube.id)


def crowd(memory: Memory, count: int = LOOKED_AT + 20) -> None:
    """Records that are all nearer to the query than what is tied."""
    for number in range(count):
        record(memory, f"mend the lamp in the hall {number}")


def told(memory: Memory, ranker: Any, kinds: tuple[str, ...] = (Unit.DIGEST,), k: int = 8) -> list[str]:
    recipe = Recipe("r", "", (), (Find(kinds, ranker, k=k, pool=50),))
    return [hit.text for hit in memory.provider(recipe=recipe).provide("mend the lamp in the hall now").hits]


def test_a_tie_leads_to_what_is_unlike_the_query_and_back_to_what_is_like_it(tmp_path: Path) -> None:
    with opened(tmp_path, "cases") as memory:
        far = record(memory, "quarterly figures of a bank")
        seed = record(memory, "mend the lamp in the hall now", **{LINKS: {far.id: 1.0}})
        record(memory, "mend a lamp in the hall soon", **{LINKS: {seed.id: 0.9}})
        crowd(memory)
        memory.flush()
        found = told(memory, Expanded(seeds=1, hops=1))
        assert found == ["mend the lamp in the hall now", "quarterly figures of a bank", "mend a lamp in the hall soon"]
        assert told(memory, Expanded(seeds=1, hops=0)) == ["mend the lamp in the hall now"]


@pytest.mark.parametrize("guard", ["default", None])
def test_what_is_told_has_data_of_its_own(guard: str | None, tmp_path: Path) -> None:
    """Whoever changes it changes nothing of what is told next; that it was looked at among many is no matter."""
    with opened(tmp_path, "cases", guard=guard) as memory:
        far = record(memory, "quarterly figures of a bank")
        record(memory, "mend the lamp in the hall now", **{LINKS: {far.id: 1.0}})
        crowd(memory)
        memory.flush()
        recipe = Recipe("r", "", (), (Find((Unit.DIGEST,), Expanded(seeds=1, hops=1), k=8),))
        cook = memory.provider(recipe=recipe)
        for _ in range(2):
            seed, other = cook.provide("mend the lamp in the hall now").hits
            assert seed.cube.data[LINKS] == {far.id: 1.0} and other.cube == memory.get(far.id)
            seed.cube.data[LINKS].clear()  # type: ignore[attr-defined]
            other.cube.data.clear()  # type: ignore[attr-defined]


def test_what_rests_on_the_same_run_is_found_by_lineage(tmp_path: Path) -> None:
    with opened(tmp_path, "cases") as memory:
        case = memory.take_in(trajectory(runs()[0], 1), 1.0).case
        ref = memory.get(case).ref
        record(memory, "mend the lamp in the hall now", sources=(ref,))
        record(memory, "always ask for the key", Unit.INSIGHT, (ref,))
        record(memory, "mend the lamp in the hall by night", Unit.INSIGHT)
        crowd(memory)
        memory.flush()
        found = told(memory, Expanded(seeds=1, hops=1, up=(Unit.INSIGHT,)), (Unit.DIGEST, Unit.INSIGHT))
        assert found == ["mend the lamp in the hall now", "always ask for the key"]


def test_ties_to_what_is_gone_or_somebody_elses_lead_nowhere(tmp_path: Path) -> None:
    with opened(tmp_path, "cases") as memory:
        gone = record(memory, "a note that was retracted")
        memory.retract(gone.id)
        other = memory.add("the diary of ben", user="ben", agent="cook", kind=Unit.DIGEST).ids[0]
        fact = memory.add("a fact of another kind", kind=Kind.FACT).ids[0]
        wrong = {gone.id: 1.0, other: 1.0, fact: 1.0, "no id at all": 1.0, "00000000-0000-7000-8000-000000000000": 1.0}
        record(memory, "mend the lamp in the hall now", **{LINKS: wrong})
        memory.flush()
        assert told(memory, Expanded(seeds=1, neighbours=9)) == ["mend the lamp in the hall now"]


def test_what_succeeded_is_found_behind_any_number_that_did_not(tmp_path: Path) -> None:
    with opened(tmp_path, "cases") as memory:
        for number in range(70):
            origin = Origin(Channel.ASSISTANT, "cook")
            text = "mend the lamp in the hall now" if number else "mend a lamp"
            data = {"reward": -1.0 if number else 1.0, "turn": str(number)}
            memory.add(Cube(HERE, text, Kind.EXPERIENCE, data=data, origin=origin))
        memory.flush()
        assert told(memory, Solved(Meaning()), (Kind.EXPERIENCE,), k=1) == ["mend a lamp"]


def test_nothing_is_asked_where_nothing_is_kept(tmp_path: Path) -> None:
    chat = Scribe(query=lambda _: {"query": "lamp"}, usefulness=lambda data: {"scores": [5] * len(data["records"])})
    with opened(tmp_path, "cases", chat=chat) as memory:
        assert told(memory, Rewritten(Judged())) == []
        assert chat.asked == []
        record(memory, "a lamp")
        memory.flush()
        assert told(memory, Rewritten(Judged())) == ["a lamp"]
        assert [title for title, _ in chat.asked] == ["query", "usefulness"]


def test_managers_look_at_what_has_changed_since_and_compare_it_with_all(tmp_path: Path) -> None:
    asked: list[Any] = []

    def same(data: Any) -> dict[str, bool]:
        asked.append(data)
        return {"same": True}

    lost = {TRIALS: {"used": 9, "won": 0, "last": []}}
    clock = Clock()
    with opened(tmp_path, "cases", clock=clock) as memory:
        old = [record(memory, f"take the long ladder {word}", Unit.TIP) for word in ("twice", "again")]
        rain = record(memory, "wait in the rain", Unit.TIP, **lost)
        since = clock.tick(3_600)
        new = record(memory, "take the long ladder thrice", Unit.TIP)
        failed = record(memory, "wait in the snow", Unit.TIP, **lost)
        memory.flush()
        changed = memory.changed(since)
        found = Pruning((Unit.TIP,), changed=changed).manage(memory.store, HERE, since)
        assert [one.cube.id for one in found if one.cube] == [failed.id]
        assert len(Pruning((Unit.TIP,)).manage(memory.store, HERE, since)) == 2
        merging = Merging((Unit.TIP,), alike=0.5, changed=changed, model=Scribe(equality=same), memory=memory)
        joined = {one.cube.id: one.cube.status for one in merging.manage(memory.store, HERE, since) if one.cube}
        assert sorted(one["other"] for one in asked) == [new.text, failed.text], (
            "what is old is not held against what is old"
        )
        assert joined.pop(new.id) is joined.pop(failed.id) is Status.MERGED
        assert set(joined) < {rain.id, *(one.id for one in old)} and len(joined) == 2, "old ones take them over"


def test_taking_in_tends_what_has_changed_in_the_last_two_rounds(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Seen:
        changed: tuple[Cube, ...] | None = None

        def manage(self, *_: Any) -> list[Any]:
            seen.append(None if self.changed is None else [cube.id for cube in self.changed])
            return []

    seen: list[list[str] | None] = []
    recipe = replace(RECIPES["cases"], managers=(Seen(),), every=2)
    with opened(tmp_path, recipe) as memory:
        cases = [memory.take_in(trajectory(run, number), 1.0).case for number, run in enumerate(runs()[:6])]
        memory.manage()
        assert seen == [None, None, cases[2:], None]


def test_what_is_counted_and_has_changed_is_what_may_be_found(tmp_path: Path) -> None:
    clock = Clock()
    with Memory(tmp_path, user="ana", embedder=HashEmbedder(), encoders=(), background=False, clock=clock) as memory:
        assert memory.tally(back=1) == (0, None) and memory.changed(clock()) == []
        ids = []
        for number in range(4):
            clock.tick()
            ids += memory.add(f"number {number}", kind="document").ids
        memory.add("a message")
        assert memory.tally(back=2, kinds=("document",)) == (4, memory.get(ids[2]).recorded_at)
        assert memory.tally(back=4, kinds=("document",)) == (4, None)
        since = clock.tick()
        memory.correct(ids[0], "number 0, corrected")
        memory.retract(ids[1])
        assert [cube.text for cube in memory.changed(since)] == ["number 0, corrected"]
        assert memory.changed(since, kinds=("message",)) == memory.changed(since, user="ben") == []
        assert memory.tally(back=2, kinds=("document",))[0] == 3


@pytest.mark.parametrize("least", [0.0, 0.99])
def test_a_custom_ranker_without_seek_scores_the_nearest(tmp_path: Path, least: float) -> None:
    class Shortest:
        def rank(self, _query: str, candidates: Any, /) -> Any:
            import numpy as np

            seen.extend(candidates)
            return np.asarray([1 / len(hit.text) for hit in candidates])

    seen: list[Hit] = []
    with opened(tmp_path, "cases") as memory:
        crowd(memory, 60)
        record(memory, "lamp")
        memory.flush()
        recipe = Recipe("r", "", (), (Find((Unit.DIGEST,), Shortest(), k=1, pool=61, least=least),))
        found = memory.provider(recipe=recipe).provide("mend the lamp in the hall now").hits
        assert [hit.text for hit in found] == ([] if least else ["lamp"])
        assert len(seen) == 61
