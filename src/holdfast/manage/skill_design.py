"""The designer of memory skills: from questions that failed, a language model works out what is missing and proposes changes of the
bank (MemSkill, arXiv 2602.02474 §3.5).

First it names patterns of failure, thinking them over twice; then it proposes at most three changes: a new skill, or other words
for one. What it reads of cases was said by anybody, so what it writes is checked, shown as a diff, and changes nothing by itself: a
bank is changed by who approves (``Proposal.bank``), and only kept where it then does better.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from holdfast.chat import Chat
from holdfast.cube import Form
from holdfast.encode.skill_files import write_skill
from holdfast.encode.skills import (
    LONGEST_DESCRIPTION,
    LONGEST_INSTRUCTION,
    Edits,
    Skill,
    SkillBank,
)
from holdfast.encode.writing import TEXT, write
from holdfast.errors import InputError
from holdfast.manage.skill_failures import Case
from holdfast.taxonomy import Evolution, Function, MemoryProfile, Subform, Subject, Trainable

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.SKILLS,),
    evolution=(Evolution.UPDATE_EXTERNAL,),
    subject=(Subject.AGENT,),
    trainable=Trainable.ASSISTED,
)

MOST, TRIES, THOUGHTS = 3, 3, 3
"""Changes of one proposal; askings for one that can be used; readings of the cases, each with the one before."""
CAUSES = ("storage_failure", "retrieval_failure", "memory_quality_failure")

_PLACEHOLDER = re.compile(
    r"\{\{?[^{}\n]{0,80}\}?\}|<[A-Za-z_ ]{1,40}>|\[(?:insert|your|todo)[^\]\n]{0,60}\]", re.IGNORECASE
)
_REACHES_OUT = re.compile(r"\b(?:https?://|www\.|mailto:)|\bACTION\s*:", re.IGNORECASE)

_ANALYSE = (
    "Questions about a history were answered from a memory that skills had written, and these answers were wrong. Find out why, by "
    "kind of question: was what the answer needs never stored, was it stored and not found, or was it stored badly? Name each "
    "pattern, the cases that show it, its cause and what would mend it. Where there is a draft, think it over and improve it."
)
_PROPOSE = (
    f"Propose at most {MOST} changes to the bank of memory skills that mend these failures: a new skill where no skill of the bank "
    "covers what was missed, or other words for one that covers it badly. A skill's description says in one line what texts it "
    "applies to, for it is chosen by that. Its instruction has the sections Purpose, When to use, How to apply and Constraints, "
    "stands by itself, and holds no placeholders. Propose nothing that has failed before, and no change where none helps."
)


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a bank: a ``new`` skill, or other words for the one of its name. ``why`` is the designer's word."""

    skill: Skill
    new: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Changes that somebody may approve."""

    before: SkillBank
    changes: tuple[Change, ...]
    analysis: Mapping[str, Any]

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def bank(self) -> SkillBank:
        """The bank with the changes made. Raises InputError where one cannot be made."""
        bank = self.before
        for change in self.changes:
            if change.new:
                bank = bank.add(change.skill)
            else:
                words = change.skill
                bank = bank.refine(words.name, description=words.description, instruction=words.instruction)
        return bank

    @property
    def diff(self) -> str:
        """What the changes come to, as a unified diff of the skills."""
        after = self.bank
        old, new = ({skill.name: write_skill(skill) for skill in bank.skills} for bank in (self.before, after))
        parts: list[str] = []
        for name in sorted({*old, *new}):
            lines = old.get(name, "").splitlines(), new.get(name, "").splitlines()
            parts += difflib.unified_diff(*lines, f"{name} (before)", f"{name} (proposed)", lineterm="")
        return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class SkillDesigner:
    """Proposes changes of a bank, by a chat model."""

    model: Chat

    def propose(
        self, groups: Sequence[Sequence[Case]], bank: SkillBank, failed: Sequence[Sequence[Change]] = ()
    ) -> Proposal:
        """The changes that mend the failures in ``groups`` (``skill_failures.chosen``); none where there is nothing to mend.

        ``failed``: what was tried before, and did not do better. Where three proposals in a row do not stand the checks, the
        last one's sound changes are proposed. Raises ChatError.
        """
        if not groups:
            return Proposal(bank, (), {})
        skills = [_told(skill) for skill in bank.skills]
        cases = [
            {
                "cluster": number,
                "question": case.question,
                "right_answer": case.answer,
                "given_answer": case.given,
                "memories": list(case.memories),
                "evidence": list(case.evidence),
                "failed": case.fails,
            }
            for number, group in enumerate(groups, 1)
            for case in group
        ]
        analysis: dict[str, Any] = {}
        for _ in range(THOUGHTS):
            data = {"cases": cases, "skills": skills, **({"draft": analysis} if analysis else {})}
            analysis = write(self.model, "failures", _ANALYSE, data, _FAILURES)
        tried = [[_told(change.skill) for change in changes] for changes in failed]
        refused: list[str] = []
        changes: list[Change] = []
        for _ in range(TRIES):
            data = {"analysis": analysis, "skills": skills, "failed": tried, "refused": refused}
            found = write(self.model, "changes", _PROPOSE, data, _CHANGES)
            wanted = found["changes"] if found["action"] == "apply_changes" else []
            changes, refused = checked(wanted, bank)
            if not refused:
                break
        return Proposal(bank, tuple(changes), analysis)


def checked(wanted: Sequence[Mapping[str, Any]], bank: SkillBank) -> tuple[list[Change], list[str]]:
    """The changes that may be made, and what is wrong with the others."""
    changes: list[Change] = []
    refused: list[str] = []
    for record in wanted[:MOST]:
        try:
            change = _change(record, bank)
            Proposal(bank, (*changes, change), {}).bank  # noqa: B018  (it raises where they cannot all be made)
        except InputError as error:
            refused.append(str(error))
        else:
            changes.append(change)
    return changes, refused


def _change(record: Mapping[str, Any], bank: SkillBank) -> Change:
    new = record["type"] == "add_new"
    old = None if new else bank.named(record["name"])
    description = " ".join(str(record.get("description") or (old.description if old else "")).split())
    instruction = str(record.get("instruction") or (old.instruction if old else "")).strip()
    for text in (description, instruction):
        if found := _PLACEHOLDER.search(text):
            raise InputError(f"the skill {record['name']!r} holds the placeholder {found[0][:40]!r}")
        if found := _REACHES_OUT.search(text):
            raise InputError(f"the skill {record['name']!r} holds {found[0]!r}, which has no place in a skill")
    if old is None:
        if record.get("edits") not in (Edits.INSERT, Edits.UPDATE):
            raise InputError(f"the new skill {record['name']!r} makes insert or update, not {record.get('edits')!r}")
        skill = Skill(str(record["name"]), description, instruction, Edits(record["edits"]))
    else:
        skill = Skill(old.name, description, instruction, old.edits, old.number)
        if skill == old:
            raise InputError(f"the change of {old.name} changes nothing")
    return Change(skill, new, str(record.get("reasoning", "")))


def _told(skill: Skill) -> dict[str, str]:
    return {key: str(value) for key, value in asdict(skill).items() if key != "number"}


_FAILURES = {
    "failure_patterns": {
        "type": "array",
        "maxItems": 8,
        "items": {
            "type": "object",
            "properties": {
                "pattern_name": TEXT,
                "affected_cases": {"type": "array", "items": TEXT},
                "root_cause": {"enum": list(CAUSES)},
                "explanation": TEXT,
                "potential_fix": TEXT,
            },
            "required": ["pattern_name", "affected_cases", "root_cause", "explanation", "potential_fix"],
            "additionalProperties": False,
        },
    },
    "recommendations": {"type": "array", "items": TEXT},
    "summary": TEXT,
}
_CHANGES = {
    "action": {"enum": ["apply_changes", "no_change"]},
    "changes": {
        "type": "array",
        "maxItems": MOST,
        "items": {
            "type": "object",
            "properties": {
                "type": {"enum": ["add_new", "refine_existing"]},
                "name": TEXT,
                "description": {"type": "string", "maxLength": LONGEST_DESCRIPTION},
                "instruction": {"type": "string", "maxLength": LONGEST_INSTRUCTION},
                "edits": {"enum": ["insert", "update"]},
                "reasoning": {"type": "string"},
            },
            "required": ["type", "name", "description", "instruction", "edits", "reasoning"],
            "additionalProperties": False,
        },
    },
}
