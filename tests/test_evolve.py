"""``holdfast evolve``, from tasks that a user brings to a recipe that a memory takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast import Memory
from holdfast.bench.arena import Task
from holdfast.bench.task_files import Answering, brought
from holdfast.chat import Reply
from holdfast.cli import main
from holdfast.errors import ChatError, InputError
from holdfast.recipes.base import Guidance
from holdfast.recipes.book import opened
from test_chat import said, serve  # noqa: F401  (a fixture)

LOCKS = """
from holdfast.claims.memevolve_world import Family, Locksmith, World

class Dishes(Locksmith):
    tasks = World(Family.DISHES, 0).tasks(60)

    def __init__(self):
        super().__init__(0)
"""


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "locks_of_a_user.py").write_text(LOCKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "locks_of_a_user", raising=False)
    return "locks_of_a_user:Dishes"


def test_from_a_class_to_a_recipe(locks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--rounds", "2", "--batch", "12", "--children", "2", "--embedder", "none"]
    argv = ["evolve", "--tasks", locks, *small, "--out", "found", "--json"]
    assert main(argv) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["recipe"] for one in report["sealed"]][:2] == ["no memory", "cases"]
    assert report["sealed tasks"] == 60 - 20
    assert len(report["rounds"]) == 2
    assert (tmp_path / "found" / "front.png").read_bytes().startswith(b"\x89PNG")
    winner = opened("found/winner.json")
    assert winner.name == report["winner"]["name"]
    with Memory("store", user="ana", agent="a", recipe="found/winner.json", embedder=None, background=False) as memory:
        assert memory.provide("make the fried dish").text == ""
    runs = (tmp_path / "found" / "runs.jsonl").read_text()
    assert main(argv) == 0, "what is done is not done again"
    again = json.loads(capsys.readouterr().out)
    assert (tmp_path / "found" / "runs.jsonl").read_text() == runs
    assert again["winner"] == report["winner"]
    assert main(argv[:-1]) == 0
    assert "The winner does" in capsys.readouterr().out


def test_from_lines_done_by_a_model_behind_an_endpoint(serve: Any, tmp_path: Path, capsys: Any) -> None:  # noqa: F811
    server = serve(said('{"thoughts": "capitals", "answer": "Paris!"}'))
    tasks = [{"task": f"What is the capital of France? ({n})", "answers": ["paris", "Lutetia"]} for n in range(9)]
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, tasks)))
    argv = [
        "evolve",
        "--tasks",
        str(path),
        "--model",
        "m",
        "--base-url",
        server.url,
        "--api-key",
        "k",
        "--embedder",
        "none",
    ]
    assert main([*argv, "--rounds", "1", "--batch", "3", "--children", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["rate"] for one in report["sealed"]] == [1.0] * len(report["sealed"])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--tasks", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
        (["--tasks", "locks_of_a_user:Nobody"], "there is no class Nobody"),
        (["--tasks", "no_such_module:Nobody"], "there is no class Nobody in the module no_such_module"),
        (["--tasks", "locks_of_a_user:Dishes", "--rounds", "9"], "reads 380 tasks"),
        (["--tasks", "locks_of_a_user:Dishes", "--recipe", "nope"], "there is no recipe 'nope'"),
        (["--tasks", "locks_of_a_user:Dishes", "--base-url", "http://x"], "Name it with --model"),
        (["--tasks", "t.jsonl"], "name one with --model"),
    ],
)
def test_what_is_wrong_is_said(locks: str, argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.jsonl").write_text('{"task": "x", "answer": "y"}')
    assert main(["evolve", *argv, "--embedder", "none"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", "there are no tasks"),
        ("{", "line 1 is not JSON"),
        ('{"task": " ", "answer": "y"}', 'line 1 has no "task"'),
        ('{"task": "x"}', 'line 1 has no "answer"'),
        (
            '{"task": "x", "answer": "y", "id": "1"}\n\n{"task": "z", "answer": "y", "id": 1}',
            "two tasks have the id '1'",
        ),
    ],
)
def test_lines_that_are_no_tasks(tmp_path: Path, lines: str, says: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(lines)
    with pytest.raises(InputError, match=says):
        brought(str(path), Says("x"))


class Says:
    """A chat model that says one thing, or fails."""

    def __init__(self, text: str) -> None:
        self.text = text

    def reply(self, *_: Any, **__: Any) -> Reply:
        if not self.text:
            raise ChatError("it is down")
        return Reply(self.text)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"thoughts": "", "answer": "  NEW york. "}', True),
        ('{"thoughts": "", "answer": "York"}', False),
        ("New York", False),
        ("[1]", False),
        ("", False),
    ],
)
def test_an_answer_is_right_whatever_its_case_and_marks(text: str, right: bool) -> None:
    task = Task("1", "Which city?", data={"answers": ("New York",)})
    attempt = Answering(Says(text)).attempt(task, lambda phase, context: Guidance())
    assert attempt.succeeded is right
    assert attempt.outcome.succeeded is right
