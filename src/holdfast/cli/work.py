"""The queue behind a command: vectors, names, dates and facts are made before the command ends, with a bar."""

from __future__ import annotations

from holdfast.cli.screen import Screen
from holdfast.memory import Memory


def finish_queue(memory: Memory, screen: Screen) -> int:
    """Embed and enrich what waits; return how many memories are left (their jobs failed).

    May be interrupted at any time: what is not done stays in the queue.
    """
    total = sum(jobs(memory).values())
    if not total:
        return 0
    with screen.bar(total, "indexing", unit=" jobs") as bar:

        def tick(_: str, done: int) -> None:
            bar.update(done)
            bar.total = max(bar.total or 0, bar.n)  # facts that were drawn add jobs of their own

        memory.flush(progress=tick)
    return pending(memory)


def jobs(memory: Memory) -> dict[str, int]:
    """How many jobs of each task wait that this program can do; vectors need an embedder."""
    able = memory.recall.embedder is not None
    return {task: count for task, (count, _, _) in memory.store.queue.backlog().items() if able or task != "embed"}


def pending(memory: Memory) -> int:
    """How many memories are not fully indexed yet."""
    return max(jobs(memory).values(), default=0)
