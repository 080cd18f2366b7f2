"""What an agent can do: a function, and how a model is told of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from holdfast.agent.base import Tool
from holdfast.cube import Channel
from holdfast.errors import InputError, MissingExtraError


@dataclass(frozen=True, slots=True)
class Action:
    """A tool and what runs it, called with the arguments by name.

    ``channel`` is the door that its results come through. Whoever writes after reading through an outside door (``cube.EXTERNAL``)
    writes under its taint; ``Channel.SYSTEM`` is for what the program itself makes, such as a sum or the time.
    """

    tool: Tool
    run: Callable[..., Any]
    channel: Channel = Channel.TOOL


def action(function: Callable[..., Any], *, channel: Channel = Channel.TOOL) -> Action:
    """An action from a function with type hints and a docstring; arguments are converted to what the hints say.

    Raises InputError where there is no docstring or a hint has no JSON Schema, MissingExtraError without the extra ``llm``.
    """
    try:
        import pydantic
    except ImportError as error:
        raise MissingExtraError("a tool from a function needs the extra: pip install 'holdfast[llm]'") from error
    name, told = getattr(function, "__name__", ""), inspect.getdoc(function)
    if not name.isidentifier() or not told:
        raise InputError(
            "a tool needs a name and a docstring, which the model reads: pass a named function that has one"
        )
    try:
        parameters = pydantic.TypeAdapter(cast(Any, function)).json_schema()
        run = pydantic.validate_call(function)
    except (pydantic.PydanticUserError, TypeError, NameError) as error:
        raise InputError(f"no JSON Schema can be made of the arguments of {name}: {error}") from error
    if parameters.get("type") != "object":
        raise InputError(f"the arguments of {name} must all be given by name")
    return Action(Tool(name, told, parameters), run, channel)
