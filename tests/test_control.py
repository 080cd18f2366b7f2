"""The control unit: a run that dies loses nothing, a context never overflows, and no check is passed by taking it away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.context import TURN, cost, repeats, tools_cost, units, without_oldest
from holdfast.agent.control import TASK, ControlUnit, heat
from holdfast.agent.evaluators import (
    CrossReferences,
    Finding,
    JsonSchema,
    PythonSyntax,
    PythonTests,
    SectionsPresent,
    WordCount,
)
from holdfast.agent.files import FILE
from holdfast.agent.ledger import Ledger
from holdfast.agent.registry import STEP, InstructionRegistry, Stage
from holdfast.agent.sandbox import Guarantee, Sandbox
from holdfast.agent.window import Budget
from holdfast.chat import Call, Message, Reply, Role, count_tokens
from holdfast.claims.l2mac_arms import BUDGET
from holdfast.claims.l2mac_arms import ledger as opened
from holdfast.claims.l2mac_model import Scribe, SpentError
from holdfast.claims.l2mac_specs import specification, task
from holdfast.cube import Scope
from holdfast.errors import (
    ChatError,
    ConflictError,
    ContextOverflowError,
    CutReplyError,
    InputError,
    MissingExtraError,
    SandboxError,
    UnusableReplyError,
)
from holdfast.store.sqlite import SqliteStore

pytest.importorskip("jsonschema", reason="the extra llm is not installed")

BOX = Sandbox(lowered={one: "this machine may do without it" for one, how in Sandbox().guarantees().items() if not how})
SCOPE = Scope("t", "u", "a", "run")


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    return Ledger(SqliteStore(tmp_path / "s", durability="normal"), SCOPE)


class Scripted:
    """Gives replies in order, and keeps what it was shown. An exception among them is raised."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.shown: list[list[Message]] = []
        self.temperatures: list[float] = []

    def reply(self, messages: Sequence[Message], *, tools: Any = (), temperature: float = 0, **_: Any) -> Reply:
        assert sum(cost(m, count_tokens) for m in messages) + tools_cost(tools, count_tokens) <= 8192
        self.shown.append(list(messages))
        self.temperatures.append(temperature)
        said = self.replies.pop(0)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Reply):
            return said
        if isinstance(said, str):
            return Reply(said)
        tool, arguments, *cut = said
        return Reply("", (Call(f"c{len(self.shown)}", tool, arguments),), cut=bool(cut))


def write(path: str, text: str) -> tuple[str, dict[str, Any]]:
    return "write_files", {"files": [{"path": path, "text": text}]}


DONE = ("step_complete", {})
DONE_CALL = Call("done", "step_complete")


def last(chat: Scripted) -> str:
    return chat.shown[-1][-1].text


# --- a run ---


def test_a_task_is_planned_carried_out_and_summarised(book: Ledger) -> None:
    plan = {"steps": [{"text": "write a"}, {"text": "write b", "depends_on": ["s1"]}]}
    chat = Scripted(
        ("plan", plan), write("a.py", "x = 1\n"), DONE, "a.py has x", write("b.py", "y = 2\n"), DONE, "b too"
    )
    unit = ControlUnit(chat, book, evaluators=[PythonSyntax()])
    files = unit.run("make a and b")
    assert files.all() == {"task.md": "make a and b", "a.py": "x = 1\n", "b.py": "y = 2\n"}
    assert [(one.status, one.summary, one.attempts) for one in unit.registry.instructions] == [
        (Stage.DONE, "a.py has x", 1),
        (Stage.DONE, "b too", 1),
    ]
    assert "s1 is done: a.py has x" in chat.shown[4][1].text and "write a" not in chat.shown[4][1].text
    assert ControlUnit(Scripted(), book).run().digest == files.digest  # nothing is left to do, and nobody is asked
    with pytest.raises(ConflictError):
        ControlUnit(Scripted(), book).run("another task")
    assert not book.store.verify()


def test_a_step_is_done_when_the_evaluators_agree(book: Ledger) -> None:
    chat = Scripted(write("a.py", "def f(:\n"), DONE, write("a.py", "f = 1\n"), DONE, "done")
    unit = ControlUnit(chat, book, evaluators=[PythonSyntax()])
    unit.run("x", ["make a"])
    assert "SyntaxError" in chat.shown[1][-1].text and "SyntaxError" in chat.shown[2][-1].text
    assert "checks pass" in chat.shown[3][-1].text and not unit.failed


