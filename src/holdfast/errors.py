"""What can go wrong. Every error says what was wrong and what to do, and leaves the user's data as it was."""

from __future__ import annotations


class HoldfastError(Exception):
    """The base of every error that Holdfast raises on purpose."""


class InputError(HoldfastError, ValueError):
    """The caller's input cannot be used as it is: wrong type, empty, too large, not text."""


class ScopeError(HoldfastError, PermissionError):
    """No scope was given, or the scope does not allow this. Nothing was read and nothing was written."""


class AccessError(ScopeError):
    """The caller has no right to this. Nothing was read and nothing was written."""


class NotFoundError(HoldfastError, KeyError):
    """No memory with that id is visible in that scope."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0]) if self.args else ""


class ConflictError(HoldfastError):
    """The memory has changed since it was read, or its status forbids the change."""


class StoreError(HoldfastError):
    """The store cannot be opened, read or written: disk full, read-only, damaged, locked by another program."""


class SchemaError(StoreError):
    """The store was written by a newer Holdfast, or is not a Holdfast store at all."""


class IntegrityError(StoreError):
    """The journal's hash chain or a row's digest does not check: something changed the files behind our back."""


class StaleError(HoldfastError):
    """What was kept in another form is of an earlier version of its source, or of another model: it is made anew, never used."""


class PageError(HoldfastError):
    """The system or a device's driver would not reserve, map or free memory; what was held is as it was."""


class OutOfPagesError(PageError, MemoryError):
    """No more pages are to be had. Nothing was lost: let something go, or ask for less."""


class EmbedderError(HoldfastError):
    """The embedder failed, timed out, or answered with vectors of another dimension than the store holds."""


class ExtractionError(HoldfastError):
    """A language model's answer could not be read as operations, even after one repair."""


class MissingExtraError(HoldfastError, ImportError):
    """An optional dependency is not installed. The message names the one command that installs it."""


class ClaimError(HoldfastError):
    """A claim cannot be run as asked: unknown number, missing data, missing extra."""


class IsolationError(HoldfastError):
    """Working memory refuses a call: unknown tool, spent budget, or a command whose arguments come from where they must not."""


class AnswerRefusedError(HoldfastError, ValueError):
    """What a worker answered is not what was declared. Holds a fixed reason and a declared place, and nothing of the answer."""

    def __init__(self, refusal: str, where: str = "") -> None:
        super().__init__(
            f"the answer was refused{f' at {where}' if where else ''}: {refusal}; nothing of it was taken over"
        )
        self.refusal = refusal
        self.where = where


class SandboxError(HoldfastError):
    """Model-written code cannot be run as demanded here: a guarantee that was asked for does not hold on this machine."""


class GuardError(HoldfastError):
    """The guard does not let this happen; what was there is as it was."""


class ChatError(HoldfastError):
    """A chat model gave no reply that can be used: no connection, a refusal, a limit, or an answer of another form.

    ``status`` is that of HTTP where a server refused, else 0. The message holds nothing of what was asked or answered.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ContextOverflowError(ChatError):
    """What was asked does not fit the model's context, as its server says; ask with less."""


class UnusableReplyError(ChatError):
    """There is a reply, and it is not what was asked for; to ask again, in other words, may help."""


class CutReplyError(UnusableReplyError):
    """The reply ran into a limit of its length before it could be used; ask for less at a time, or allow more."""
