"""LangChain's chat history and retriever over a memory.

``HoldfastChatMessageHistory`` keeps a conversation and its memories at once (``transcript``); ``HoldfastRetriever`` hands a chain
what is remembered, each document fenced as data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.adapters.transcript import Said, Transcript, jsoned
from holdfast.cube import Channel
from holdfast.encode.turns import ROLES
from holdfast.errors import MissingExtraError
from holdfast.memory import Memory
from holdfast.retrieve.context import line
from holdfast.retrieve.hits import Hit

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.documents import Document
    from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict, Field
except ImportError as error:
    raise MissingExtraError("this needs LangChain: pip install langchain-core") from error


class HoldfastChatMessageHistory(BaseChatMessageHistory):
    """The history of one conversation, for ``RunnableWithMessageHistory`` and whatever else takes one.

    Args:
        memory: where it is kept.
        session: which conversation.
        erase: ``clear`` forgets for good; else messages go out of recall and stay in history.
        scope: tenant, user, agent, as ``Memory`` takes them.

    Raises ScopeError where no user is named.
    """

    def __init__(self, memory: Memory, session: str, *, erase: bool = False, **scope: str | None) -> None:
        self._log = Transcript(memory, "langchain", memory.scope(session=session, **scope), erase=erase)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """All messages, in order."""
        return messages_from_dict(self._log.read())

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Keep messages, all or none. Raises InputError for one that is not JSON."""
        self._log.append([_said(message) for message in messages])

    def clear(self) -> None:
        """Take all messages away."""
        self._log.clear()


class HoldfastRetriever(BaseRetriever):
    """What is remembered that bears on a query.

    A document's text is the memory fenced as data, with its date, source and trust; its metadata have the bare ``text``, ``id``,
    ``relevance``, ``channel``, ``source``, ``trust``, ``taint`` and ``why``. Where nothing is likely to answer, there is none.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    memory: Any = Field(exclude=True, repr=False)
    k: int = 8
    scope: dict[str, str] = Field(default_factory=dict)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:  # noqa: ARG002
        hits = self.memory.search(query, k=self.k, **self.scope)
        return [] if hits.abstain else [_document(hit) for hit in hits]


def _document(hit: Hit) -> Document:
    origin = hit.cube.origin
    metadata = {
        "id": hit.id,
        "text": hit.text,
        "relevance": hit.relevance,
        "channel": str(origin.channel),
        "source": origin.reference,
        "trust": origin.trust,
        "taint": list(origin.taint),
        "why": hit.why,
    }
    return Document(id=hit.id, page_content=line(hit.cube), metadata=metadata)


def _said(message: BaseMessage) -> Said:
    role = getattr(message, "role", message.type)  # a ChatMessage says its role beside its type
    channel = ROLES.get(str(role).lower(), Channel.TOOL)  # who says so is not known: then it is nobody's own word
    text = str(message.text)
    calls = getattr(message, "tool_calls", None) or []
    if not text.strip() and calls:
        text = "; ".join(f"calls {call['name']}" for call in calls)
    return Said(
        channel,
        text,
        jsoned(message_to_dict(message), "this message"),
        author=message.name or (None if channel is Channel.TOOL else str(role)),
        tool=(message.name or "tool") if channel is Channel.TOOL else None,
        aside=not str(message.text).strip(),
    )
