"""The database tasks of LifelongAgentBench (in MemRL's repository, MIT), executed in SQLite, and an agent without a model for them.

The agent takes the statement of a like case and fits it to the table and the words at hand: names of columns by how alike they
are and where the words mention them, values in the order in which they are mentioned. What comes of it is executed and compared
with what the task's own statement gives, so a reward is no matter of opinion.
"""

from __future__ import annotations

import ast
import json
import math
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from holdfast.errors import ClaimError

FILE = "lifelongagentbench/db_bench_data.json"
_STEPS = 2_000_000
"""Of SQLite's machine: a statement that takes more is given up."""

_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\d+(?:\.\d+)?|[A-Za-z_]\w*|\s+|.", re.DOTALL)
_VALUE = re.compile(r"'((?:[^']|'')*)'|\"([^\"]*)\"|(?<![\w.-])(\d[\d,]*(?:\.\d+)?)|\b([a-z]+)\b", re.IGNORECASE)
_NUMBERS = dict(zip("one two three four five six seven eight nine ten".split(), range(1, 11), strict=True))


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns as (name, type), and its rows."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, of which table, the SQL skills that it needs, and the statement that does it."""

    text: str
    skills: frozenset[str]
    table: Table
    sql: str


def load(data: Path | None) -> list[Task]:
    """The 500 tasks, in the order of the file. Raises ClaimError where they are not there or laid out otherwise."""
    file = None if data is None else data / FILE
    if file is None or not file.is_file():
        raise ClaimError(
            f"this claim needs the database tasks of LifelongAgentBench, which are not packed: --data names a folder with {FILE}"
        )
    try:
        records: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return [_task(record) for record in records.values()]
    except (LookupError, TypeError, AttributeError, ValueError, SyntaxError) as error:
        raise ClaimError(f"{file.name} is not laid out as the tasks of LifelongAgentBench: {error}") from error


def _task(record: dict[str, Any]) -> Task:
    table, answer = _literal(record["table_info"]), _literal(record["answer_info"])
    columns = tuple((column["name"], column["type"]) for column in table["column_info_list"])
    rows = tuple(tuple(row) for row in table["row_list"])
    skills = frozenset(_literal(record["skill_list"]))
    return Task(record["instruction"], skills, Table(table["name"], columns, rows), answer["sql"])


def _literal(value: Any) -> Any:
    return ast.literal_eval(value) if isinstance(value, str) else value


# --- executing ---


def outcome(table: Table, sql: str) -> tuple[Any, ...] | None:
    """What a statement does to a fresh table: the rows that it selects, or those that it leaves; None where it fails.

    Rows are in no order, numbers rounded to 6 digits, so that equal outcomes are equal.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        named = ", ".join(f"{_quoted(name)} {_affinity(type)}" for name, type in table.columns)
        connection.execute(f"CREATE TABLE {_quoted(table.name)} ({named})")
        marks = ", ".join("?" * len(table.columns))
        into = f"INSERT INTO {_quoted(table.name)} VALUES ({marks})"  # noqa: S608 - an identifier, quoted
        connection.executemany(into, table.rows)
        left = [_STEPS // 10_000]

        def steps() -> int:
            left[0] -= 1
            return int(left[0] < 0)

        connection.set_progress_handler(steps, 10_000)
        try:
            found = connection.execute(sql).fetchall()
            if not sql.lstrip().upper().startswith("SELECT"):
                left_over = f"SELECT * FROM {_quoted(table.name)}"  # noqa: S608 - likewise
                found = connection.execute(left_over).fetchall()
        except (sqlite3.Error, sqlite3.Warning, OverflowError):
            return None
    return tuple(sorted((tuple(map(_rounded, row)) for row in found), key=repr))


def solves(task: Task, sql: str) -> bool:
    """Whether a statement does what the task's own does. A task whose own statement fails in SQLite cannot be solved."""
    wanted = outcome(task.table, task.sql)
    return wanted is not None and outcome(task.table, sql) == wanted


def _rounded(value: Any) -> Any:
    if isinstance(value, int | float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _affinity(type: str) -> str:
    return type if re.fullmatch(r"[A-Za-z ]+(?:\(\d+(?:,\s*\d+)?\))?", type) else "TEXT"


# --- adapting ---


def adapt(sql: str, before: Table, text: str, table: Table) -> str:
    """A statement on one table as it would be on another, for what a text asks."""
    tokens = _TOKEN.findall(sql)
    known = {name.lower() for name, _ in before.columns}
    used = list(dict.fromkeys(token.strip('`"').lower() for token in tokens if token.strip('`"').lower() in known))
    columns = _columns(used, before, text, table)
    words, numbers = _values(text)
    done = []
    for token in tokens:
        bare = token.strip('`"').lower()
        if bare == before.name.lower():
            done.append(table.name)
        elif bare in columns:
            done.append(columns[bare])
        elif token.startswith("'") and words:
            done.append("'" + words.pop(0) + "'")
        elif token[0].isdigit() and numbers:
            done.append(numbers.pop(0))
        else:
            done.append(token)
    return "".join(done)


def _columns(used: Sequence[str], before: Table, text: str, table: Table) -> dict[str, str]:
    """Which column stands for which: each in turn takes what is most alike, of its type, and mentioned about where it is."""
    types = {name.lower(): type for name, type in before.columns}
    folded = text.lower().replace("_", " ")
    places = {name: folded.find(name.lower().replace("_", " ")) for name, _ in table.columns}
    mentioned = sorted((name for name in places if places[name] >= 0), key=lambda name: places[name])
    found: dict[str, str] = {}
    for at, column in enumerate(used):

        def fit(name: str, type: str, at: int = at, column: str = column) -> float:
            order = mentioned.index(name) if name in mentioned else None
            near = 0.0 if order is None else 1.0 + 1.0 / (1 + abs(order - at))
            return near + float(type == types[column]) + SequenceMatcher(None, name.lower(), column).ratio()

        free = [(name, type) for name, type in table.columns if name not in found.values()] or list(table.columns)
        found[column] = max(free, key=lambda one: fit(*one))[0]
    return found


def _values(text: str) -> tuple[list[str], list[str]]:
    """The quoted words and the numbers that a text mentions, in order."""
    words, numbers = [], []
    for single, double, number, word in _VALUE.findall(text):
        if single or double:
            words.append((single or double).replace("'", "''") if double else single)
        elif number:
            numbers.append(number.replace(",", "").rstrip("."))
        elif word.lower() in _NUMBERS:
            numbers.append(str(_NUMBERS[word.lower()]))
    return words, numbers