def test_a_model_that_never_ends_is_given_up(book: Ledger) -> None:
    unit = ControlUnit(Scripted(*["hm"] * 5), book, budget=Budget(turns=5))
    unit.run("x", ["make a"])
    assert [one.id for one in unit.failed] == ["s1"] and "5 turns" in unit.failed[0].summary


def test_tests_that_were_there_may_not_be_weakened_unless_the_instruction_allows_it(book: Ledger) -> None:
    test = "def test_a():\n    assert 1\n"
    weak = write("test_a.py", "def test_a():\n    pass\n")
    chat = Scripted(write("test_a.py", test), DONE, "", weak, ("delete_files", {"paths": ["test_a.py"]}), DONE, "")
    files = ControlUnit(chat, book).run("x", ["write tests", "write code"])
    assert files.text("test_a.py") == test
    assert "nothing was changed" in chat.shown[4][-1].text and "may not be deleted" in chat.shown[5][-1].text
    unit = ControlUnit(Scripted(weak, DONE, ""), book)
    unit._open(None)
    unit.registry.add("loosen", may_change_tests=True)
    assert unit.run().text("test_a.py") != test


def test_bounds_hold_across_contexts_and_lives(book: Ledger) -> None:
    full = ContextOverflowError("full")
    unit = ControlUnit(Scripted(write("a", "1"), full, "half", write("a", "2"), full), book, budget=Budget(attempts=2))
    unit.run("x", ["s"])
    assert "overflowed" in unit.failed[0].summary and unit.failed[0].attempts == 2 and unit.files.text("a") == "2"
    unit.registry.add("more")
    with pytest.raises(ChatError, match="dies"):
        ControlUnit(Scripted("hm", "hm", ChatError("dies")), book, budget=Budget(turns=3)).run()
    unit = ControlUnit(Scripted("hm"), Ledger(book.store, SCOPE), budget=Budget(turns=3))
    unit.run()
    assert [(one.id, one.turns) for one in unit.failed] == [("s1", 2), ("s2", 3)]


def test_a_step_may_change_the_tests_that_it_wrote_itself_also_in_a_second_context(book: Ledger) -> None:
    full, test = ContextOverflowError("full"), "def test_a():\n    assert {}\n"
    chat = Scripted(
        write("test_a.py", test.format(1)), full, "", ChatError("dies"), write("test_a.py", test.format(2)), DONE, ""
    )
    with pytest.raises(ChatError, match="dies"):
        ControlUnit(chat, book).run("x", ["s"])
    assert ControlUnit(chat, Ledger(book.store, SCOPE)).run().text("test_a.py") == test.format(2)


def test_two_that_carry_out_one_run_do_not_mix_their_turns(book: Ledger) -> None:
    early = ControlUnit(Scripted(), Ledger(book.store, SCOPE))

    class Slow(Scripted):
        def reply(self, *given: Any, **named: Any) -> Reply:
            if len(self.shown) == 1:
                ControlUnit(Scripted(write("b", "theirs"), DONE, ""), Ledger(book.store, SCOPE)).run()
            return super().reply(*given, **named)

    with pytest.raises(ConflictError):
        ControlUnit(Slow(write("a", "mine"), write("b", "mine"), DONE, ""), book).run("x", ["s"])
    with pytest.raises(ConflictError):
        early.run("x", ["s"])
    files = ControlUnit(Scripted(), Ledger(book.store, SCOPE)).run()
    assert files.all() == {"task.md": "x", "a": "mine", "b": "theirs"}


def test_a_cut_reply_changes_no_file(book: Ledger) -> None:
    chat = Scripted(write("a", "whole"), (*write("a", "who"), True), DONE, "")
    assert ControlUnit(chat, book).run("x", ["s"]).text("a") == "whole"
    assert "cut at its limit" in chat.shown[2][-1].text


