"""The real records that attacks are made of: a packaged sample, or the full sets in a folder.

The folder has the sets as their authors publish them, each in a folder of its own: ``agentpoison_react`` (the agent memory of
AgentPoison on StrategyQA), ``conflictqa``, ``hotpotqa``, and ``injections`` (PoisonedRAG and Agent Security Bench).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from holdfast.errors import InputError

SAMPLE = "redteam.json"


@dataclass(frozen=True, slots=True)
class Looked:
    """A question that an agent has answered by looking a term up."""

    question: str
    term: str
    answer: bool


@dataclass(frozen=True, slots=True)
class Disputed:
    """A question with two opposite answers, and two passages for each."""

    question: str
    answers: tuple[str, str]
    passages: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Fabricated:
    """A question with its answer, a wrong one, and the passages that were made up for that."""

    question: str
    right: str
    wrong: str
    passages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Role:
    """An agent with a job: its tasks, its tools, and the attackers' tools with what each is ordered to do."""

    name: str
    tasks: tuple[str, ...]
    tools: tuple[str, ...]
    hostile: tuple[tuple[str, str], ...]


class Records:
    """Reads one set at a time, when it is asked for. Raises InputError for a file that is missing or is not what it should be."""

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise InputError(f"there is no folder {folder}; --data takes the one that holds the data sets")
        self._folder = folder

    @property
    def full(self) -> bool:
        """Whether these are the full sets."""
        return self._folder is not None

    @cached_property
    def looked(self) -> tuple[Looked, ...]:
        """StrategyQA questions as the agent of AgentPoison remembers them (MIT)."""
        rows = self._json("agentpoison_react/strategyqa_train_filtered.json", "strategyqa")
        with _laid_out("agentpoison_react"):
            return tuple(Looked(row["question"], row["term"], bool(row["answer"])) for row in rows)

    @cached_property
    def disputed(self) -> tuple[Disputed, ...]:
        """ConflictQA on StrategyQA (Apache-2.0). Which side is true does not matter to an attack: the first is the store's."""
        keys = (
            "parametric_memory",
            "parametric_memory_aligned_evidence",
            "counter_memory",
            "counter_memory_aligned_evidence",
        )
        rows = self._lines("conflictqa/conflictQA-strategyQA-llama2-7b.json", "conflictqa")
        found: dict[str, Disputed] = {}
        with _laid_out("conflictqa"):
            for row in rows:
                some = [" ".join(row[key].split()) for key in keys]
                if all(some) and row["memory_answer"] != row["counter_answer"]:
                    answers = row["memory_answer"], row["counter_answer"]
                    one = Disputed(row["question"], answers, (tuple(some[:2]), tuple(some[2:])))
                    found.setdefault(one.question, one)
        return tuple(found.values())

    @cached_property
    def fabricated(self) -> tuple[Fabricated, ...]:
        """The questions of PoisonedRAG (MIT), of every ``poisonedrag_*.json`` that is there."""
        if self._folder is None:
            rows: Iterable[Mapping[str, Any]] = self._sample["poisonedrag"]
        else:
            there = sorted((self._folder / "injections").glob("poisonedrag_*.json"))
            sets = [self._json(f"injections/{file.name}", "") for file in there or [Path("poisonedrag_hotpotqa.json")]]
            with _laid_out("poisonedrag"):
                rows = [row for some in sets for row in some.values()]
        with _laid_out("poisonedrag"):
            return tuple(
                Fabricated(row["question"], row["correct answer"], row["incorrect answer"], tuple(row["adv_texts"]))
                for row in rows
            )

    @cached_property
    def paragraphs(self) -> tuple[tuple[str, str], ...]:
        """Titles and paragraphs of HotpotQA's distractor setting (CC BY-SA: only from the folder; none in the sample)."""
        if self._folder is None:
            return ()
        rows = self._lines("hotpotqa/distractor_100.jsonl", "")
        with _laid_out("hotpotqa"):
            found = {title: " ".join("".join(some).split()) for row in rows for title, some in row["context"]}
        return tuple((title, text) for title, text in found.items() if text)

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """The ten agents of Agent Security Bench (MIT) with the attack tools of every file that is there."""
        if self._folder is None:
            return tuple(
                Role(one["agent"], tuple(one["tasks"]), tuple(one["tools"]), tuple(map(tuple, one["hostile"])))
                for one in self._sample["asb"]
            )
        there = sorted((self._folder / "injections").glob("asb_all_attack_tools*.jsonl"))
        hostile, tools = defaultdict[str, dict[str, str]](dict), defaultdict[str, list[str]](list)
        with _laid_out("asb"):
            for file in there or [Path("asb_all_attack_tools.jsonl")]:
                for row in self._lines(f"injections/{file.name}", ""):
                    hostile[row["Corresponding Agent"]].setdefault(row["Attacker Tool"], row["Attacker Instruction"])
            for row in self._lines("injections/asb_all_normal_tools.jsonl", ""):
                tools[row["Corresponding Agent"]].append(row["Tool Name"])
            return tuple(
                Role(name, tuple(row["tasks"]), tuple(tools[name]), tuple(hostile[name].items()))
                for row in self._lines("injections/asb_agent_task.jsonl", "")
                if (name := row["agent_name"])
            )

    # --- files ---

    @cached_property
    def _sample(self) -> dict[str, Any]:
        sample: dict[str, Any] = json.loads(files("holdfast").joinpath("sample", SAMPLE).read_text(encoding="utf-8"))
        return sample

    def _json(self, path: str, part: str) -> Any:
        return self._sample[part] if self._folder is None else _read(self._folder / path, json.loads)

    def _lines(self, path: str, part: str) -> Sequence[Mapping[str, Any]]:
        if self._folder is None:
            rows: list[Mapping[str, Any]] = self._sample[part]
            return rows
        lines: list[Mapping[str, Any]] = _read(self._folder / path, _by_line)
        return lines


def _by_line(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


@contextmanager
def _laid_out(what: str) -> Iterator[None]:
    """Says in one line which set is not as its authors publish it."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the data of {what} are not laid out as published: {type(error).__name__}: {error}"
        ) from error


def _read(file: Path, parse: Any) -> Any:
    if not file.is_file():
        raise InputError(f"there is no {file}; the attack needs it, or leave --data out to use the packaged sample")
    try:
        return parse(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file} is not JSON: {error}") from error
