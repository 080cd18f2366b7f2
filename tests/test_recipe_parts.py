"""The parts of recipes one by one: what each makes, finds, merges and lets go, and where it holds back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast import Memory
from holdfast.agent.sandbox import Sandbox
from holdfast.agent.skills import callable_skills
from holdfast.bench.scribe import Scribe as AnySchema
from holdfast.cube import Channel, Cube, Kind, Origin, Ref, Scope, Status
from holdfast.encode.base import Outcome, Step, Trajectory
from holdfast.encode.digests import Digests
from holdfast.encode.functions import Functions, faulty
from holdfast.encode.insights import Insights
from holdfast.encode.records import CASES, LINKS, MAKER, TELL, Unit, tell
from holdfast.encode.trials import TRIALS, Trials, score
from holdfast.errors import InputError, SandboxError
from holdfast.manage.fading import Fading
from holdfast.manage.merging import UNLIKE, Merging
from holdfast.manage.pruning import Pruning
from holdfast.recipes.base import Find, Recipe
from holdfast.recipes.book import DYNAMIC_CHEATSHEET, EVOLVER, MEMP, RECIPES
from holdfast.recipes.provider import equipped
from holdfast.retrieve.expansion import Expanded
from holdfast.retrieve.hits import Hit
from holdfast.retrieve.judged import Judged
from holdfast.retrieve.keywords import Keywords
from holdfast.retrieve.likeness import Meaning
from holdfast.retrieve.rewriting import Rewritten
from holdfast.retrieve.solved import Solved
from scribe import Scribe
from stream import Model, opened, runs, trajectory
from support import Clock, HashEmbedder

HERE = Scope("default", "ana", "cook")
GOOD, BAD = (next(run for run in runs() if run.succeeded is went) for went in (True, False))


def hit(text: str, relevance: float = 0.5, kind: str = Unit.DIGEST, sources: tuple[Ref, ...] = (), **data: Any) -> Hit:
    origin = Origin(Channel.DERIVED, "cook", derived_from=sources)
    return Hit(Cube(HERE, text, kind, data=data, origin=origin), 0.0, relevance)


# --- encoders ---


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ('def f(a: int) -> int:\n    """Doc."""\n    return a\n', ""),
        ('import math\n\ndef f(a: int) -> float:\n    """Doc."""\n    return math.sqrt(a)\n', ""),
        ("def f(a:\n", "it is no Python (SyntaxError)"),
        ("x = 1\n", "it is not one function and nothing else"),
        ('def f(a):\n    """Doc."""\n\nf(1)\n', "it is not one function and nothing else"),
        ('import os\n\ndef f(a):\n    """Doc."""\n', "it is not one function and nothing else"),
        ("def f(a):\n    return a\n", "it has no docstring"),
        ('@x\ndef f(a):\n    """Doc."""\n', "it has decorators"),
        ('def f(a):\n    """Doc."""\n    import subprocess\n', "it imports subprocess"),
        ('def f(a):\n    """Doc."""\n    from os import path\n', "it imports from os"),
        ('def f(a):\n    """Doc."""\n    return eval(a)\n', "it uses eval"),
        ('def f(a):\n    """Doc."""\n    return a.__class__\n', "it uses .__class__"),
        ('def f(a):\n    """Doc."""\n    return __builtins__\n', "it uses __builtins__"),
        ('def f(a):\n    """Doc."""\n    global g\n', "it holds Global"),
        ('def f(a):\n    """Doc."""\n' + "    a += 1\n" * 70, "it has more than 60 lines"),
        ("def f(a):\n    " + "(" * 5_000, "it is no Python (SyntaxError)"),
    ],
)
def test_code_has_to_stand_a_first_look(code: str, fault: str) -> None:
    assert faulty(code).partition(" (")[0] == fault.partition(" (")[0]


def test_a_faulty_function_is_not_kept_and_the_reason_is_told(tmp_path: Path) -> None:
    bad = Scribe(function=lambda _: {"description": "d", "code": "import os\nos.remove('x')"})
    with opened(tmp_path, "skillweaver", chat=bad) as memory:
        taken = memory.take_in(trajectory(GOOD, 1), 1.0)
        assert taken.made == ()
        assert taken.reasons == ("the function is not kept: it is not one function and nothing else",)


def test_a_skill_runs_in_the_sandbox_alone(tmp_path: Path) -> None:
    code = (
        'def total(prices: list, tax: float = 0.0) -> float:\n    """Add up."""\n    return sum(prices) * (1 + tax)\n'
    )
    broken = 'def broken(a: int) -> int:\n    """Fail."""\n    return a / 0\n'
    sly = 'import os\n\n\ndef sly() -> int:\n    """Reach out."""\n    return os.getpid()\n'
    hits = [hit(name, kind=Kind.SKILL, code=some) for name, some in (("t", code), ("b", broken), ("s", sly))]
    adds, fails = callable_skills([*hits, hits[0]], Sandbox())
    assert adds.tool.parameters == {
        "type": "object",
        "properties": {"prices": {"type": "array"}, "tax": {"type": "number"}},
        "required": ["prices"],
        "additionalProperties": False,
    }
    assert adds.channel is Channel.SYSTEM
    missing = Sandbox().missing()
    if missing:  # then nothing is run at all
        with pytest.raises(SandboxError, match="does not guarantee"):
            adds.run(prices=[1])
        return
    assert adds.run(prices=[1, 2], tax=0.5) == 4.5
    with pytest.raises(SandboxError, match="the skill broken failed: ZeroDivisionError"):
        fails.run(a=1)


def test_trials_count_a_run_once_and_nothing_of_others(tmp_path: Path) -> None:
    recipe = Recipe("t", "", (Digests(), Trials((Unit.DIGEST,))), (Find((Unit.DIGEST,), Meaning()),))
    with opened(tmp_path, recipe) as memory:
        made = memory.take_in(trajectory(GOOD, 1), 1.0).made[0]
        memory.flush()
        served = memory.provide(GOOD.task)
        for reward in (-1.0, -1.0):
            memory.take_in(trajectory(BAD, 2, served), reward)
        assert memory.get(made).data[TRIALS]["used"] == 1
        assert score(memory.get(made)) == pytest.approx(1 / 3)
        memory.take_in(trajectory(BAD, 3, served), None)
        memory.take_in(trajectory(BAD, 4, served), -1.0, author="mallory")
        assert memory.get(made).data[TRIALS]["used"] == 1
        memory.freeze(made)
        memory.take_in(trajectory(BAD, 5, served), -1.0)
        assert memory.get(made).data[TRIALS]["used"] == 1, "what is frozen stays as it is"


def test_a_revision_is_a_new_version_with_the_failure_among_its_sources(tmp_path: Path) -> None:
    with opened(tmp_path, MEMP) as memory:
        made = memory.take_in(trajectory(GOOD, 1), 1.0).made[0]
        memory.flush()
        served = memory.provide(GOOD.task)
        failed = memory.take_in(trajectory(BAD, 2, served), Outcome(-1.0, "the bridge was closed"))
        cube = memory.get(made)
        assert (cube.version, cube.data["revisions"]) == (2, 1)
        assert "failed: " in tell(cube)
        assert failed.case in {ref.id for ref in cube.origin.derived_from}
        memory.take_in(trajectory(BAD, 2, served), Outcome(-1.0, "the bridge was closed"))
        assert memory.get(made).version == 2
        assert [c.version for c in (one.cube for one in memory.history(made)) if c] == [1, 2]


def test_a_principle_keeps_one_example_of_each_sort(tmp_path: Path) -> None:
    with opened(tmp_path, replace(EVOLVER, managers=())) as memory:
        for number, (run, reward) in enumerate([(GOOD, 1.0), (GOOD, 1.0), (GOOD, -1.0), (GOOD, -1.0)]):
            memory.take_in(trajectory(run, number), reward)
            memory.flush()
        (one,) = [cube for cube in memory.select() if cube.kind == Unit.PRINCIPLE]
        assert tell(one).count("It went well") == tell(one).count("It went wrong") == 1
        assert len(one.origin.derived_from) == 4


@pytest.mark.parametrize(
    ("part", "genes"),
    [
        (Digests, {"words": 0}),
        (Insights, {"least": 4, "most": 3}),
        (Functions, {"lines": 1}),
        (Trials, {"kinds": ()}),
        (Judged, {"shown": 0}),
        (Keywords, {"name": -1.0}),
        (Expanded, {"weight": 0.0}),
        (Rewritten, {"characters": 0}),
        (Merging, {"kinds": ("tip",), "alike": 1.5}),
        (Pruning, {"kinds": ("tip",), "below": 0.0}),
        (Fading, {"kinds": ("tip",), "days": 0.0}),
    ],
)
def test_genes_have_their_range(part: type, genes: Mapping[str, Any]) -> None:
    with pytest.raises(InputError):
        part(**genes)


def test_a_find_of_all_there_is_refuses_a_ranker_that_asks_an_index() -> None:
    """It would score nothing of what it is given, and nothing would be told."""
    for ranker in (Meaning(), Keywords(), Solved(Meaning())):
        with pytest.raises(InputError, match="asks an index"):
            Find((Unit.SHEET,), ranker, whole=True)


# --- rankers ---


def test_keywords_weigh_the_fields() -> None:
    hits = [
        hit("a", name="fetch_lamp", description="", doc=""),
        hit("b", name="", description="fetch things", doc=""),
        hit("c", name="", description="", doc="a lamp, a lamp"),
        hit("d", name="x", description="y", doc="z"),
    ]
    assert Keywords().rank("fetch the lamp", hits).tolist() == [4.0, 1.5, 1.0, 0.0]


def test_a_judge_sees_the_few_most_alike_and_equals_stay_in_their_order() -> None:
    chat = Scribe(usefulness=lambda data: {"scores": [5, 9, 9]})
    hits = [hit(text, relevance) for text, relevance in (("a", 0.1), ("b", 0.9), ("c", 0.8), ("d", 0.7))]
    scores = Judged(model=chat).rank("task", hits)
    assert chat.asked[0][1]["records"] == ["b", "c", "d"]
    assert np.argsort(-scores, kind="stable").tolist()[:3] == [2, 3, 1]
    assert scores[0] == -np.inf


def test_only_what_succeeded_is_an_example() -> None:
    hits = [hit("a", 0.9, reward=-1.0), hit("b", 0.5, reward=1.0), hit("c", 0.8)]
    assert np.isfinite(Solved(Meaning()).rank("q", hits)).tolist() == [False, True, False]


def test_ties_are_followed_as_far_as_told_and_insights_rise_with_their_trials() -> None:
    cases = [Ref(f"00000000-0000-7000-8000-{n:012d}", 1) for n in range(4)]
    seed = hit("seed", 0.9, sources=(cases[0],))
    near = hit("near", 0.1, sources=(cases[1],), **{LINKS: {seed.id: 1.0}})
    far = hit("far", 0.05, sources=(cases[2],), **{LINKS: {near.id: 0.5}})
    alone = hit("alone", 0.2, sources=(cases[3],))
    said = [hit(f"i{n}", 0.0, Unit.INSIGHT, (cases[n],)) for n in range(3)]
    proven = hit("proven", 0.0, Unit.INSIGHT, (cases[0],), **{TRIALS: {"used": 2, "won": 2, "last": []}})
    hits = [seed, near, far, alone, *said, proven]
    one = Expanded(seeds=1, up=(Unit.INSIGHT,), hops=1).rank("q", hits)
    none = -np.inf
    assert one == pytest.approx([0.9, 0.63, none, none, 0.63, 0.441, none, 0.63 * 1.5])
    two = Expanded(seeds=1, up=(Unit.INSIGHT,), hops=2).rank("q", hits)
    assert two[2] == pytest.approx(0.63 * 0.5 * 0.7)
    assert Expanded(seeds=1, hops=0).rank("q", [near, seed]) == pytest.approx([none, 0.9])


def test_the_nearest_may_be_as_far_as_can_be(tmp_path: Path) -> None:
    """Who ranks by words or ties ranks them all, also those whose cosine is below 0."""
    with opened(tmp_path, "dilu") as memory:
        for number, run in enumerate(runs()[:30]):
            memory.take_in(trajectory(run, number), 1.0)
        memory.flush()
        asked = ("violins", "trumpets", "oboes", "drums", "harps")
        found = [memory.nearest(word, k=100, kinds=(Unit.DIGEST,)) for word in asked]
        assert min(hit.relevance for hits in found for hit in hits) < 0
        assert [len(hits) for hits in found] == [30] * 5


# --- managers ---


def insight(memory: Memory, text: str, number: int, author: str = "cook") -> str:
    memory._chat = Scribe(insights=lambda _: {"insights": [text, f"{number} one", f"{number} two"]})  # type: ignore[attr-defined]
    return memory.take_in(trajectory(GOOD, number), 1.0, author=author).made[0]


ALIKE = Recipe(
    "m", "", (Insights(kept=1),), (Find((Unit.INSIGHT,), Meaning()),), managers=(Merging((Unit.INSIGHT,)),), every=99
)


def test_merging_keeps_the_older_one_asks_once_and_never_joins_two_authors(tmp_path: Path) -> None:
    with opened(tmp_path, ALIKE) as memory:
        first = insight(memory, "carry the lamp with both hands slowly", 1)
        other = insight(memory, "carry the lamp with both hands", 2)
        apart = insight(memory, "carry the lamp with both feet slowly", 3)
        foreign = insight(memory, "carry the lamp with both hands slowly", 4, author="ben")
        memory.flush()
        model = Scribe(equality=lambda data: {"same": "feet" not in data["one"] + data["other"]})
        memory._chat = model  # type: ignore[attr-defined]
        memory.manage()
        memory.flush()
        statuses = {id: memory.get(id).status for id in (first, other, apart, foreign)}
        assert statuses[other] is Status.MERGED
        assert [statuses[id] for id in (first, apart, foreign)] == [Status.GENERATED] * 3
        assert other in {ref.id for ref in memory.get(first).origin.derived_from}
        asked = len(model.asked)
        assert asked >= 2
        assert memory.manage() == ()
        assert len(model.asked) == asked, "what was found different is not asked about again"
        assert all("ben" not in str(data) for _, data in model.asked)


def test_what_is_not_used_fades_and_what_fails_is_pruned(tmp_path: Path) -> None:
    clock = Clock()
    with Memory(
        tmp_path,
        user="ana",
        agent="cook",
        embedder=HashEmbedder(),
        background=False,
        clock=clock,
        recipe="dilu",
        chat=Model(),
    ) as memory:
        made = memory.take_in(trajectory(GOOD, 1), 1.0).made[0]
        fading = Fading((Unit.DIGEST,), days=30.0, below=0.05)
        assert fading.manage(memory.store, HERE, clock() + timedelta(days=90)) == []
        (gone,) = fading.manage(memory.store, HERE, clock() + timedelta(days=101))
        assert gone.cube is not None
        assert gone.cube.id == made
        memory.add("not a derived record", kind=Unit.DIGEST)
        assert len(fading.manage(memory.store, HERE, clock() + timedelta(days=999))) == 1
        assert Pruning((Unit.DIGEST,), below=0.9, uses=1).manage(memory.store, HERE, clock()) == []
        assert len(Pruning((Unit.DIGEST,), below=0.9, uses=0).manage(memory.store, HERE, clock())) == 1


def test_data_that_somebody_else_wrote_break_nothing(tmp_path: Path) -> None:
    """Anybody who may write in a scope may write any data into it: those that are none of a part's are not read."""
    wrong = {LINKS: {"x": "y"}, TRIALS: 7, CASES: 5, UNLIKE: "z", TELL: 3, "reward": [], "structure": 1}
    for name in RECIPES:
        writes: dict[str, Any] = {"chat": AnySchema()} if name in ("cheatsheet", "memskill") else {}
        with opened(tmp_path / name, name, **writes) as memory:
            case = memory.take_in(trajectory(GOOD, 1), 1.0).case
            refs = (memory.get(case).ref,)
            makers = {part.__module__.rpartition(".")[2] for part in map(type, RECIPES[name].encoders)} | {"curation"}
            for maker in sorted(makers):
                for kind in (*Unit, Kind.SKILL, Kind.CONCEPT):
                    data = {**wrong, MAKER: maker, "turn": f"{maker} {kind}"}
                    memory.add(
                        GOOD.task, kind=kind, channel="assistant", author="mallory", data=data, derived_from=refs
                    )
            memory.flush()
            served = memory.provide(GOOD.task, author="mallory")
            memory.provide(GOOD.task, "step", context=GOOD.task)
            memory.take_in(trajectory(GOOD, 1), 1.0)
            for author in ("mallory", None):
                memory.take_in(trajectory(BAD, 2, served), -1.0, author=author)
            memory.manage()