def test_the_task_cannot_be_changed_and_no_file_lies_outside(book: Ledger, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    bad = [
        write("task.md", "less"),
        write("../out", "x"),
        write("/tmp/out", "x"),
        ("read_file", {"path": "../s/holdfast.db"}),
    ]
    chat = Scripted(*bad, ("read_file", {"start": "1"}), ("nothing", {}), DONE, "")
    assert ControlUnit(chat, book).run("x", ["s"]).all() == {"task.md": "x"}
    assert all(shown[-1].text.startswith("error: ") for shown in chat.shown[1:7])
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before


def test_replies_that_cannot_be_read_are_asked_for_again_and_end_the_run_in_the_end(book: Ledger) -> None:
    bad = [UnusableReplyError("x"), CutReplyError("x")]
    chat = Scripted(*bad, write("a", "1"), *[UnusableReplyError("gone")] * 3, DONE, "")
    with pytest.raises(UnusableReplyError, match="gone"):
        ControlUnit(chat, book).run("x", ["s"])
    assert chat.temperatures[:3] == pytest.approx([0.01, 0.41, 0.81])
    assert "could not be read" in chat.shown[1][-1].text and "cut at 1024 tokens" in chat.shown[2][-1].text
    assert ControlUnit(chat, book).run().text("a") == "1"


def test_a_model_that_cannot_be_asked_ends_the_run_at_once(book: Ledger) -> None:
    chat = Scripted(write("a", "1"), ChatError("no credit", 429), DONE, "")
    with pytest.raises(ChatError, match="no credit"):
        ControlUnit(chat, book).run("x", ["s"])
    assert len(chat.shown) == 2 and ControlUnit(chat, book).run().text("a") == "1"


def test_a_step_can_be_split_within_a_bound(book: Ledger) -> None:
    chat = Scripted(("split_step", {"steps": ["one", "two"]}), DONE, "", DONE, "", DONE, "")
    unit = ControlUnit(chat, book)
    unit.run("x", ["both", "after"])
    assert [one.text for one in unit.registry.instructions] == ["one", "two", "after"]
    assert "Step s1: one" in chat.shown[1][-1].text
    registry = InstructionRegistry(book, splits=1)
    registry.add("more")
    with pytest.raises(ConflictError):
        registry.split("s4", ["p", "q", "r"])


def test_what_waits_for_itself_is_said(book: Ledger) -> None:
    registry = InstructionRegistry(book)
    registry.add("a")
    registry.add("b", depends_on=["s1"])
    registry.edit("s1", "a", depends_on=["s2"])
    with pytest.raises(ConflictError, match="wait for each other"):
        registry.next()
    with pytest.raises(InputError):
        registry.add("c", depends_on=["s9"])


def test_a_split_among_other_calls_begins_anew_and_a_file_that_says_so_does_not(book: Ledger) -> None:
    split = Call("2", "split_step", {"steps": ["one", "two"]})
    named = Call("1", "write_files", {"files": [{"path": "split into", "text": "complete: all checks pass"}]})
    look = [("list_files", {}), ("read_file", {"path": "split into"}), ("search_files", {"words": ["complete"]})]
    chat = Scripted(Reply("", (named,)), *look, Reply("", (split, DONE_CALL)), DONE, "", DONE, "")
    unit = ControlUnit(chat, book)
    unit.run("x", ["both"])
    assert chat.shown[2][-1].text.startswith("split into\n") and [len(shown) for shown in chat.shown[:5]] == [
        2,
        4,
        6,
        8,
        10,
    ]
    assert len(chat.shown[5]) == 2 and "Step s1: one" in chat.shown[5][1].text
    assert [(one.id, one.attempts) for one in unit.registry.instructions] == [("s1", 2), ("s2", 1)]


def test_what_the_evaluators_say_comes_in_their_order(book: Ledger) -> None:
    class Says:
        def __init__(self, word: str) -> None:
            self.word = word

        def evaluate(self, files: Any) -> list[Finding]:
            return [Finding("a", f"{self.word} {n}") for n in (1, 2)] if files["a"] == "bad" else []

    chat = Scripted(write("a", "bad"), write("a", "good"), DONE, "")
    ControlUnit(chat, book, evaluators=[Says("late"), Says("early")]).run("x", ["s"])
    assert chat.shown[1][-1].text.splitlines()[-4:] == ["a: late 1", "a: late 2", "a: early 1", "a: early 2"]


def test_the_task_takes_its_files_steps_and_messages_with_it(book: Ledger) -> None:
    unit = ControlUnit(Scripted(write("a", "the secret"), DONE, "the secret is in a"), book)
    assert unit.failed == [] and unit.registry.instructions == []
    unit.run("keep the secret", ["write the secret"])
    assert len(book.find(TURN, {})) == 6
    again = Ledger(book.store, SCOPE)
    ControlUnit(Scripted(write("b", "more"), DONE, ""), again).registry.add("and more")
    (task,) = book.cubes(TASK)
    book.store.purge([task.id], SCOPE)
    left = [cube for kind in (TASK, FILE, STEP, TURN) for cube in Ledger(book.store, SCOPE).find(kind, {})]
    assert left == []


def test_a_task_longer_than_a_window_is_planned_in_parts_also_by_a_run_that_died(book: Ledger) -> None:
    lines = [f"{n}: " + "word " * 60 for n in range(40)]
    parts: list[list[str]] = []

    class Planner(Scripted):
        def reply(self, messages: Sequence[Message], *, tools: Any = (), **options: Any) -> Reply:
            if [tool.name for tool in tools] != ["plan"]:
                return Reply("", (DONE_CALL,)) if tools else Reply("done")
            if len(parts) == 2 and not self.replies:
                self.replies.append("died")
                raise ChatError("dies")
            parts.append([line for line in lines if line in messages[1].text.split("\n")])
            first, known = messages[1].text.partition(" lines)")[0], f"{2 * len(parts) - 2} steps are planned"
            assert f"from line {sum(map(len, parts[:-1])) + 1}, {len(parts[-1])} of 40" in first
            assert known in messages[1].text
            own = f"s{2 * len(parts) - 1}"
            steps = [{"text": "one"}, {"text": "two", "depends_on": [own]}]
            return Reply("", (Call("1", "plan", {"steps": steps}),))

    chat = Planner()
    budget = Budget(window=2600, reply=400, read=900, report=200)
    lines = [line.strip() for line in lines]
    with pytest.raises(ChatError, match="dies"):
        ControlUnit(chat, book, budget=budget).run("\n".join(lines))
    unit = ControlUnit(chat, book, budget=budget)
    unit.run()
    assert [line for part in parts for line in part] == lines and len(parts) > 3
    assert len(unit.registry.instructions) == 2 * len(parts) and unit.registry.instructions[-1].depends_on


def test_a_run_with_a_program_goes_on_with_it_alone(book: Ledger) -> None:
    chat = Scripted(DONE, "", ChatError("dies"), DONE, "")
    long = "\n".join(["word " * 300] * 30)
    with pytest.raises(ChatError, match="dies"):
        ControlUnit(chat, book).run(long, ["one", "two"])
    unit = ControlUnit(chat, book)
    unit.run()
    assert [one.status for one in unit.registry.instructions] == [Stage.DONE, Stage.DONE] and not chat.replies


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([{"text": " "}], "s1 needs words"),
        ([{"text": "a", "depends_on": ["s1"]}], "s1 depends on s1"),
        ([{"text": "a"}, {"text": "b", "depends_on": ["s3"]}], "s2 depends on s3"),
        ([{"text": "word " * 9000}], "s1 is longer than"),
        ([{"words": "a"}], "'text' is a required property"),
        ([], "error: "),
    ],
)
def test_a_plan_that_cannot_be_taken_is_asked_for_again(book: Ledger, steps: Any, why: str) -> None:
    chat = Scripted(("plan", {"steps": steps}), "no", ("plan", {"steps": [{"text": "a"}]}), DONE, "")
    assert not ControlUnit(chat, book).run("x").all().keys() - {"task.md"}
    assert why in chat.shown[1][-1].text and chat.shown[2][-1].text == "error: call plan"
    assert len(chat.shown[2]) == 3  # what was wrong before is not said again


