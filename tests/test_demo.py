"""The demo, as a stranger runs it: every step computed, told in the right words, with and without an embedder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.demo import A_MONTH_EARLIER, TODAY
from holdfast.cli.sample import load
from holdfast.encode.embedders import default_embedder

SCRIPT = Path(sys.executable).with_name("holdfast")


def demo(folder: Path, *argv: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": str(columns), "HOLDFAST_STORE": str(folder / "mine"), "HOLDFAST_USER": "nobody"}
    return subprocess.run(
        [SCRIPT, "demo", *argv], capture_output=True, text=True, encoding="utf-8", timeout=300, env=env, cwd=folder
    )


@pytest.fixture(scope="module")
def lexical(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """One run by words only, kept in a store; its answer and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    done = demo(folder, "--json", "--embedder", "none", "--store", "kept")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return {**json.loads(done.stdout), "folder": folder}


def test_the_sample_is_small_whole_and_licensed() -> None:
    folder = Path(load.__code__.co_filename).parents[1] / "sample"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 300_000
    for name in ("LICENSE-LongMemEval", "LICENSE-MemoryBank"):
        assert (folder / name).read_text().startswith("MIT License")
    readme = (folder / "README.md").read_text()
    for commit in ("8fc9a9179f9170c4a40fc653fcb410375900f26e", "6dc5c8170f616cae408cc298713cb4f0829dff8a"):
        assert commit in readme
    for user, sessions, turns, questions in (("sam", 27, 115, 17), ("emily", 10, 98, 3)):
        sample = load(user)
        ids = [message["id"] for session in sample.sessions for message in session.messages]
        assert (len(sample.sessions), len(ids), len(sample.questions)) == (sessions, turns, questions)
        assert len(set(ids)) == len(ids)
        assert set().union(*(question.evidence for question in sample.questions)) <= set(ids)
        assert f"{sessions} " in readme and f"{turns} turns" in readme


def check(answer: dict[str, object]) -> None:
    """What must hold of every run."""
    assert answer["remember"]["conversations"] == 37 and answer["remember"]["turns"] == 213
    assert answer["undo"]["recalled_before"] is True and answer["undo"]["recalled_after"] is False
    assert answer["undo"]["history"] == ["add", "undo"] and len(answer["undo"]["drawn"]) >= 1
    then, now = answer["as_of"]["answers"][A_MONTH_EARLIER], answer["as_of"]["answers"][TODAY[:10]]
    assert "living room" in then["text"] and then["said"] < A_MONTH_EARLIER
    assert "above my bed" in now["text"] and now["said"] > A_MONTH_EARLIER
    assert answer["walls"]["of_others"] == 0
    assert answer["forget"]["verified"] is True and answer["forget"]["recalled_after"] is False
    assert len(answer["forget"]["receipt"]["erased"]) >= 2
    assert answer["verify"]["intact"] is True


def test_it_works_by_words_only(lexical: dict[str, object]) -> None:
    check(lexical)
    assert lexical["embedder"] is None
    assert lexical["recall"]["in_first_five"] >= 14 and lexical["recall"]["first"] >= 12


def test_it_reads_well(tmp_path: Path) -> None:
    done = demo(tmp_path, "--embedder", "none")
    assert done.returncode == 0 and done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80 and "\x1b" not in done.stdout
    told = " ".join(done.stdout.split())
    for words in (
        "37 conversations, 213 turns, 2023-03-11 to 2023-11-30",
        "I graduated with a degree in Business Administration",
        "45 minutes each way",
        "Roscioli",
        "my cat's name is Whiskers",
        "status: generated → archived",
        f"on {A_MONTH_EARLIER}: 1",
        "None of what comes back is Sam's",
        "no row, no index entry and no byte of their words is left",
        "No memory of Dr. Smith is left.",
        "every one fits the one before it",
    ):
        assert words in told, words
    assert ": a fault" not in told
    headings = re.findall(r"^(\d)  [A-Z]", done.stdout, re.MULTILINE)
    assert headings == list("12345678")
    assert list(tmp_path.iterdir()) == []  # the temporary store is gone, and the environment's was left alone


@pytest.mark.skipif(default_embedder() is None, reason="the offline embedder is not installed")
def test_meaning_finds_at_least_what_words_find(tmp_path: Path, lexical: dict[str, object]) -> None:
    answer = json.loads(demo(tmp_path, "--json", columns=120).stdout)
    check(answer)
    assert answer["embedder"]
    assert answer["recall"]["in_first_five"] >= lexical["recall"]["in_first_five"]


def test_its_store_can_be_used_on(lexical: dict[str, object]) -> None:
    folder = lexical["folder"]

    def holdfast(*argv: str) -> str:
        command = [SCRIPT, "--embedder", "none", "--store", "kept", "--user", "sam", *argv]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, timeout=60).stdout

    hits = json.loads(holdfast("search", "how long is my commute", "--json"))["hits"]
    assert "45 minutes" in hits[0]["text"]
    assert json.loads(holdfast("doctor", "--json"))["ok"] is True
    painting = json.loads(holdfast("as-of", A_MONTH_EARLIER, "where does Ethereal Dreams hang", "--json"))["hits"]
    assert "living room" in painting[0]["text"]
    again = demo(folder, "--store", "kept")
    assert again.returncode == 2 and "holds a store already" in again.stderr and again.stdout == ""


def test_the_sample_is_a_chat_file(tmp_path: Path) -> None:
    file = Path(load.__code__.co_filename).parents[1] / "sample" / "emily.json"
    command = [SCRIPT, "--embedder", "none", "--store", str(tmp_path / "s"), "--user", "emily", "import", str(file)]
    done = subprocess.run([*command, "--backdate", "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["added"] == 98
