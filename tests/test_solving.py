"""Puzzles: programs run in the sandbox alone, what fails is told, and only a pair that was not seen verifies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.sandbox import Limits, Sandbox
from holdfast.agent.solving import INSTRUCTION, Puzzle, rows, solve
from holdfast.bench.puzzles import Attempt, official, strict
from holdfast.chat import Message, Reply
from holdfast.encode.records import RUN
from holdfast.errors import InputError
from holdfast.recipes.concepts import concepts
from scribe import Scribe
from support import open_memory

LOWERED = {
    one: "this machine may do without it, for this test" for one, how in Sandbox().guarantees().items() if not how
}
BOX = Sandbox(Limits(cpu_s=1, wall_s=2.0), lowered=LOWERED)

FLIP = "def transform(grid):\n    return [row[::-1] for row in grid]"
GIVEN = [((1, 0), (2, 0)), ((3, 0), (0, 0)), ((4, 5), (0, 6))]
PAIRS = tuple((grid, tuple(row[::-1] for row in grid)) for grid in GIVEN)
PUZZLE = Puzzle(PAIRS, (((7, 8),),))
LEARNT = "def transform(grid):\n    known = {1: [[0, 1], [0, 2]], 3: [[0, 3], [0, 0]], 4: [[5, 4], [6, 0]]}\n    return known[grid[0][0]]"
SEEN = LEARNT.replace(", 4: [[5, 4], [6, 0]]", "")


class Scripted:
    def __init__(self, *codes: str) -> None:
        self.codes = codes
        self.asked: list[Sequence[Message]] = []

    def reply(self, messages: Sequence[Message], **options: Any) -> Reply:
        self.asked.append(messages)
        return Reply(f"thinking\n```python\n{self.codes[len(self.asked) - 1]}\n```")


def test_a_program_that_fits_what_it_was_not_shown_is_verified() -> None:
    chat = Scripted(FLIP)
    done = solve(chat, PUZZLE, guidance="(concepts)", runner=BOX)
    assert (done.fits, done.verified, done.outcome.reward) == (True, True, 1.0) and done.answers == (((8, 7),),)
    system, user = chat.asked[0]
    assert system.text == INSTRUCTION and user.text == f"(concepts)\n\n{PUZZLE.text}"
    assert rows(PAIRS[2][0]) not in user.text and rows(PAIRS[1][1]) in user.text and "7 8" in user.text
    assert done.trajectory.answer == FLIP and done.trajectory.task == PUZZLE.text


def test_outputs_learnt_by_heart_fit_and_are_not_verified() -> None:
    chat = Scripted(SEEN, LEARNT)
    done = solve(chat, PUZZLE, runner=BOX)
    assert (done.fits, done.verified, done.outcome.reward) == (True, False, None)
    feedback = chat.asked[1][-1].text
    assert rows(PAIRS[2][1]) in feedback and "KeyError: 4" in feedback and "Input 1" not in feedback
    assert done.answers == ("KeyError: 7",)
    two = solve(Scripted(FLIP), Puzzle(PAIRS[:2], (((7, 8),),)), runner=BOX)
    assert two.fits and two.outcome.succeeded is None, "two pairs are too few to hold one out"


def test_what_fails_is_told_and_the_last_attempt_alone() -> None:
    same, broken = "def transform(grid):\n    return grid", "def transform(grid):\n    return grid[9]"
    chat = Scripted(same, broken, "x = (")
    done = solve(chat, PUZZLE, runner=BOX)
    assert len(chat.asked) == 3 and not done.fits and done.outcome.reward == -1.0
    assert "Expected:\n0 1\n0 2\nProduced:\n1 0\n2 0" in chat.asked[1][-1].text
    assert "IndexError" in chat.asked[2][-1].text and same not in str(chat.asked[2])
    assert "SyntaxError" in done.steps[-1].observation and "Input 3" not in str(chat.asked), "it stays held out"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("while True: pass", "did not end in time"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("def transform(grid): return 'grid'", "ValueError"),
        ("def other(grid): return grid", "KeyError: 'transform'"),
        ("print('[[1]]')\ndef transform(grid): print(grid); return grid", "Produced:\n1 0"),
        ("import os; os._exit(0)", "did not end in time, or was stopped"),
    ],
)
def test_a_program_cannot_do_harm(code: str, why: str) -> None:
    assert why in solve(Scripted(code), PUZZLE, runner=BOX, passes=1).steps[0].observation


def test_only_what_was_verified_becomes_a_concept(tmp_path: Path) -> None:
    chat = Scribe(
        pseudocode=lambda data: {"pseudocode": data["steps"][:40], "summary": "flips"},
        concepts=lambda data: {"concepts": [{"name": "flip", "kind": "routine", "cues": ["mirrored"]}]},
        selection=lambda data: {"exploration": "", "names": ["flip"]},
    )
    with open_memory(tmp_path / "store", recipe="arcmemo", chat=chat, agent="solver") as memory:
        learnt = solve(Scripted(SEEN, LEARNT), PUZZLE, guidance=memory.provide(PUZZLE.text), runner=BOX)
        memory.take_in(learnt.trajectory, learnt.outcome)
        assert concepts(memory) == {}
        done = solve(Scripted(FLIP), PUZZLE, guidance=memory.provide(PUZZLE.text), runner=BOX)
        case = memory.take_in(done.trajectory, done.outcome).case
        assert concepts(memory)["flip"].used_in == (case,) and memory.get(case).data[RUN] == done.id
        told = memory.provide(PUZZLE.text)
        chatted = Scripted(FLIP)
        again = solve(chatted, PUZZLE, guidance=told, runner=BOX)
        assert again.served == tuple(hit.cube.ref for hit in told.hits) and "cue: mirrored" in chatted.asked[0][1].text


def test_errors_say_what_to_do() -> None:
    with pytest.raises(InputError, match="a puzzle has"):
        Puzzle((), (((1,),),))
    with pytest.raises(InputError, match="once or more"):
        solve(Scripted(FLIP), PUZZLE, runner=BOX, passes=0)


# --- scores ---


def test_scores_are_official_by_pair_and_strict_by_program() -> None:
    right, half, other = (
        Attempt((True,), (True, True)),
        Attempt((True,), (True, False)),
        Attempt((False,), (False, True)),
    )
    puzzles = [[half, other], [other, half, right], [right], []]
    assert official(puzzles) == pytest.approx((1 + 1 + 1 + 0) / 4) and strict(puzzles) == 1 / 4
    assert official(puzzles, 1) == pytest.approx((0.5 + 0.5 + 1) / 4) and strict(puzzles, 3) == 2 / 4
    assert strict([[Attempt((False,), (True,))]]) == 0 and official([[Attempt((False,), (True,))]]) == 1
    for wrong in ([], [[Attempt((), ())]], [[right, Attempt((True,), (True,))]]):
        with pytest.raises(InputError):
            official(wrong)
