"""The examples run as their docstrings say, as programs of their own."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast import Memory

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def model():
    """A model that repeats the first memory that its prompt holds, and notes what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
            asked.append(prompt)
            known = [line for line in prompt.splitlines()[:-1] if "Lisbon" in line]  # the last line is the question
            message = {"role": "assistant", "content": f"I know: {known[0]}" if known else "I do not know."}
            body = json.dumps({"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    server.shutdown()
    server.server_close()


def chat(place: Path, url: str, *lines: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "chat.py"), "--user", "ana", "--model", "test", "--store", str(place / "chat")],
        input="\n".join(lines) + "\n",
        env=os.environ | {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_chat_remembers_explains_and_forgets(tmp_path: Path, model: tuple[str, list[str]]) -> None:
    pytest.importorskip("openai", reason="the extra llm is not installed")
    url, asked = model
    assert "I do not know." in chat(tmp_path, url, "/why", "I moved to Lisbon in May.")
    answered = chat(
        tmp_path, url, "Where do I live, Lisbon or Porto?", "/why", "/forget 00000000-0000-0000-0000-000000000000"
    )
    assert "I know:" in answered and "moved to Lisbon" in answered and "no memory 00000000" in answered
    assert "moved to Lisbon" in asked[-1]
    with Memory(tmp_path / "chat", user="ana", embedder=None, background=False) as memory:
        (source,) = [cube for cube in memory.select() if cube.text == "I moved to Lisbon in May."]
        derived = [ref.id for ref in memory.lineage(source.id)]
        assert any(memory.get(id).text.startswith("I know:") for id in derived), "the answer is made from what was said"
    chat(tmp_path, url, f"/forget {source.id}")
    with Memory(tmp_path / "chat", user="ana", embedder=None, background=False) as memory:
        assert not [cube for cube in memory.select() if cube.id in {source.id, *derived}]


@pytest.mark.parametrize(
    ("name", "needs", "words"),
    [
        ("langgraph_store", "langgraph", "['I moved to Lisbon in May']"),
        ("langchain_chat", "langchain_core", "I moved to Lisbon in May</memory>\n[('human', 'Where did I move to?'), ('ai', 'In Lisbon.')]"),
        ("llamaindex_block", "llama_index.core", "My cat is called Miso</memory>"),
        ("openai_agents_session", "agents", "I was given 1 items\nI was given 3 items\n"),
        ("anthropic_memory_tool", "anthropic", "Ana lives in Lisbon\n     2\t\nHere's the content of /memories/ana.md with line numbers:\n     1\tAna lives in Porto"),
        ("mem0_switch", "holdfast.adapters.mem0", "I moved to Lisbon in May\n['ADD', 'UPDATE']"),
    ],
)  # fmt: skip
def test_each_adapter_has_an_example_that_runs(
    name: str,
    needs: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(needs, reason="the extra adapters is not installed")
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "store")])
    runpy.run_path(str(EXAMPLES / "adapters" / f"{name}.py"), run_name="__main__")  # these libraries are slow to import
    assert words in capsys.readouterr().out
