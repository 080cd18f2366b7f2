"""JSON Schemas of what a model writes: arguments, answers, files. A reference is looked up in its own schema and nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from holdfast.errors import InputError, MissingExtraError

try:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable
except ImportError as error:
    raise MissingExtraError("JSON Schemas need the extra: pip install 'holdfast[llm]'") from error

_MOST = 5
_DETAIL = 300


@dataclass(frozen=True, slots=True)
class Misfit:
    """Where a value does not fit, the keyword that says so, and how; ``what`` may quote the value."""

    where: str
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def usable(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, which has been checked. Raises InputError where it is no JSON Schema."""
    _validator(schema)
    return schema


def misfits(value: Any, schema: Mapping[str, Any]) -> list[Misfit]:
    """The first five places where a decoded value does not fit. Raises InputError for a schema that cannot be used."""
    if _plainly_fits(value, schema):
        return []
    try:
        wrong = list(islice(_validator(schema).iter_errors(value), _MOST))
    except (RecursionError, Unresolvable, re.error) as error:
        raise InputError(
            f"the schema cannot be used ({type(error).__name__}): {json.dumps(schema)[:_DETAIL]}"
        ) from error
    return [Misfit(one.json_path, str(one.validator), one.message[:_DETAIL]) for one in wrong]


def _plainly_fits(value: Any, schema: Any) -> bool:
    """Whether a value certainly fits a schema that certainly is one: mostly both are so, and to see that takes a tenth of the time.

    False says nothing: also where the schema says more than is understood here. ``_ABSENT`` fits whatever is a schema.
    """
    if type(schema) is not dict:
        return False
    if "type" not in schema and "enum" in schema:  # of words alone, which are texts then
        schema = {"type": "string", **schema}
    kind = schema.get("type")
    if type(kind) is not str or kind not in _TYPES or (value is not _ABSENT and type(value) is not _TYPES[kind]):
        return False
    here = value is not _ABSENT
    for keyword, said in schema.items():
        match keyword:
            case "type":
                pass
            case "title" | "description":
                if type(said) is not str:
                    return False
            case "properties" if kind == "object":
                if type(said) is not dict:
                    return False
                for name, one in said.items():
                    if not _plainly_fits(value.get(name, _ABSENT) if here else _ABSENT, one):
                        return False
            case "required" if kind == "object":
                if type(said) is not list or not all(type(name) is str for name in said) or len(set(said)) < len(said):
                    return False
                if here and not all(name in value for name in said):
                    return False
            case "additionalProperties" if kind == "object":
                if type(said) is not bool:
                    return False
            case "items" if kind == "array":
                if not all(_plainly_fits(item, said) for item in (value if here and value else (_ABSENT,))):
                    return False
            case "minItems" | "maxItems" | "minLength" | "minimum" | "maximum" if keyword in _BOUNDS[kind]:
                if type(said) is not int or (said < 0 and kind != "integer"):
                    return False
                size = said if not here else value if kind == "integer" else len(value)
                if size < said if keyword.startswith("min") else size > said:
                    return False
            case "enum" if kind == "string":
                if type(said) is not list or not all(type(one) is str for one in said) or (here and value not in said):
                    return False
            case _:
                return False
    # What is not among the properties may be there where nothing says otherwise; but then it is not plain.
    return kind != "object" or not here or value.keys() <= schema.get("properties", {}).keys()


_ABSENT: Any = object()
_TYPES: Mapping[str, type] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
_BOUNDS: Mapping[str, tuple[str, ...]] = {
    "object": (),
    "array": ("minItems", "maxItems"),
    "string": ("minLength",),
    "integer": ("minimum", "maximum"),
    "boolean": (),
}


def _validator(schema: Mapping[str, Any]) -> Any:
    try:
        return _compiled(json.dumps(schema, sort_keys=True))
    except (RecursionError, SchemaError, TypeError, ValueError) as error:
        raise InputError(f"that is no JSON Schema of an object: {str(error)[:_DETAIL]}") from error


@lru_cache(maxsize=256)
def _compiled(schema: str) -> Any:
    loaded = json.loads(schema)
    kind = validator_for(loaded, default=Draft202012Validator)
    kind.check_schema(loaded)
    return kind(loaded, registry=Registry())  # an empty registry: no reference is fetched from anywhere