# --- composers ---


def test_a_sheet_is_one_cube_in_many_versions_and_each_author_has_their_own(tmp_path: Path) -> None:
    with opened(tmp_path, DYNAMIC_CHEATSHEET) as memory:
        assert memory.provide(GOOD.task).text == ""
        for author, run in (("ana", GOOD), ("ben", BAD)):
            for number in range(2):
                memory.take_in(trajectory(run, number), 1.0, author=author)
            memory.flush()
            for _ in range(3):
                memory.provide(run.task, author=author)
                memory.flush()
        sheets = [cube for cube in memory.select() if cube.kind == Unit.SHEET]
        assert sorted(cube.origin.author or "" for cube in sheets) == ["ana", "ben"]
        assert all(cube.version > 1 and cube.data[MAKER] == "curation" for cube in sheets)


def test_a_sheet_written_from_what_others_agree_on_is_told_and_not_kept(tmp_path: Path) -> None:
    """Its words come from who asks, too: kept, it would be a word of those whose records went into it."""
    planted = Model()
    planted.answers = {**planted.answers, "sheet": lambda data: {"sheet": f"do as {data['task']} says"}}
    shared = tuple(replace(find, own=False) for find in DYNAMIC_CHEATSHEET.finds)
    with opened(tmp_path, replace(DYNAMIC_CHEATSHEET, finds=shared), chat=planted) as memory:
        for number, author in enumerate(("ana", "ben", "cleo")):
            steps = (Step("send landlord", "done", "send_money", {"to": "landlord"}),)
            memory.take_in(
                Trajectory(
                    "fetch the lamp in the cellar now", (*steps, Step("wait the day", "x")), "paid", id=str(number)
                ),
                1.0,
                author=author,
            )
        memory.flush()
        told = memory.provide("fetch the lamp in the cellar by mallory", author="mallory")
        memory.flush()
        assert "mallory" in told.text
        assert [cube for cube in memory.select() if cube.kind == Unit.SHEET] == []
        assert "mallory" not in memory.provide("fetch the lamp in the cellar", author="ana").text


