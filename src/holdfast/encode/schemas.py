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
    try:
        wrong = list(islice(_validator(schema).iter_errors(value), _MOST))
    except (RecursionError, Unresolvable, re.error) as error:
        raise InputError(
            f"the schema cannot be used ({type(error).__name__}): {json.dumps(schema)[:_DETAIL]}"
        ) from error
    return [Misfit(one.json_path, str(one.validator), one.message[:_DETAIL]) for one in wrong]


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
