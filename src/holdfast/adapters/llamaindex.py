"""A memory block for LlamaIndex's ``Memory``: what leaves the short-term queue is kept, what bears on the talk is brought back.

``Memory.from_defaults(memory_blocks=[HoldfastMemoryBlock(memory=memory, scope={"user": "ana"})])``
"""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast.adapters.transcript import Said, Transcript, jsoned
from holdfast.cube import Channel
from holdfast.encode.turns import ROLES
from holdfast.errors import MissingExtraError

try:
    from llama_index.core.base.llms.types import ChatMessage, MessageRole
    from llama_index.core.bridge.pydantic import Field
    from llama_index.core.memory import BaseMemoryBlock
except ImportError as error:
    raise MissingExtraError("this needs LlamaIndex: pip install llama-index-core") from error


class HoldfastMemoryBlock(BaseMemoryBlock[str]):
    """What Holdfast remembers about the last thing that the user said, within a budget of tokens, fenced as data.

    ``scope``: tenant, user, agent, as ``Memory`` takes them. Messages are kept under the session that LlamaIndex names, or
    ``session``. A budget that must shrink drops whole memories.
    """

    name: str = Field(default="holdfast")
    memory: Any = Field(exclude=True, repr=False, description="A holdfast.Memory.")
    budget: int = Field(default=800, description="Tokens of memories.")
    session: str = Field(default="llamaindex", description="The session of messages that come without one.")
    scope: dict[str, str] = Field(default_factory=dict, description="Whose memory.")

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:  # noqa: ARG002
        asked = [message for message in messages or () if message.role == MessageRole.USER and message.content]
        return await self._told(str(asked[-1].content), self.budget) if asked else ""

    async def _aput(self, messages: list[ChatMessage]) -> None:
        by_session: dict[str, list[Said]] = {}
        for message in messages:
            session = str(message.additional_kwargs.get("session_id") or self.session)
            by_session.setdefault(session, []).append(_said(message))
        for session, said in by_session.items():
            scope = self.memory.scope(**{**self.scope, "session": session})
            await asyncio.to_thread(Transcript(self.memory, "llamaindex", scope).append, said)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:  # noqa: ARG002
        """None: half a fence is no fence, and what is left out now is recalled when there is room."""
        return None

    async def _told(self, query: str, budget: int) -> str:
        def context() -> str:
            return str(self.memory.context(query, budget=budget, **self.scope))

        return await asyncio.to_thread(context)


def _said(message: ChatMessage) -> Said:
    role = str(message.role.value)
    channel = ROLES.get({"chatbot": "assistant", "model": "assistant"}.get(role, role), Channel.TOOL)
    name = message.additional_kwargs.get("name")
    return Said(
        channel,
        message.content or "",
        jsoned(message.model_dump(mode="json"), "this message"),
        author=None if channel is Channel.TOOL else str(name or role),
        tool=str(name or "tool") if channel is Channel.TOOL else None,
    )
