"""A long task from the command line, with a model behind a real server that fails midway."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main


def calls(*made: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": f"c{at}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for at, (name, arguments) in enumerate(made)
        ],
    }


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


BROKEN = calls(("write_files", {"files": [{"path": "greet.py", "text": "def greet(:\n    return 'hello'\n"}]}))
MENDED = calls(("patch_file", {"path": "greet.py", "diff": "@@ -1 +1 @@\n-def greet(:\n+def greet():\n"}))
DONE = calls(("step_complete", {}))


class Model:
    """A server that gives its replies in order; None is an error of the server's."""

    def __init__(self) -> None:
        self.replies: list[dict[str, Any] | None] = []
        self.asked: list[dict[str, Any]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                model.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                message = model.replies.pop(0)
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
                body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                sent = json.dumps({**body, "usage": usage} if message else {"error": {"message": "bad key"}}).encode()
                self.send_response(200 if message else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def model() -> Iterator[Model]:
    one = Model()
    yield one
    one.close()


@pytest.fixture
def command(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("HOLDFAST_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HOLDFAST_USER", "ana")
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "steps.txt").write_text("Write greet.py.\n\n")
    return ["run", "--model", "m", "--base-url", model.url]


def test_a_run_that_failed_midway_goes_on_where_it_stopped(
    tmp_path: Path, model: Model, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    program = ["--program", str(tmp_path / "steps.txt"), "--check", "syntax"]
    model.replies = [BROKEN, None]
    assert main([*command, "Write a module that greets.", *program]) == 1
    out, err = capsys.readouterr()
    assert "running" in out and "greet.py" in out
    assert "go on with: holdfast run --resume run-1 --model m" in err
    model.replies = [MENDED, DONE, says("greet.py defines greet().")]
    assert main([*command, "--resume", "run-1", "--check", "syntax", "--export", str(tmp_path / "made")]) == 0
    out, _ = capsys.readouterr()
    assert "greet.py defines greet()." in out and "3 calls" in out
    assert (tmp_path / "made" / "greet.py").read_text() == "def greet():\n    return 'hello'\n"
    assert not model.replies, "and nothing was asked twice"
    assert main([*command, "--resume", "run-1", "--json"]) == 0, "a run that is done stays done"
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], [one["status"] for one in told["steps"]], told["usage"]["calls"]) == ("run-1", ["done"], 0)


def test_each_run_has_a_name_of_its_own(
    tmp_path: Path, model: Model, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "task.md"
    task.write_text("Say hello.\n")
    steps = ["--program", str(tmp_path / "steps.txt")]
    for name, options in (("run-1", []), ("run-2", []), ("mine", ["--name", "mine"])):
        model.replies = [DONE, says("nothing was needed")]
        assert main([*command, f"@{task}", *steps, *options, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["run"] == name
    assert main([*command, "Again.", "--name", "mine"]) == 2
    assert "go on with it by --resume mine" in capsys.readouterr().err
    assert main([*command, "--resume", "his"]) == 2
    assert "there are mine, run-1, run-2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a task, or --resume NAME"),
        (["A task", "--resume", "run-1"], "give a task, or --resume NAME"),
        (["--resume", "run-1", "--name", "x"], "has its name and its program"),
        (["@missing.md"], "missing.md cannot be read"),
        (["A task", "--session", "s"], "not with --session"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    model: Model, command: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *words]) == 2
    assert said in capsys.readouterr().err
    assert model.asked == []


@pytest.mark.parametrize(
    ("check", "faulty", "mended", "fault"),
    [
        ("syntax", {"a.py": "x ="}, {"a.py": "x = 1\n"}, "SyntaxError"),
        (
            "tests",
            {"test_a.py": "def test_a():\n    assert 1 == 2\n"},
            {"test_a.py": "def test_a():\n    pass\n"},
            "test_a",
        ),
        ("links", {"a.md": "[there](b.md)\n"}, {"a.md": "# A\n\n[here](#a)\n"}, "b.md"),
    ],
)
def test_what_a_check_finds_is_mended_before_a_step_is_done(
    tmp_path: Path,
    model: Model,
    command: list[str],
    check: str,
    faulty: dict[str, str],
    mended: dict[str, str],
    fault: str,
) -> None:
    def written(files: dict[str, str]) -> dict[str, Any]:
        return calls(("write_files", {"files": [{"path": path, "text": text} for path, text in files.items()]}))

    model.replies = [written(faulty), DONE, written(mended), DONE, says("made")]
    steps = ["--program", str(tmp_path / "steps.txt"), "--check", check, "--export", str(tmp_path / "made")]
    assert main([*command, "Make it.", *steps]) == 0
    assert not model.replies
    assert fault in json.dumps(model.asked[2]["messages"][-1]), "what the check found is told at once"
    made = {path.name: path.read_text() for path in (tmp_path / "made").iterdir()}
    assert made == {**mended, "task.md": "Make it."}
