"""Recalled skills as tools of an agent, run in the sandbox alone (SkillWeaver, arXiv 2504.07079).

What a skill returns is what its code printed: as untrusted as the code. It can reach nothing but its arguments, so it is no door to
the outside; what is from outside in those the turn knows already.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from holdfast.agent.sandbox import Sandbox
from holdfast.agent.tools import Action
from holdfast.chat import Tool
from holdfast.cube import Channel, Cube, Form, Kind
from holdfast.encode.functions import faulty
from holdfast.errors import SandboxError
from holdfast.retrieve.hits import Hit
from holdfast.taxonomy import Function, MemoryProfile, Modality, Retrieval, Subform, Subject

PROFILE = MemoryProfile(
    Form.TEXT,
    Subform.FLAT,
    (Function.SKILLS,),
    retrieval=(Retrieval.ON_REQUEST,),
    subject=(Subject.AGENT,),
    modality=(Modality.TEXT, Modality.ACTION),
)

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}


def callable_skills(hits: Iterable[Hit], sandbox: Sandbox) -> list[Action]:
    """An action for each skill among some hits whose code stands a first look; of two of one name the first.

    Its arguments and what it returns are JSON. A call raises SandboxError where the code fails or the sandbox holds too little.
    """
    found: dict[str, Action] = {}
    for hit in hits:
        code = hit.cube.data.get("code")
        if hit.cube.kind != Kind.SKILL or not isinstance(code, str) or faulty(code):
            continue
        made = _action(hit.cube, code, sandbox)
        found.setdefault(made.tool.name, made)
    return list(found.values())


def _action(cube: Cube, code: str, sandbox: Sandbox) -> Action:
    made = ast.parse(code).body[-1]
    assert isinstance(made, ast.FunctionDef)  # it is not faulty
    description = str(cube.data.get("description") or ast.get_docstring(made) or "")
    tool = Tool(made.name, description, _parameters(made.args))
    return Action(tool, _runner(made.name, code, sandbox), Channel.TOOL if cube.tainted else Channel.SYSTEM)


def _parameters(args: ast.arguments) -> dict[str, Any]:
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    optional = {
        one.arg
        for one in [*args.posonlyargs, *args.args][len(args.posonlyargs) + len(args.args) - len(args.defaults) :]
    }
    optional |= {one.arg for one, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is not None}
    return {
        "type": "object",
        "properties": {one.arg: _schema(one.annotation) for one in named},
        "required": [one.arg for one in named if one.arg not in optional],
        "additionalProperties": False,
    }


def _schema(annotation: ast.expr | None) -> dict[str, Any]:
    inner = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    name = inner.id if isinstance(inner, ast.Name) else ""
    return {"type": _TYPES[name]} if name in _TYPES else {}


def _runner(name: str, code: str, sandbox: Sandbox) -> Callable[..., Any]:
    def run(**arguments: Any) -> Any:
        outcome = sandbox.run(f"{code}\n\n{_call(name, arguments)}")
        if not outcome.ok:
            last = (outcome.errors.strip().splitlines() or [outcome.ended])[-1]
            raise SandboxError(f"the skill {name} failed: {last[:500]}")
        try:
            return json.loads(outcome.output.rpartition("\x1e")[2])
        except ValueError as error:
            raise SandboxError(f"the skill {name} returned no JSON") from error

    return run


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    given = json.dumps(dict(arguments))
    return f'import json as _json\n\nprint("\\x1e" + _json.dumps({name}(**_json.loads({given!r}))))\n'