# --- contexts ---


def test_a_context_that_would_overflow_is_given_up_with_an_account_among_the_notes(book: Ledger) -> None:
    budget = Budget(window=2600, reply=400, read=900, report=200, free=300)
    read = ("read_file", {"path": "task.md"})
    chat = Scripted(read, read, "Half is done.", DONE, "all")
    unit = ControlUnit(chat, book, budget=budget)
    unit.run("long " * 700, ["read it all"])
    (step,) = unit.registry.instructions
    assert step.notes == ("Half is done.",) and step.attempts == 2 and step.status is Stage.DONE
    assert "So far: Half is done." in chat.shown[3][1].text and len(chat.shown[3]) == 2
    for shown in chat.shown:
        assert sum(cost(message, count_tokens) for message in shown) + 400 <= 2600
        for group in units(shown):
            assert group[0].role is not Role.TOOL, "a result without its call"
    book.store.purge([book.cubes("task")[0].id], SCOPE)


def test_a_context_that_the_model_says_is_full_is_given_up_in_the_same_way(book: Ledger) -> None:
    full = ContextOverflowError("full", 400)
    chat = Scripted(write("a", "1"), ("list_files", {}), full, full, "Half is done.", DONE, full, "all")
    unit = ControlUnit(chat, book)
    assert unit.run("x", ["s"]).text("a") == "1"
    (step,) = unit.registry.instructions
    assert (step.notes, step.attempts, step.summary) == (("Half is done.",), 2, "all")
    # The account, and the summary, were asked for once more without the oldest turn.
    assert [len(shown) for shown in chat.shown] == [2, 4, 6, 7, 5, 2, 5, 3]
    assert "So far: Half is done." in chat.shown[5][1].text


