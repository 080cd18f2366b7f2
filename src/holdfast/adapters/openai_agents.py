"""A session of the OpenAI Agents SDK over a memory: ``Runner.run(agent, text, session=HoldfastSession(memory, "chat-7"))``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, cast

from holdfast.adapters.transcript import Said, Transcript, jsoned, words_of
from holdfast.cube import Channel
from holdfast.encode.turns import ROLES
from holdfast.errors import InputError, MissingExtraError
from holdfast.memory import Memory

try:
    from agents.items import TResponseInputItem
    from agents.memory import SessionABC, SessionSettings
except ImportError as error:
    raise MissingExtraError("this needs the OpenAI Agents SDK: pip install openai-agents") from error


class HoldfastSession(SessionABC):
    """The items of one conversation, as the SDK keeps them, and its memories at once (``transcript``).

    Args:
        memory: where it is kept.
        session_id: which conversation.
        session_settings: the SDK's own, for example how many items a run is given.
        erase: what is taken away is forgotten for good; else it goes out of recall and stays in history.
        scope: tenant, user, agent, as ``Memory`` takes them.

    Raises ScopeError where no user is named.
    """

    def __init__(
        self,
        memory: Memory,
        session_id: str,
        *,
        session_settings: SessionSettings | None = None,
        erase: bool = False,
        **scope: str | None,
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self._log = Transcript(memory, "openai-agents", memory.scope(session=session_id, **scope), erase=erase)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in order; of more than ``limit`` the last."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        return cast(list[TResponseInputItem], await asyncio.to_thread(self._log.read, limit))

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Keep items, all or none. Raises InputError for one that is not JSON."""
        await asyncio.to_thread(self._add, [jsoned(cast(Mapping[str, Any], item), "this item") for item in items])

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item away, and return it; None where there is none."""
        return cast(TResponseInputItem | None, await asyncio.to_thread(self._log.pop))

    async def clear_session(self) -> None:
        """Take all items away."""
        await asyncio.to_thread(self._log.clear)

    def _add(self, items: list[dict[str, Any]]) -> None:
        answers = any(str(item.get("type", "")).endswith("_output") for item in items)
        tools = _tools([*(self._log.read() if answers else ()), *items])
        self._log.append([_said(item, tools) for item in items])


def _tools(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The tool that each call names."""
    return {str(item["call_id"]): str(item["name"]) for item in items if "call_id" in item and "name" in item}


def _said(item: dict[str, Any], tools: Mapping[str, str]) -> Said:
    kind, role = str(item.get("type") or "message"), item.get("role")
    if kind == "message" and role is not None:
        if role not in ROLES:
            raise InputError(f"an item has the role {role!r}; use one of {', '.join(ROLES)}")
        return Said(ROLES[role], words_of(item.get("content")), item, author=str(role))
    if kind.endswith("_output"):
        output = item.get("output")
        return Said(Channel.TOOL, words_of(output), item, tool=tools.get(str(item.get("call_id")), kind))
    return Said(Channel.ASSISTANT, f"{kind} {item.get('name', '')}".strip(), item, author="assistant", aside=True)
