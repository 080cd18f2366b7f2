"""What the store asks of its database: one body of SQL runs in SQLite and in PostgreSQL, and this is all that differs.

A statement marks its values with ``?``, or with ``?1`` where one value stands in it several times. It never names a tenant:
where tenants are apart (PostgreSQL), the transaction says whose rows it sees. Only where it joins two tables it marks that their
rows are of one tenant, ``/*= cubes uses */``, since every key leads with that there; to SQLite it is a comment. No statement needs
a key to say what happens to a row that is there already (``ON CONFLICT (...)``): tables that are spread over servers have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

WHOLE = "\0"
"""In place of a tenant, whose name it cannot be: the transaction is the owner's, and sees the rows of everybody."""

STORE = ""
"""In place of a tenant, whose name it cannot be either: what the store notes of itself, and nobody's memories."""


class Cursor(Protocol):
    """What came of a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchmany(self, size: int = ..., /) -> list[Any]:
        """The next rows, at most ``size``; empty at the end."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """One transaction's connection; a row is a tuple of int, float, str, bytes and None."""

    text_factory: Any
    """How SQLite reads a text; elsewhere it is not looked at."""

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> object:
        """Run one statement for each of some rows of values."""
        ...


class Engine(Protocol):
    """The database of one store, for any number of threads.

    ``tenant`` in what follows: whose rows are read or changed; WHOLE, or None for the rows of a transaction that is open
    already, and of everybody where there is none. An embedded store, which keeps all tenants in one chain, ignores it.
    """

    reads_json: bool
    """Whether it reads JSON as SQLite does."""

    searches: bool
    """Whether it may be able to search vectors by itself: see ``nearest``."""

    @property
    def skipping(self) -> str:
        """What a query of rows that are to be changed ends with, so that it leaves out those that others are changing; "" where
        none can, and whoever writes is to be alone."""
        ...

    @property
    def durability(self) -> str:
        """ "full" or "normal"."""
        ...

    def reader(self, tenant: str | None = None) -> AbstractContextManager[Database]:
        """A connection for reading, this thread's own until the block ends."""
        ...

    def reading(self, tenant: str | None = None) -> AbstractContextManager[Database]:
        """A consistent view: everything read inside is of one moment; in a nested block, of the outer one's."""
        ...

    def writing(
        self, tenant: str | None = None, *, lazily: bool = False, alone: bool = True, quietly: bool = False
    ) -> AbstractContextManager[Database]:
        """One transaction, the only one that writes to that tenant; all of it becomes durable, or none of it.

        ``lazily``: it may become durable later, where the worst is that it is done again. ``quietly``: no index has to follow it.
        ``alone``: false for what others may do at the same time, quietly.
        """
        ...

    def chains(self) -> Sequence[str]:
        """The tenants that have a journal of their own; [WHOLE] where all share one."""
        ...

    def heads(self) -> Mapping[str, tuple[int, bytes]]:
        """The newest event of each chain that has one: its seq and hash."""
        ...

    def tenant_of(self, part: int) -> str | None:
        """Whose a partition is; of a number that is no partition's, "", to whom nothing belongs."""
        ...

    def by_tenant(self, rids: Iterable[int]) -> Mapping[str | None, list[int]]:
        """Row numbers by whose they are, without those of partitions that are not there."""
        ...

    def owners_of(self, ids: Iterable[bytes]) -> Mapping[str | None, list[bytes]]:
        """Memories' ids by the tenants whose journal knows them."""
        ...

    def noted(self, part: int, tenant: str) -> None:
        """Remember whose a partition is, which never changes."""
        ...

    def data_version(self, part: int | None) -> tuple[int, int]:
        """(connection, number): for one connection the number changes whenever another has committed to a partition's tenant."""
        ...

    def make_vectors(self, connection: Database, no: int, dimension: int, /) -> None:
        """Make a model's table, a fold: a row number, and bytes."""
        ...

    def queue_all(self, connection: Database, task: str) -> None:
        """Owe a task to every current memory with words."""
        ...

    def hold_off(self, connection: Database) -> None:
        """From here to the end of a transaction of the whole store nobody else writes; what others had begun is there."""
        ...

    def held_off(self) -> AbstractContextManager[object]:
        """While the block runs, nobody writes to the store; what is read is of this moment."""
        ...

    def numbered(self) -> None:
        """Make sure that the next partition gets a number of its own, after some were brought with theirs."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...