def test_a_model_that_cannot_hold_a_beginning_ends_the_run_with_a_word(book: Ledger) -> None:
    full = ContextOverflowError("full", 400)
    chat = Scripted(full, write("a", "1"), full, full, full)
    for _ in range(2):
        with pytest.raises(InputError, match="smaller than a window of 8192"):
            ControlUnit(chat, book).run("x", ["s"])
    chat = Scripted(full)
    unit = ControlUnit(chat, book, recover=False)
    unit.run()
    assert "overflowed" in unit.failed[0].summary and not chat.replies


def test_the_results_of_one_reply_do_not_fill_the_window(book: Ledger) -> None:
    reads = tuple(Call(str(n), "read_file", {"path": "task.md"}) for n in range(9))
    chat = Scripted(Reply("", reads), DONE, "")
    unit = ControlUnit(chat, book)
    unit.run("\n".join(["word " * 100] * 40), ["read"])
    results = chat.shown[1][3:]
    assert [result.answers for result in results] == [str(n) for n in range(9)]
    assert [result.text.startswith("task.md, lines 1") for result in results] == [True] * 3 + [False] * 6
    assert all("call it again" in result.text for result in results[3:])
    assert unit.registry.get("s1").attempts == 1


MESSAGES = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=3).map(
        lambda results: (
            [Message(Role.ASSISTANT, "a", tuple(Call(str(n), "t") for n in results))]
            + [Message(Role.TOOL, "r", answers=str(n)) for n in results]
        )
    )
    | st.just([Message(Role.USER, "u")]),
    max_size=6,
).map(lambda groups: [message for group in groups for message in group])


@given(MESSAGES, st.integers(0, 12))
def test_no_result_is_left_without_its_call(messages: list[Message], most: int) -> None:
    kept = without_oldest(messages, lambda some: len(some) <= most)
    assert len(kept) <= most and kept == messages[len(messages) - len(kept) :]
    called: set[str] = set()
    for message in kept:
        called |= {call.id for call in message.calls}
        assert message.role is not Role.TOOL or message.answers in called


def test_a_conversation_in_circles_grows_warm_and_cools(book: Ledger) -> None:
    look = ("list_files", {})
    chat = Scripted(look, look, look, ("read_file", {"path": "task.md"}), DONE, "")
    ControlUnit(chat, book).run("x", ["s"])
    assert chat.temperatures[:5] == pytest.approx([0.01, 0.01, 0.41, 0.81, 0.71])
    talk = [Message(Role.ASSISTANT, "a"), Message(Role.USER, "b")]
    assert repeats(talk * 2) and not repeats(talk) and heat(talk * 9, 0.01) == 1.0


def test_evaluators_that_say_much_are_cut(book: Ledger) -> None:
    class Loud:
        def evaluate(self, files: Any) -> list[str]:
            return ["x" * 5000, *["fault"] * 500] if "a" in files else []

    chat = Scripted(write("a", "1"), ("delete_files", {"paths": ["a"]}), DONE, "")
    ControlUnit(chat, book, evaluators=[Loud()]).run("x", ["s"])  # type: ignore[list-item]
    told = chat.shown[1][-1].text
    assert "501 faults" in told and "more" in told and count_tokens(told) < 560


