"""What a worker may hand to its parent (AgentSys, arXiv 2602.07398): a JSON-Schema subset whose leaves mean something.

A field that may hold any string carries any instruction. So a leaf says what its value is (an address that is already known, a
date, an amount, a word of a list), and free text crosses only sealed, as an ``OpaqueRef``: a handle that can be passed on as an
argument and not be read. A length alone is not a meaning: a ``short_text`` still carries a short imperative.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from holdfast.errors import InputError

PROFILE = ()  # a part of the boundary, and no memory


@dataclass(frozen=True, slots=True)
class OpaqueRef:
    """A sealed text: it can be passed to a tool and not be read. ``name`` is ours, for example ``§3.1``."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Known:
    """What the parent knew before the result came: addresses that may be named, and URLs that may be followed.

    ``contacts`` are e-mail addresses, in lower case. ``urls`` are exact addresses without the protocol (``example.org``,
    ``example.org/prices``); one that ends in ``/*`` allows plain paths below it. Nothing is known by default.
    """

    contacts: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()


class Type(StrEnum):
    """What a leaf means, or how values are put together."""

    ID = "id"
    ENUM = "enum"
    BOOLEAN = "boolean"
    NUMBER = "number"
    MONEY = "money"
    DATE = "date"
    EMAIL = "email"
    URL = "url"
    SHORT_TEXT = "short_text"
    OPAQUE_REF = "opaque_ref"
    LIST = "list"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Schema:
    """What an answer must be. Made by the functions below, never by hand.

    ``nullable`` lets null stand for "not available"; ``or_ref`` seals a string that does not fit instead of refusing it.
    """

    type: Type
    nullable: bool = False
    or_ref: bool = False
    pattern: str = ""
    values: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    currency: str = ""
    longest: int = 0
    words: int = 0
    item: Schema | None = None
    most: int = 0
    fields: Mapping[str, Schema] = field(default_factory=dict)

    def optional(self) -> Schema:
        """The same, or null."""
        return replace(self, nullable=True)

    def sealing(self) -> Schema:
        """The same; a string that does not fit crosses sealed. Raises InputError for a type that is not written as one."""
        if self.type not in _STRINGS:
            raise InputError(f"only a string can be sealed, not a {self.type}")
        return replace(self, or_ref=True)

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON Schema, with the meaning of a leaf as its ``format``: for prompts and for files."""
        node: dict[str, Any] = {"type": _JSON_TYPE.get(self.type, "string")}
        if self.integer:
            node["type"] = "integer"
        if self.type in _STRINGS or self.type is Type.MONEY:
            node["format"] = str(self.type)
        options: tuple[tuple[str, Any, Any], ...] = (
            ("pattern", self.pattern, ""),
            ("enum", list(self.values), []),
            ("minimum", self.low, -math.inf),
            ("maximum", self.high, math.inf),
            ("currency", self.currency, ""),
            ("maxLength", self.longest, 0),
            ("maxWords", self.words, 0),
            ("maxItems", self.most, 0),
            ("nullable", self.nullable, False),
            ("sealing", self.or_ref, False),
        )
        node |= {key: value for key, value, absent in options if value != absent}
        if self.item is not None:
            node["items"] = self.item.to_dict()
        if self.type is Type.OBJECT:
            node |= {
                "properties": {name: child.to_dict() for name, child in self.fields.items()},
                "required": list(self.fields),
                "additionalProperties": False,
            }
        return node


_STRINGS = frozenset({Type.ID, Type.ENUM, Type.DATE, Type.EMAIL, Type.URL, Type.SHORT_TEXT, Type.OPAQUE_REF})
_JSON_TYPE = {
    Type.BOOLEAN: "boolean",
    Type.NUMBER: "number",
    Type.MONEY: "number",
    Type.LIST: "array",
    Type.OBJECT: "object",
}


def identifier(pattern: str = r"[A-Za-z0-9][\w.:@/-]*") -> Schema:
    """A name for machines: no space, at most 64 characters and 6 words, all of it matching ``pattern``."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r} is not a regular expression: {error}") from error
    return Schema(Type.ID, pattern=pattern)


def enum(*values: str) -> Schema:
    """One of some words that the parent wrote."""
    if not values or not all(isinstance(value, str) for value in values):
        raise InputError("an enum needs its values, as strings")
    return Schema(Type.ENUM, values=values)


def boolean() -> Schema:
    """True or false."""
    return Schema(Type.BOOLEAN)


def number(low: float = -math.inf, high: float = math.inf, *, integer: bool = False) -> Schema:
    """A finite number within its bounds; never one written as a string."""
    return Schema(Type.NUMBER, low=low, high=high, integer=integer)


def money(currency: str = "", *, high: float = 1e12) -> Schema:
    """An amount from 0 on, in cents at the finest, as a number or as ``1,234.50`` with or without the declared currency's mark."""
    return Schema(Type.MONEY, low=0, high=high, currency=currency)


def date() -> Schema:
    """A day or a moment as ISO 8601 writes it; crosses as it was written."""
    return Schema(Type.DATE)


def email() -> Schema:
    """An address among the known contacts."""
    return Schema(Type.EMAIL)


def url() -> Schema:
    """An address on the allow list; no query and no fragment."""
    return Schema(Type.URL)


def short_text(longest: int = 32, words: int = 4) -> Schema:
    """A name for people: one line of letters, digits and a few marks, of so many characters and words."""
    if longest < 1 or words < 1:
        raise InputError("a short text needs at least one character and one word")
    return Schema(Type.SHORT_TEXT, longest=longest, words=words)


def opaque_ref() -> Schema:
    """Any text, sealed."""
    return Schema(Type.OPAQUE_REF)


def list_of(item: Schema, most: int = 64) -> Schema:
    """Up to ``most`` values of one type."""
    return Schema(Type.LIST, item=item, most=most)


def record(**fields: Schema) -> Schema:
    """An object with exactly these keys."""
    return Schema(Type.OBJECT, fields=fields)


def leaves(value: Any, schema: Schema) -> Iterator[tuple[Any, Schema]]:
    """Every leaf of a conforming value with its schema, nulls left out."""
    if value is None:
        return
    if schema.type is Type.OBJECT:
        for name, child in schema.fields.items():
            yield from leaves(value[name], child)
    elif schema.item is not None:
        for item in value:
            yield from leaves(item, schema.item)
    else:
        yield value, schema
