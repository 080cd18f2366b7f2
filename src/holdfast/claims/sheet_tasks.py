"""The tasks of Dynamic Cheatsheet that have an exact checker: equation balancing (MIT), Game of 24 (MIT), and physics as a third.

Nothing here evaluates an answer as code: expressions are read as trees of numbers and four signs, and worked out in fractions.
"""

from __future__ import annotations

import ast
import csv
import json
import random
import re
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cache
from pathlib import Path

from holdfast.errors import ClaimError

EQUATIONS = "cheatsheet_tasks/math_equation_balancer.jsonl"
PHYSICS = "cheatsheet_tasks/mmlu_pro_physics.jsonl"
GAME = "game24/24.csv"
RANKS = (901, 1000)
"""The puzzles of Game of 24 that the literature uses."""


class Family(StrEnum):
    """A task; the word stands in its questions."""

    EQUATION = "Equation"
    GAME = "Game of 24"
    PHYSICS = "Physics"


@dataclass(frozen=True, slots=True)
class Question:
    """One question: its words, and what it is about (numbers and the target; for physics the letter)."""

    family: Family
    text: str
    numbers: tuple[int, ...] = ()
    target: int = 24
    letter: str = ""

    def right(self, answer: str) -> bool:
        """Whether an answer is right, exactly."""
        if self.family is Family.PHYSICS:
            return answer.strip().strip("()") == self.letter
        return self.formed(answer) and value(_left(answer)) == self.target

    def formed(self, answer: str) -> bool:
        """Whether an answer has the form that is asked for: these numbers, each once, an equation's in order, and no others."""
        if self.family is Family.PHYSICS:
            return re.fullmatch(r"\(?[A-J]\)?", answer.strip()) is not None
        left, _, rest = answer.partition("=")
        if not re.fullmatch(r"[\d\s+\-*/()]+", left) or "//" in left or "**" in left:
            return False
        found = [int(number) for number in re.findall(r"\d+", left)]
        if self.family is Family.EQUATION:
            return found == [*self.numbers] and "(" not in left and rest.strip() == str(self.target)
        return sorted(found) == sorted(self.numbers) and rest.strip() in ("", "24")


def load(data: Path | None) -> dict[Family, tuple[Question, ...]]:
    """All questions. Raises ClaimError where the data is not there."""
    if data is None or not all((data / name).is_file() for name in (EQUATIONS, PHYSICS, GAME)):
        raise ClaimError(
            "this claim runs on the tasks of Dynamic Cheatsheet and Game of 24: give --data, a folder that holds "
            f"{EQUATIONS}, {PHYSICS} and {GAME}"
        )
    with (data / GAME).open(encoding="utf-8", newline="") as file:
        puzzles = [row["Puzzles"] for row in csv.DictReader(file) if RANKS[0] <= int(row["Rank"]) <= RANKS[1]]
    return {
        Family.EQUATION: tuple(_equation(row["input"]) for row in _rows(data / EQUATIONS)),
        Family.GAME: tuple(_game(puzzle) for puzzle in puzzles),
        Family.PHYSICS: tuple(
            Question(Family.PHYSICS, f"Physics: {row['input']}", letter=row["target"].strip("()"))
            for row in _rows(data / PHYSICS)
        ),
    }


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _equation(row: str) -> Question:
    left, _, right = row.partition("=")
    text = f"Put +, -, * or / in the place of each question mark, so that it is true. Equation: {row}"
    return Question(Family.EQUATION, text, tuple(int(one) for one in left.split("?")), int(right))


def _game(row: str) -> Question:
    text = f"Make 24 of the four numbers, each used once, with +, -, *, / and brackets. Game of 24: {row}"
    return Question(Family.GAME, text, tuple(int(one) for one in row.split()))


