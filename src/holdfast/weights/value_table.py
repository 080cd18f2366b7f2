"""A table of vectors, a row for each token of a vocabulary, in memory or on disk; rows are fetched ahead and trained alone.

The table of arXiv 2601.22887 (MoVE), V x (M·D) numbers, of which a text needs the rows of its own tokens and no others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from holdfast.errors import InputError
from holdfast.torched import Tensor, torch
from holdfast.weights.mapped import MappedTensor
from holdfast.weights.sparse_adam import AdamW

PROFILE = ()  # where memory lies: ``value_bank`` says what it is


class _InMemory:
    """Rows in a computer's memory, with the methods of ``MappedTensor``."""

    def __init__(self, *shape: int, kind: torch.dtype) -> None:
        self.rows = torch.zeros(shape, dtype=kind)

    def read(self, rows: Tensor) -> Tensor:
        return self.rows[rows]

    def write(self, rows: Tensor, values: Tensor) -> None:
        self.rows[rows] = values.detach().to("cpu", self.rows.dtype)

    def erase(self, rows: Iterable[int]) -> None:
        self.rows[torch.tensor([*rows], dtype=torch.int64)] = 0

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class ValueTable:
    """Rows of ``width`` numbers, ``count`` of them, zeros at first.

    Args:
        folder: where they lie; None: in memory.
        key: of all that must match before files are used again.
        kind: of the numbers, float32 or bfloat16; moments are float32.
        keep: so many rows stay in memory once read from disk, the latest used.
        zero: rows that stay zero, those of padding and of other tokens that say nothing.

    Raises what ``MappedTensor`` does.
    """

    def __init__(
        self,
        count: int,
        width: int,
        *,
        folder: Path | None = None,
        key: dict[str, Any] | None = None,
        kind: torch.dtype = torch.float32,
        keep: int = 1024,
        zero: Iterable[int] = (),
    ) -> None:
        self.count, self.width = count, width
        self.zero = tuple(sorted({*zero}))
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

        def file(name: str, *row: int, kind: torch.dtype) -> MappedTensor | _InMemory:
            if folder is None:
                return _InMemory(count, *row, kind=kind)
            return MappedTensor(folder / f"{name}.safetensors", (count, *row), {**(key or {}), "of": name}, kind)

        self._rows = file("values", width, kind=kind)
        self._moments = file("moments", 2, width, kind=torch.float32)
        self._steps = file("steps", kind=torch.int32)
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._keep, self._lock = keep, Lock()
        self._coming: list[Future[None]] = []
        self._reader = ThreadPoolExecutor(1) if folder is not None else None
        self.version = 0

    @property
    def kept(self) -> tuple[int, ...]:
        """The rows from disk that are in memory, the latest used last."""
        return tuple(self._kept)

    def read(self, ids: Tensor) -> Tensor:
        """Rows of ids, each of them once, shape (U,): shape (U, width), in memory of their own. Raises InputError."""
        self._check(ids)
        if self._reader is None or len(ids) > self._keep:
            return self._rows.read(ids)
        self._arrived()
        with self._lock:
            self._load(ids.tolist())
            return torch.stack([self._kept[one] for one in ids.tolist()])

    def prefetch(self, ids: Iterable[int]) -> None:
        """Begin to read rows that will be asked for; they come while the model computes. From memory nothing need come."""
        some = [*dict.fromkeys(ids)][: self._keep]
        self._check(torch.tensor(some, dtype=torch.int64))
        if self._reader is not None and some:

            def read() -> None:
                with self._lock:
                    self._load(some)

            self._coming.append(self._reader.submit(read))

    def write(self, ids: Tensor, rows: Tensor) -> None:
        """Put rows in place, but for those that stay zero."""
        self._check(ids)
        ids, rows = self._learning(ids, rows)
        self._rows.write(ids, rows)
        self._changed(ids.tolist())

    def step(self, ids: Tensor, gradient: Tensor, rule: AdamW, share: float = 1.0) -> None:
        """A step of AdamW for these rows alone, none of them twice; ``gradient`` has shape (U, width)."""
        self._check(ids)
        ids, gradient = self._learning(ids, gradient)
        moments, steps = self._moments.read(ids), self._steps.read(ids)
        rows = self._rows.read(ids).float()
        rule.step(rows, gradient.float().cpu(), moments, steps, share)
        self._rows.write(ids, rows)
        self._moments.write(ids, moments)
        self._steps.write(ids, steps)
        self._changed(ids.tolist())

    def state(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The optimiser's of some rows: moments, shape (U, 2, width), and steps, shape (U,)."""
        return self._moments.read(ids), self._steps.read(ids)

    def restore(self, ids: Tensor, rows: Tensor, moments: Tensor, steps: Tensor) -> None:
        """Put back what ``read`` and ``state`` gave."""
        self._rows.write(ids, rows)
        self._moments.write(ids, moments)
        self._steps.write(ids, steps)
        self._changed(ids.tolist())

    def erase(self, ids: Iterable[int]) -> None:
        """Zeros over rows and over what was kept of their training, on disk when this returns."""
        some = [*ids]
        self._check(torch.tensor(some, dtype=torch.int64))
        for one in (self._rows, self._moments, self._steps):
            one.erase(some)
        self._changed(some)

    def flush(self) -> None:
        """Wait until all is on disk."""
        for one in (self._rows, self._moments, self._steps):
            one.flush()

    def close(self) -> None:
        """Let the files go."""
        self._arrived()
        if self._reader is not None:
            self._reader.shutdown()
        for one in (self._rows, self._moments, self._steps):
            one.close()

    def _arrived(self) -> None:
        coming, self._coming = self._coming, []
        for one in coming:
            one.result()

    def _load(self, ids: list[int]) -> None:
        missing = [one for one in ids if one not in self._kept]
        if missing:
            rows = self._rows.read(torch.tensor(missing))
            # Of memory of its own each: one that stays would keep all that was read with it.
            self._kept.update((one, row.clone()) for one, row in zip(missing, rows, strict=True))
        for one in ids:
            self._kept.move_to_end(one)
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)

    def _learning(self, ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if not self.zero:
            return ids, values
        may = ~torch.isin(ids, torch.tensor(self.zero))
        return ids[may], values[may.to(values.device)]

    def _changed(self, ids: Iterable[int]) -> None:
        self._arrived()  # nothing that was read before may come in after
        self.version += 1
        with self._lock:
            for one in ids:
                self._kept.pop(one, None)

    def _check(self, ids: Tensor) -> None:
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.count):
            raise InputError(f"the table has a row for each id from 0 to {self.count - 1}, and was asked for another")