# --- resuming ---


def test_a_run_that_dies_at_any_message_ends_as_one_that_does_not(tmp_path: Path) -> None:
    what = task(specification(8, 1))

    def run(name: str, lives: Callable[[int], int]) -> tuple[str, int, int]:
        died = 0
        while True:
            store, book = opened(tmp_path / name)
            try:
                unit = ControlUnit(
                    Scribe(0, lives(died)), book, evaluators=[PythonSyntax(), PythonTests(BOX)], budget=BUDGET
                )
                digest = unit.run(what).digest
                assert not store.verify()
                return digest, len(book.find(TURN, {})), died
            except SpentError:
                died += 1
            finally:
                store.close()

    whole = run("whole", lambda _: 99)
    for lives in (2, 3, 7):
        assert run(f"every {lives}", lambda _, lives=lives: lives)[:2] == whole[:2]  # type: ignore[misc]


class Died(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.parametrize(("lives", "written"), [(1, True), (2, False), (3, True)])
def test_a_run_that_dies_as_it_writes_ends_as_one_that_does_not(tmp_path: Path, lives: int, written: bool) -> None:
    what = task(specification(8, 1))

    def run(name: str, lives: int) -> tuple[str, int]:
        while True:
            store, book = opened(tmp_path / name)
            real, left = store.commit, [lives]

            def commit(*given: Any, real: Any = real, left: list[int] = left, **named: Any) -> Any:
                left[0] -= 1
                done = real(*given, **named) if left[0] or written else None
                if not left[0]:
                    raise Died
                return done

            store.commit = commit  # type: ignore[method-assign]
            try:
                files = ControlUnit(Scribe(0, 99), book, evaluators=[PythonSyntax()], budget=BUDGET).run(what)
                assert not store.verify()
                return files.digest, len(book.find(TURN, {}))
            except Died:
                pass
            finally:
                store.close()

    assert run("dies", lives) == run("whole", -1)


def test_a_reply_that_could_not_be_carried_out_left_nothing(book: Ledger) -> None:
    class Broken:
        def evaluate(self, files: Any) -> list[Finding]:
            raise SandboxError("not here")

    chat = Scripted(write("a", "1"), write("a", "2"), DONE, "")
    with pytest.raises(SandboxError):
        ControlUnit(chat, book, evaluators=[Broken()]).run("x", ["s"])
    again = Ledger(book.store, SCOPE)
    unit = ControlUnit(chat, again)
    assert unit.files.paths() == ["task.md"] and len(again.find(TURN, {})) == 2
    assert [one.version for one in unit.run().history("a")] == [1] and unit.files.text("a") == "2"


_PROCESS = """
import sys
from pathlib import Path
from holdfast.agent.control import ControlUnit
from holdfast.agent.evaluators import PythonSyntax
from holdfast.claims.l2mac_arms import BUDGET, ledger
from holdfast.claims.l2mac_model import Scribe
from holdfast.claims.l2mac_specs import specification, task
class Told(Scribe):
    def reply(self, *a, **k):
        print("asked", flush=True)
        return super().reply(*a, **k)
store, book = ledger(Path(sys.argv[1]))
print(ControlUnit(Told(0, 99), book, evaluators=[PythonSyntax()], budget=BUDGET).run(task(specification(8, 1))).digest, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL here")
def test_a_process_that_is_killed_is_resumed_by_another(tmp_path: Path) -> None:
    def run(name: str, after: int) -> str:
        with subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(tmp_path / name)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for seen, line in enumerate(child.stdout, 1):
                if line != "asked\n":
                    return line.strip()
                if seen == after:
                    child.send_signal(signal.SIGKILL)
        return ""

    store, book = opened(tmp_path / "whole")
    what = task(specification(8, 1))
    whole = ControlUnit(Scribe(0, 99), book, evaluators=[PythonSyntax()], budget=BUDGET).run(what).digest
    store.close()
    for after in (4, 3):
        assert run("killed", after) == ""
    assert run("killed", 0) == whole


# --- evaluators ---


def test_tests_run_in_the_sandbox_and_what_is_silent_has_failed() -> None:
    judge = PythonTests(BOX)
    files = {"m.py": "def f(x): return x + 1\n", "pkg/n.py": "n = 1\n"}
    good = {**files, "test_m.py": "from m import f\nfrom pkg.n import n\ndef test_f():\n    assert f(1) == 2\n"}
    assert judge.evaluate(good) == [] and PythonTests(BOX, needed=True).evaluate(files)
    unseen = {**good, "test_n.py": "class TestN:\n    def test_n(self):\n        assert 0\n"}
    assert [one.where for one in judge.evaluate(unseen)] == ["test_n.py"]
    assert judge.evaluate({"test_x.py": "def test_x(:\n"}) == []  # another evaluator says so
    bad = {**files, "test_m.py": "from m import f\ndef test_f():\n    assert f(1) == 3\ndef test_g(): g()\n"}
    found = [str(one) for one in judge.evaluate(bad)]
    assert len(found) == 2 and "assert f(1) == 3" in found[0] and "NameError" in found[1]
    assert [str(one) for one in judge.evaluate(bad)] == found  # no folder of the run in it
    for trick in ("import os; os._exit(0)", "raise SystemExit(0)", "print('[0, \"\"]'); import os; os._exit(0)"):
        assert judge.evaluate({"test_m.py": f"{trick}\ndef test_f():\n    assert 1\n"}), trick


@pytest.mark.skipif(Guarantee.READ in BOX.missing(), reason="files are not guarded here")
def test_what_a_test_writes_or_reads_stays_inside(tmp_path: Path) -> None:
    for code in (f"open({str(tmp_path / 'x')!r}, 'w')", "open('/etc/passwd')", "__import__('socket').socket()"):
        assert PythonTests(BOX).evaluate({"test_m.py": f"def test_f():\n    {code}\n"}), code
    assert list(tmp_path.iterdir()) == []


def test_documents_are_held_to_their_form() -> None:
    files = {"a.md": "# One\ntext\n## Two \nmore words here", "b.json": '{"n": 1, "t": ["a"]}'}
    assert SectionsPresent("a.md", ("One", "Two")).evaluate(files) == []
    assert "in its place" in str(SectionsPresent("a.md", ("Two", "One")).evaluate(files)[0])
    assert WordCount("a.md", 5, 20).evaluate(files) == []
    assert WordCount("a.md", 50).evaluate(files) and WordCount("a.md", 0, 3).evaluate(files)
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    assert JsonSchema("b.json", schema).evaluate(files) == []
    for text in ('{"n": true}', '{"n": 0}', "{}", "[", "[1]"):
        assert JsonSchema("b.json", schema).evaluate({"b.json": text}), text
    with pytest.raises(InputError, match="JSON Schema"):
        JsonSchema("b.json", {"properties": {"n": {"oneOf": []}}})


def test_a_schema_is_fetched_from_nowhere_and_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(socket.socket, "connect", never)
    elsewhere = JsonSchema("b.json", {"properties": {"n": {"$ref": "http://127.0.0.1:9/s.json"}}})
    with pytest.raises(InputError, match="cannot be used"):
        elsewhere.evaluate({"b.json": '{"n": 1}'})
    monkeypatch.setitem(sys.modules, "holdfast.encode.schemas", None)
    with pytest.raises(ImportError):
        JsonSchema("b.json", {})
    monkeypatch.delitem(sys.modules, "holdfast.encode.schemas")
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(MissingExtraError, match=r"holdfast\[llm\]"):
        JsonSchema("b.json", {})


def test_links_lead_to_files_and_headings_that_are_there() -> None:
    there = {
        "a.md": "# Big Plan!\n[b](d/b.md#two-words) [self](#big-plan) [web](https://x.org/y#z)\n```\n[no](no.md)\n```\n"
    }
    there["d/b.md"] = "## Two words\n[a](../a.md) [data](../x.json#3)"
    assert CrossReferences().evaluate({**there, "x.json": "{}"}) == []
    found = CrossReferences().evaluate({**there, "c.md": "[x](a.md#gone) [y](d/a.md) [z](../a.md)"})
    assert [one.where for one in found] == ["c.md", "c.md", "c.md", "d/b.md"]
    assert "no such heading" in found[0].what and "d/a.md, which is not there" in found[1].what