def value(expression: str) -> Fraction | None:
    """What an expression of numbers, four signs and brackets comes to; None where it is none, or divides by zero."""
    try:
        return _worth(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _worth(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_worth(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _worth(node.left), _worth(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    raise ValueError("no expression of numbers and four signs")


def _left(answer: str) -> str:
    return answer.partition("=")[0]


# --- a solver without code: few trials at random ---


def guess(question: Question, trials: int, luck: random.Random) -> str:
    """The first of some random trials that comes out right, else the last; a letter at random for physics."""
    if question.family is Family.PHYSICS:
        return luck.choice("ABCDEFGHIJ")
    answer = ""
    for _ in range(trials):
        left = _equation_trial(question, luck) if question.family is Family.EQUATION else _game_trial(question, luck)
        answer = f"{left} = {question.target}"
        if _value(left) == question.target:
            break
    return answer


@cache
def _value(expression: str) -> Fraction | None:
    return value(expression)


def _equation_trial(question: Question, luck: random.Random) -> str:
    first, *rest = question.numbers
    return " ".join([str(first), *(f"{luck.choice('+-*/')} {number}" for number in rest)])


def _game_trial(question: Question, luck: random.Random) -> str:
    parts = [str(number) for number in luck.sample(question.numbers, 4)]
    while len(parts) > 1:
        at = luck.randrange(len(parts) - 1)
        parts[at : at + 2] = [f"({parts[at]} {luck.choice('+-*/')} {parts[at + 1]})"]
    return parts[0][1:-1]


# --- code that such a solver may come to write ---

_READ = {
    Family.EQUATION: """\
import re
from itertools import product

def solve(question):
    found = re.search(r"Equation: ([\\d ?]+) = (-?\\d+)", question)
    if found is None:
        return None
    numbers, target = found[1].split(" ? "), int(found[2])
    for signs in product("+-*/", repeat=len(numbers) - 1):
        left = numbers[0] + "".join(f" {sign} {number}" for sign, number in zip(signs, numbers[1:]))
""",
    Family.GAME: """\
import re
from itertools import permutations

def solve(question):
    found = re.search(r"Game of 24: ([\\d ]+)", question)
    if found is None:
        return None
    return search([(int(number), number) for number in found[1].split()])

""",
}


def _of_equation(test: str) -> str:
    return f'{_READ[Family.EQUATION]}{test}            return f"{{left}} = {{target}}"\n    return None'


def _of_game(test: str, together: str, over: str = "/") -> str:
    return f"""{_READ[Family.GAME]}def search(parts):
    if len(parts) == 1:
        return parts[0][1] + " = 24" if {test} else None
    for (one, left), (two, right), *rest in permutations(parts):
        for sign in "+-*/":
            if sign == "/" and two == 0:
                continue
            value = {{"+": one + two, "-": one - two, "*": one * two, "/": one {over} (two or 1)}}[sign]
            found = search([(value, {together}), *rest])
            if found:
                return found
    return None"""


_LEFT_TO_RIGHT = """\
        value = float(numbers[0])
        for sign, number in zip(signs, map(int, numbers[1:])):
            value = {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[sign]
        if abs(value - target) < 1e-9:
"""

SOUND: dict[Family, str] = {
    Family.EQUATION: _of_equation("        if abs(eval(left) - target) < 1e-9:\n"),
    Family.GAME: _of_game("abs(parts[0][0] - 24) < 1e-6", 'f"({left} {sign} {right})"'),
}
"""Brute force that is right."""

FAULTY: dict[Family, tuple[str, ...]] = {
    Family.EQUATION: (
        _of_equation(_LEFT_TO_RIGHT),  # wrong precedence
        _of_equation(
            '        if eval(left.replace("/", "//")) == target:\n'
        ),  # a quotient is taken for whole, unchecked
    ),
    Family.GAME: (
        _of_game("abs(parts[0][0] - 24) < 1e-6", 'f"{left} {sign} {right}"'),  # wrong precedence: no brackets
        _of_game("parts[0][0] == 24", 'f"({left} {sign} {right})"', "//"),  # a quotient is taken for whole, unchecked
    ),
}
"""Brute force with the two faults that the claim's sheet names."""

CHECKS: dict[Family, str] = {
    Family.EQUATION: """\

def check(question, answer):
    found = re.search(r"Equation: ([\\d ?]+) = (-?\\d+)", question)
    if found is None:
        return None
    left, _, right = answer.partition("=")
    same = re.findall(r"\\d+", left) == found[1].split(" ? ") and right.strip() == found[2]
    return same and abs(eval(left) - int(found[2])) < 1e-9""",
    Family.GAME: """\

def check(question, answer):
    found = re.search(r"Game of 24: ([\\d ]+)", question)
    if found is None:
        return None
    left = answer.partition("=")[0]
    same = sorted(re.findall(r"\\d+", left)) == sorted(found[1].split())
    return same and abs(eval(left) - 24) < 1e-6""",
}
"""What a curator writes beside them: what the question itself says of a right answer, worked out by Python."""
