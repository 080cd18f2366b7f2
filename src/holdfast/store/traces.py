"""Looking for traces: which of many byte strings are anywhere in a folder's files, in one pass over the bytes.

A string of 15 bytes or more covers, wherever it lies, one whole word of 8 bytes at a multiple of 8: so each of its first windows
is looked up in a table, and the data are read word by word (a Rabin-Karp search by the word). Shorter strings are looked for at
every other offset that they may have.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.errors import InputError

_PIECE = 1 << 24
_FEW = 16
_WORD = 8
_BITS = 22  # of the table of words: 4 MB, which stay in a cache

Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def found(folder: Path, needles: Sequence[bytes]) -> dict[bytes, str]:
    """Which of some byte strings are anywhere in a folder's files, and the name of a file that holds it.

    To be called while the store's connections are ``away``. Raises InputError for a string under 8 bytes.
    """
    sought = Sought(needles)
    told: dict[bytes, str] = {}
    if not needles:
        return told
    longest = max(map(len, needles))
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with suppress(FileNotFoundError), file.open("rb") as reading:  # a log that another process just folded in
            tail = b""
            while piece := reading.read(_PIECE):
                data = tail + piece
                told.update(dict.fromkeys(sought.within(data), file.name))
                tail = data[-longest:]
    return told


class Sought:
    """Some byte strings, prepared to be looked for. Raises InputError for a string under 8 bytes."""

    def __init__(self, needles: Sequence[bytes]) -> None:
        if any(len(needle) < _WORD for needle in needles):
            raise InputError(f"only byte strings of {_WORD} bytes or more can be looked for")
        self._few = list(needles) if len(needles) <= _FEW else []
        self._groups: list[_Group] = []
        if not self._few:
            for stride, low, high in ((8, 15, 1 << 62), (4, 11, 15), (1, 8, 11)):
                some = [needle for needle in needles if low <= len(needle) < high]
                if some:
                    self._groups.append(_Group(some, stride))

    def within(self, data: bytes) -> set[bytes]:
        """Those of them that stand in some data."""
        there = {needle for needle in self._few if needle in data}
        for group in self._groups:
            there |= group.within(data)
        return there


class _Group:
    """Strings that are long enough to cover a word at a multiple of ``stride``, wherever they lie.

    Of each string ``stride`` windows are keys, from the place on where the commonest of them is as rare as can be among the
    windows of all strings: so that few words of the data have to be looked at more closely.
    """

    def __init__(self, needles: Sequence[bytes], stride: int) -> None:
        self._stride = stride
        self._needles = needles
        joined = np.frombuffer(b"".join(needles) + bytes(_WORD), np.uint8)
        windows = np.zeros(len(joined) - _WORD, np.uint64)
        for byte in range(_WORD):
            windows |= joined[byte : byte + len(windows)].astype(np.uint64) << np.uint64(8 * byte)
        lengths = np.fromiter(map(len, needles), np.int64, len(needles))
        starts = np.cumsum(lengths) - lengths
        bases = _rarest(windows, starts, lengths, stride)
        at = bases[:, None] + np.arange(stride)
        keys = windows[(starts[:, None] + at).ravel()]
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._owners = np.repeat(np.arange(len(needles)), stride)[order].tolist()
        self._at = at.ravel()[order].tolist()
        self._table = np.zeros(1 << _BITS, np.bool_)
        self._table[_spread(self._keys)] = True

    def within(self, data: bytes) -> set[bytes]:
        there: set[bytes] = set()
        for offset in range(0, min(_WORD, len(data) - _WORD + 1), self._stride):
            words = np.frombuffer(data, "<u8", (len(data) - offset) // _WORD, offset)
            maybe = np.flatnonzero(self._table[_spread(words)])
            first = np.searchsorted(self._keys, words[maybe])
            last = np.searchsorted(self._keys, words[maybe], "right")
            some = np.flatnonzero(last > first)
            starts = (offset + _WORD * maybe[some]).tolist()
            for start, one, end in zip(starts, first[some].tolist(), last[some].tolist(), strict=True):
                for key in range(one, end):
                    needle = self._needles[self._owners[key]]
                    begin = start - self._at[key]
                    if needle not in there and begin >= 0 and data.startswith(needle, begin):
                        there.add(needle)
        return there


def _rarest(windows: Words, starts: Places, lengths: Places, stride: int) -> Places:
    """Where in each string its keys begin."""
    places = _spread(windows)
    counts = np.bincount(places, minlength=1)[places]
    worst = counts.copy()
    for shift in range(1, stride):
        worst[:-shift] = np.maximum(worst[:-shift], counts[shift:])
    choices = lengths - (_WORD + stride - 2)
    ranges = zip(starts.tolist(), choices.tolist(), strict=True)
    return np.asarray([int(worst[start : start + count].argmin()) for start, count in ranges], np.int64)


def _spread(windows: Words) -> Places:
    return ((windows * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _BITS)).astype(np.int64)
