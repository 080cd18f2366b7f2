"""A reply that comes piece by piece: what was yielded is kept, whatever becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, Self

import openai

from holdfast.agent.base import Reply, Usage
from holdfast.encode.endpoint import Completion, RawCall, failure, text_of, tokens_of
from holdfast.errors import ChatError


class Stream(Iterator[str]):
    """Pieces of text, in order; after the last of them ``reply`` is the whole.

    Iterating raises ChatError where the stream breaks off, or where its end is nothing that can be used. ``text`` is what was
    yielded until then. ``close`` ends it early; so does leaving its ``with``.
    """

    def __init__(
        self,
        chunks: openai.Stream[Any],
        spent: Callable[[Completion], Usage],
        read: Callable[[Completion, Usage], Reply],
    ) -> None:
        self._chunks = chunks
        self._spent = spent
        self._read = read
        self._text: list[str] = []
        self._calls: list[list[str]] = []
        self._places: dict[int, int] = {}
        self._counts: tuple[int | None, int | None] = (None, None)
        self._end = ""
        self._refused = False
        self._usage: Usage | None = None
        self._reply: Reply | None = None
        self._pieces = self._run()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def text(self) -> str:
        """All that was yielded so far."""
        return "".join(self._text)

    @property
    def reply(self) -> Reply:
        """The whole reply. Raises ChatError where the stream has not come to its end."""
        if self._reply is None:
            raise ChatError("the stream has not come to its end; what came so far is its .text")
        return self._reply

    def close(self) -> None:
        """End it here. What came counts as spent."""
        self._pieces.close()
        self._settle()

    def _run(self) -> Generator[str, None, None]:
        try:
            for chunk in self._chunks:
                piece = self._take(chunk)
                if piece:
                    self._text.append(piece)
                    yield piece
        except openai.OpenAIError as error:
            raise failure(error) from error
        except Exception as error:
            # Whatever else comes out is the transport's, and which that is depends on the client's version, or a chunk of no form.
            raise ChatError(_BROKEN) from error
        finally:
            usage = self._settle()
        if not self._end:
            raise ChatError(_BROKEN)
        self._reply = self._read(self._whole(), usage)

    def _settle(self) -> Usage:
        if self._usage is None:
            self._chunks.close()
            self._usage = self._spent(self._whole())
        return self._usage

    def _whole(self) -> Completion:
        calls = tuple(RawCall(id, tool, arguments) for id, tool, arguments in self._calls)
        return Completion(self.text, calls, *self._counts, self._end, self._refused)

    def _take(self, chunk: Any) -> str:
        if getattr(chunk, "usage", None) is not None:
            self._counts = tokens_of(chunk.usage)
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self._end = str(choice.finish_reason or self._end)
        delta = choice.delta
        if delta is None:
            return ""
        self._refused = self._refused or bool(getattr(delta, "refusal", None))
        for part in delta.tool_calls or ():
            self._take_call(part)
        return text_of(delta.content)

    def _take_call(self, part: Any) -> None:
        """A piece of a call; its index says of which. A server that gives no index sends calls whole."""
        piece = [text_of(part.id), text_of(part.function.name), text_of(part.function.arguments)]
        index = part.index if isinstance(part.index, int) else len(self._calls)
        if index not in self._places:
            self._places[index] = len(self._calls)
            self._calls.append(["", "", ""])
        call = self._calls[self._places[index]]
        call[:] = call[0] or piece[0], call[1] or piece[1], call[2] + piece[2]


_BROKEN = "the stream broke off; what came before is its .text"
