"""Skills as files: a bank as JSON, and single skills as Markdown, as the repository of MemSkill has them (arXiv 2602.02474).

A skill in Markdown has a title, a section Description, sections on when and how it is applied, and a last line such as ``Action
type: INSERT only.``; fields between two lines of ``---`` at the top (``name``, ``description``, ``action``) are read too.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from holdfast.encode.skills import CAPACITY, Edits, Skill, SkillBank
from holdfast.errors import InputError

PROFILE = ()  # how skills are written down, and no memory

BANK, CONTROLLER = "skills.json", "controller.safetensors"
"""The files of a folder that holds what was learnt."""

_TITLE = re.compile(r"\A#[ \t]+(?P<title>[^\n]+)\n*")
_DESCRIPTION = re.compile(r"\A##[ \t]+Description[ \t]*\n+(?P<text>(?:(?!#)[^\n]+\n?)+)\n*", re.IGNORECASE)
_ACTION = re.compile(r"(?:\A|\n)[ \t]*Action type:[ \t]*(?P<edits>[A-Za-z]+)(?:[ \t]+only)?\.?[ \t]*\Z", re.IGNORECASE)
_FRONT = re.compile(r"\A---[ \t]*\n(?P<fields>.*?)\n---[ \t]*(?:\n+|\Z)", re.DOTALL)
_FIELD = re.compile(r"(?P<key>[A-Za-z_]+)[ \t]*:[ \t]*(?P<value>[^\n]*)")


def read_skill(text: str, name: str = "") -> Skill:
    """A skill from Markdown. Its name is that of its fields, else the one given (a file's), else that of its title.

    Raises InputError, and says what is missing.
    """
    body = text.replace("\r\n", "\n").strip()
    fields: dict[str, str] = {}
    if front := _FRONT.match(body):
        fields = {one["key"].lower(): one["value"].strip().strip("\"'") for one in _FIELD.finditer(front["fields"])}
        body = body[front.end() :].lstrip()
    title = _TITLE.match(body)
    if title:
        body = body[title.end() :]
    named = fields.get("name") or name or (title["title"] if title else "")
    if not named:
        raise InputError("a skill in Markdown begins with its title: # Capture Dates")
    described = _DESCRIPTION.match(body)
    if described:
        body = body[described.end() :]
    description = fields.get("description") or (" ".join(described["text"].split()) if described else "")
    if not description:
        raise InputError(f"the skill {named!r} has no section ## Description")
    action = _ACTION.search(body)
    said = fields.get("action") or (action["edits"] if action else "")
    if action:
        body = body[: action.start()]
    if said.lower() not in list(Edits):
        raise InputError(f"the skill {named!r} ends with a line such as 'Action type: INSERT only.'; it has {said!r}")
    return Skill(_plain(named), description, body.strip(), Edits(said.lower()))


def write_skill(skill: Skill) -> str:
    """The skill as Markdown, which ``read_skill`` reads back under its name."""
    title = skill.name.replace("_", " ").title()
    return (
        f"# {title}\n\n## Description\n\n{skill.description}\n\n{skill.instruction}\n\n"
        f"Action type: {skill.edits.upper()} only.\n"
    )


def read_bank(path: Path, capacity: int = CAPACITY) -> SkillBank:
    """A bank from a JSON file, from a folder that holds ``skills.json``, or from a folder of skills in Markdown.

    Raises InputError.
    """
    try:
        if path.is_dir() and not (path / BANK).is_file():
            files = sorted(path.glob("*.md"))
            if not files:
                raise InputError(f"{path} holds neither {BANK} nor skills in Markdown")
            return SkillBank.of([_from(file) for file in files], capacity)
        file = path / BANK if path.is_dir() else path
        return SkillBank.from_dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{path}: {error}") from error
        raise InputError(f"{path} cannot be read as skills: {error}") from error


def write_bank(bank: SkillBank, folder: Path) -> Path:
    """The bank as ``skills.json`` in a folder, which is made; in one step, so that no reader sees half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / BANK
    draft = path.with_name(f".{BANK}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(bank.to_dict(), indent=1, ensure_ascii=False) + "\n", "utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def _from(file: Path) -> Skill:
    try:
        return read_skill(file.read_text("utf-8"), file.stem)
    except InputError as error:
        raise InputError(f"{file.name}: {error}") from error


def _plain(name: str) -> str:
    """A title as a name: "Capture Dates" is capture_dates."""
    return "_".join(re.findall(r"[a-z0-9]+", name.lower()))
