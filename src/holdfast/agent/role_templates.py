"""What an agent of a role should keep: templates by rule, by a model, or from an example (arXiv 2508.08997, templates T_n).

The templates of the paper's first version hold hints for their tasks, so that a gain may come from them; the one made here by
rule holds none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.agent.patches import Policy, Share
from holdfast.agent.reading import UnreadableError, read_object
from holdfast.chat import Chat, Message, Role
from holdfast.encode.schemas import usable
from holdfast.errors import ChatError, InputError

PROFILE = ()  # the shape of ``roles``, and no memory by itself

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}


@dataclass(frozen=True, slots=True)
class RoleCard:
    """Who an agent is in a team: a name, and in words what it does and answers for."""

    name: str
    duty: str


@dataclass(frozen=True, slots=True)
class Template:
    """The JSON Schema of a role's memory, an object of named fields, and what holds for each field.

    Fields without a policy are private and unlimited but by the budget. ``author``: "hand", "rule", "model" or "example".
    Raises InputError where the schema is no JSON Schema of an object with fields, or a policy names another.
    """

    schema: Mapping[str, Any]
    policies: Mapping[str, Policy] = field(default_factory=dict)
    author: str = "hand"

    def __post_init__(self) -> None:
        usable(self.schema)
        fields = self.schema.get("properties")
        if self.schema.get("type") != "object" or not isinstance(fields, Mapping) or not fields:
            raise InputError("a template is the JSON Schema of an object, with its fields in properties")
        unknown = set(self.policies) - set(fields)
        if unknown:
            raise InputError(f"there is a policy for {', '.join(sorted(unknown))}, and no such field")

    @property
    def empty(self) -> dict[str, Any]:
        """The document that holds nothing yet: every field of text, list or object, without words or items."""
        made = {name: _nothing(one) for name, one in self.schema["properties"].items()}
        return {name: one for name, one in made.items() if one is not None}

    def shared(self, *how: Share) -> list[str]:
        """The fields that are shared so."""
        return [name for name in self.schema["properties"] if self.policies.get(name, Policy()).share in how]


def template_for(card: RoleCard) -> Template:
    """The default schema for any role, without hints of a task: goals and constraints are pinned, the rest gives way by age."""
    return Template(_described(_DEFAULT, card.duty), _DEFAULT_POLICIES, "rule")


def template_by_model(card: RoleCard, task: str, chat: Chat) -> Template:
    """A template that a model writes for a role and a task, with one repair. Raises ChatError where it gives none of use."""
    asked = [Message(Role.SYSTEM, _WRITE), Message(Role.USER, f"Role: {card.name}\nDuty: {card.duty}\nTask: {task}")]
    for attempt in range(2):
        reply = chat.reply(asked, schema=_FIELDS)
        try:
            return _read(json.loads(read_object(reply.text, _FIELDS)), card)
        except UnreadableError as wrong:
            if attempt:
                raise ChatError(f"the model wrote no template: {wrong}") from None
            asked += [reply.message, Message(Role.USER, f"That cannot be used: {wrong.detail}. Write it again.")]
    raise AssertionError("unreachable")


def from_example(example: Mapping[str, Any], policies: Mapping[str, Policy] | None = None) -> Template:
    """A template from a JSON example, such as the official code has: each value says the type, one item that of a list."""
    return Template(_like(example), policies or {}, "example")


_DEFAULT: Mapping[str, Any] = {
    "goals": _TEXTS,
    "constraints": _TEXTS,
    "decisions": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"what": _TEXT, "why": _TEXT, "turn": {"type": "integer"}},
            "required": ["what"],
            "additionalProperties": False,
        },
    },
    "facts": _TEXTS,
    "open_questions": _TEXTS,
    "commitments": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"to": _TEXT, "what": _TEXT, "due": _TEXT},
            "required": ["what"],
            "additionalProperties": False,
        },
    },
    "rejected": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"what": _TEXT, "why": _TEXT},
            "required": ["what"],
            "additionalProperties": False,
        },
    },
}

_DEFAULT_POLICIES: Mapping[str, Policy] = {
    "goals": Policy(words=40),
    "constraints": Policy(words=40, pinned=True),
    "decisions": Policy(items=12, share=Share.READ),
    "facts": Policy(words=40),
    "open_questions": Policy(items=6, words=40),
    "commitments": Policy(items=8),
    "rejected": Policy(items=6),
}

_WRITE = (
    "Design the working memory of one agent of a team: at most eight named fields for what an agent of this role must still "
    "know many turns later. Types: text; list (of texts); map (from a name to a text); records (objects of the named keys). Pin "
    "what must never be lost. Answer with JSON: fields, each with name, about, type, and keys, pinned, items (the most that are "
    "kept) where they apply."
)

_FIELDS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "fields": {
            "type": "array",
            "minItems": 1,
            "maxItems": 8,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,39}$"},
                    "about": {"type": "string", "maxLength": 300},
                    "type": {"enum": ["text", "list", "map", "records"]},
                    "keys": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 8},
                    "pinned": {"type": "boolean"},
                    "items": {"type": "integer", "minimum": 1},
                },
                "required": ["name", "about", "type"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["fields"],
    "additionalProperties": False,
}


def _described(fields: Mapping[str, Any], duty: str) -> dict[str, Any]:
    return {"type": "object", "description": duty, "properties": dict(fields), "additionalProperties": False}


def _read(found: Mapping[str, Any], card: RoleCard) -> Template:
    fields: dict[str, Any] = {}
    policies: dict[str, Policy] = {}
    for one in found["fields"]:
        if one["name"] in fields or (one["type"] == "records") != ("keys" in one):
            raise UnreadableError("every field needs a name of its own, and records (they alone) need keys")
        fields[one["name"]] = {**_typed(one), "description": one["about"]}
        policies[one["name"]] = Policy(items=one.get("items"), pinned=one.get("pinned", False))
    return Template(_described(fields, card.duty), policies, "model")


def _typed(one: Mapping[str, Any]) -> dict[str, Any]:
    match one["type"]:
        case "text":
            return dict(_TEXT)
        case "list":
            return dict(_TEXTS)
        case "map":
            return {"type": "object", "additionalProperties": _TEXT}
        case _:
            item = {"type": "object", "properties": dict.fromkeys(one["keys"], _TEXT), "additionalProperties": False}
            return {"type": "array", "items": item}


def _like(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        inner = {name: _like(one) for name, one in value.items()}
        # An empty object stands for a map from names that are not known yet.
        return {"type": "object", **({"properties": inner, "additionalProperties": False} if inner else {})}
    if isinstance(value, list):
        return {"type": "array", **({"items": _like(value[0])} if value else {})}
    kinds = {bool: "boolean", int: "number", float: "number", str: "string"}
    return {"type": kinds[type(value)]} if type(value) in kinds else {}


def _nothing(schema: Mapping[str, Any]) -> Any:
    match schema.get("type"):
        case "array":
            return []
        case "object":
            inner = {name: _nothing(one) for name, one in schema.get("properties", {}).items()}
            return {name: one for name, one in inner.items() if one is not None}
        case "string":
            return ""
        case _:
            return None