def test_a_sheet_that_is_not_found_is_not_written_twice(tmp_path: Path) -> None:
    with opened(tmp_path, DYNAMIC_CHEATSHEET) as memory:
        memory.take_in(trajectory(GOOD, 1), 1.0)
        memory.flush()
        memory.provide(GOOD.task)  # its sheet waits for a vector, and shares no word with the next task
        memory.provide("quite another errand")
        memory.flush()
        assert len([cube for cube in memory.select() if cube.kind == Unit.SHEET]) == 1


def test_guidance_is_written_from_ties_too_and_left_out_where_none_is_needed(tmp_path: Path) -> None:
    kinds = {
        "fetch the lamp": "bring lamps and other lights up from below, one by one",
        "fetch the kettle": "bring lamps and other lights up from below, all at once",
    }
    chat = Scribe(
        pattern=lambda data: {"kind": kinds[data["task"]], "pattern": f"as in {data['task']}"},
        function=lambda data: {"description": "d", "code": "none"},
        advice=lambda data: {"needed": "idle" not in data["task"], "guidance": " / ".join(data["records"])},
    )
    with opened(tmp_path, "cerebra", chat=chat) as memory:
        for number, task in enumerate(kinds):
            taken = memory.take_in(Trajectory(task, (Step("walk", "there"),), "done", id=str(number)), 1.0)
            assert taken.reasons, "no function, and why"
            memory.flush()
        first, second = [cube for cube in memory.select() if cube.kind == Kind.CONCEPT]
        assert second.data[LINKS] == {first.id: pytest.approx(0.8, abs=0.2)}
        told = memory.provide("bring lamps and other lights")
        assert "as in fetch the lamp" in told.text
        assert "as in fetch the kettle" in told.text
        assert memory.provide("idle lamps and other lights").text == ""


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_stand_in_that_fills_any_schema_serves_every_recipe(name: str, tmp_path: Path) -> None:
    with opened(tmp_path, name, chat=AnySchema()) as memory:
        for number, run in enumerate(runs()[:4]):
            served = memory.provide(run.task)
            memory.provide(run.task, "step", context=run.steps[0][1])
            memory.take_in(trajectory(run, number, served), 1.0 if run.succeeded else -1.0)
            memory.take_in(Trajectory(run.task, id=f"empty-{number}"), 1.0)
            memory.flush()
        memory.manage()
        assert name in ("skillweaver", "cerebra") or memory.provide(runs()[0].task).hits


def test_the_book_names_fourteen() -> None:
    assert len(RECIPES) >= 14
    assert all("arXiv" in recipe.about for name, recipe in RECIPES.items() if name != "cases")


def test_parts_within_parts_are_equipped_and_what_they_work_with_stays_itself() -> None:
    @dataclass(frozen=True)
    class Plain(Scribe):
        """A model that is a dataclass, as one may be."""

        asked: list[Any] = field(default_factory=list)
        answers: Mapping[str, Any] = field(default_factory=lambda: {"usefulness": lambda data: {"scores": [7]}})

    model = Plain()
    part = equipped(Solved(Judged()), model, None, HERE, "ana")  # type: ignore[arg-type]
    assert isinstance(part.of, Judged)
    assert part.of.model is model
    assert equipped(part, None, None, HERE).of.model is model  # type: ignore[arg-type, attr-defined]
