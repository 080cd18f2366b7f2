"""The window of a run (L2MAC, arXiv 2310.02003: c): its bounds, and one question to the model that keeps to them.

What cannot be read is asked for again, in other words, a few times. A prompt that is too long for the bounds is never sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.agent.context import cost, tools_cost
from holdfast.chat import Chat, Message, Reply, Role, Tool
from holdfast.errors import CutReplyError, InputError, UnusableReplyError

PROFILE = ()  # bounds, and no memory

_AGAIN = "Your last reply could not be read. Reply again, with a tool call whose arguments are one JSON object."
_LESS = "Your last reply was cut at {limit} tokens, and nothing of it was done. Do less in one reply."
_MOST_REFUSALS = 3
_WARMER = 0.4


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds, in tokens but for the last three.

    Fields
        window: a context with the tools and the reply; never exceeded.
        reply: one reply. read: one result of a tool. report: what the evaluators say. summary: a summary or an account.
        free: what is freed, where there is as much, before an account is asked for.
        attempts: contexts of one instruction. turns: replies to one instruction. steps: asked for from each part of a task.
    """

    window: int = 8192
    reply: int = 1024
    read: int = 1500
    report: int = 500
    summary: int = 120
    free: int = 700
    attempts: int = 30
    turns: int = 120
    steps: int = 10

    def __post_init__(self) -> None:
        if min(self.reply, self.read, self.report, self.summary, self.attempts, self.turns, self.steps) < 1:
            raise InputError("every bound of a budget is at least 1")
        if self.window - self.reply < 2 * max(self.read, self.report):
            raise InputError("a window holds a reply and twice what one tool or the evaluators may say; make it larger")


class Window:
    """Asks a model.

    Args:
        chat: the model.
        budget: the bounds.
        temperature: of a reply that is asked for at no other.
        count: counts tokens as the model does.
    """

    def __init__(self, chat: Chat, budget: Budget, temperature: float, count: Callable[[str], int]) -> None:
        self.budget = budget
        self.count = count
        self._chat = chat
        self._temperature = temperature

    def left(self, messages: Sequence[Message], tools: Sequence[Tool], reply: int | None = None) -> int:
        """Tokens that are left beside some messages, the tools and a reply (the budget's, if none is given); below 0: too many."""
        used = sum(cost(message, self.count) for message in messages) + tools_cost(tools, self.count)
        return self.budget.window - used - (self.budget.reply if reply is None else reply)

    def ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        temperature: float | None = None,
        limit: int | None = None,
    ) -> Reply:
        """A reply; where it cannot be used the model is told so, up to twice, and asked at a higher temperature.

        Raises InputError where the question leaves no room for a reply, and ChatError as the model does: a
        ContextOverflowError at once.
        """
        limit = limit or self.budget.reply
        if self.left(messages, tools, limit) < 0:
            raise InputError(
                f"a question leaves no room in a window of {self.budget.window} tokens; give a larger one, or break long "
                "lines of the task and long instructions into shorter ones"
            )
        asked = list(messages)
        warmth = self._temperature if temperature is None else temperature
        for refusals in range(1, _MOST_REFUSALS + 1):
            try:
                return self._chat.reply(asked, tools=tools, temperature=warmth, limit=limit)
            except UnusableReplyError as error:
                if refusals == _MOST_REFUSALS:
                    raise
                told = _LESS.format(limit=limit) if isinstance(error, CutReplyError) else _AGAIN
                again = [*messages, *[Message(Role.USER, told)] * refusals]
                asked = again if self.left(again, tools, limit) >= 0 else asked
                warmth = min(1.0, warmth + _WARMER)  # where there is no room for words, nothing else would be different
        raise AssertionError("unreachable")
