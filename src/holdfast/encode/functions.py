"""Skills as code: a Python function with parameters, drawn from a run that succeeded (SkillWeaver, arXiv 2504.07079).

The code is data. Here it is parsed, never run: it must be one function with a docstring and annotated parameters, and what would
reach beyond its arguments (an import outside ``ALLOWED``, a name in ``BANNED``, an attribute with underscores) is not kept. A list
of banned names holds nobody who means harm, which is why it is no more than a first look: what is kept runs in the sandbox alone
(``agent.sandbox``). EvolveLab imports it into its own process (arXiv 2512.18746).
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from holdfast.chat import Chat
from holdfast.cube import Form, Kind
from holdfast.encode.base import Experience
from holdfast.encode.records import derived
from holdfast.encode.writing import TEXT, told, write
from holdfast.errors import InputError
from holdfast.store.base import Operation
from holdfast.taxonomy import Formation, Function, MemoryProfile, Modality, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.SKILLS,),
    formation=(Formation.DISTILL_EXPERIENCE,),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)

ALLOWED = frozenset("collections datetime functools itertools json math re statistics string textwrap typing".split())
"""Modules that a skill may import."""

BANNED = frozenset(
    "__import__ breakpoint compile delattr eval exec exit getattr globals input locals open quit setattr system vars".split()
)
"""Names that a skill may not use."""


@dataclass(frozen=True, slots=True)
class Functions:
    """An encoder. ``lines``: the most that a function has. Raises InputError."""

    lines: int = 60
    model: Chat | None = None

    def __post_init__(self) -> None:
        if self.lines < 2:
            raise InputError("a function has two lines or more")

    def encode(self, experience: Experience) -> list[Operation]:
        """The skill of a trajectory that succeeded, or why there is none. Raises InputError without a model, ChatError."""
        trajectory = experience.trajectory
        if trajectory is None or not experience.outcome.succeeded:
            return []
        instruction = (
            f"Write one Python function of at most {self.lines} lines that does what this run did, with parameters in place of "
            "its values, type hints and a docstring. It computes, and returns what it found or the calls to make: it opens "
            f"nothing, and imports nothing but {', '.join(sorted(ALLOWED))}. Describe in one sentence when to use it."
        )
        data = {"task": trajectory.task, "steps": told(trajectory)}
        found = write(self.model, "function", instruction, data, {"description": TEXT, "code": TEXT})
        code, description = found["code"].strip(), found["description"].strip()
        if fault := faulty(code, self.lines):
            return [Operation.none(f"the function is not kept: {fault}")]
        made = _function(code)
        assert made is not None  # it is not faulty
        doc = ast.get_docstring(made) or ""
        text = f"{made.name}: {description}"
        names = {"name": made.name, "description": description, "doc": doc, "code": code}
        return [derived(experience, "functions", Kind.SKILL, text, code, **names)]


def faulty(code: str, lines: int = 60) -> str:
    """What is wrong with the code of a skill at a first look; "" where nothing is. Parses it, and runs nothing."""
    if len(code.splitlines()) > lines:
        return f"it has more than {lines} lines"
    try:
        made = _function(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"it is no Python ({type(error).__name__})"
    if made is None:
        return "it is not one function and nothing else"
    if not ast.get_docstring(made):
        return "it has no docstring"
    if made.decorator_list:
        return "it has decorators"
    return next((fault for node in ast.walk(made) if (fault := _fault(node))), "")


def _function(code: str) -> ast.FunctionDef | None:
    body = ast.parse(code).body
    imports = all(isinstance(node, ast.Import | ast.ImportFrom) for node in body[:-1])
    if not body or not imports or not isinstance(body[-1], ast.FunctionDef):
        return None
    if any(_fault(node) for node in body[:-1]):
        return None
    return body[-1]


def _fault(node: ast.AST) -> str:
    if isinstance(node, ast.Import) and any(one.name not in ALLOWED for one in node.names):
        return f"it imports {', '.join(one.name for one in node.names)}"
    if isinstance(node, ast.ImportFrom) and (node.level or node.module not in ALLOWED):
        return f"it imports from {node.module}"
    if isinstance(node, ast.Name) and (node.id in BANNED or node.id.startswith("__")):
        return f"it uses {node.id}"
    if isinstance(node, ast.Attribute) and (node.attr in BANNED or node.attr.startswith("_")):
        return f"it uses .{node.attr}"
    if isinstance(node, ast.Global | ast.Nonlocal | ast.AsyncFunctionDef | ast.ClassDef):
        return f"it holds {type(node).__name__}"
    return ""
