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
    """Strings that are long enough to cover a word at a multiple of ``stride``, wherever they lie."""

    def __init__(self, needles: Sequence[bytes], stride: int) -> None:
        self._stride = stride
        keys: dict[int, list[tuple[bytes, int]]] = {}
        for needle, base in zip(needles, _rarest(needles, stride), strict=True):
            for at in range(base, base + stride):
                keys.setdefault(int.from_bytes(needle[at : at + _WORD], "little"), []).append((needle, at))
        self._keys = keys
        self._known = np.sort(np.fromiter(keys, np.uint64, len(keys)))
        self._table = np.zeros(1 << _BITS, np.bool_)
        self._table[_spread(self._known)] = True

    def within(self, data: bytes) -> set[bytes]:
        there: set[bytes] = set()
        for offset in range(0, min(_WORD, len(data) - _WORD + 1), self._stride):
            words = np.frombuffer(data, "<u8", (len(data) - offset) // _WORD, offset)
            maybe = np.flatnonzero(self._table[_spread(words)])
            some = words[maybe]
            at = np.minimum(np.searchsorted(self._known, some), len(self._known) - 1)
            for word in maybe[self._known[at] == some].tolist():
                start = offset + _WORD * word
                there.update(
                    needle
                    for needle, within in self._keys[int(words[word])]
                    if start >= within and needle not in there and data.startswith(needle, start - within)
                )
        return there


def _rarest(needles: Sequence[bytes], stride: int) -> list[int]:
    """Of each string where ``stride`` windows begin of which the commonest is as rare as can be among all strings' windows."""
    joined = np.frombuffer(b"".join(needles) + bytes(2 * _WORD), np.uint8).astype(np.uint64)
    windows = np.zeros(len(joined) - _WORD, np.uint64)
    for byte in range(_WORD):
        windows |= joined[byte : byte + len(windows)] << np.uint64(8 * byte)
    places = _spread(windows)
    counts = np.bincount(places, minlength=1)[places]
    worst = counts.copy()
    for shift in range(1, stride):
        worst[:-shift] = np.maximum(worst[:-shift], counts[shift:])
    bases, start = [], 0
    for needle in needles:
        choice = len(needle) - _WORD - stride + 2
        bases.append(int(worst[start : start + choice].argmin()))
        start += len(needle)
    return bases


def _spread(windows: Words) -> npt.NDArray[np.int64]:
    return ((windows * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _BITS)).astype(np.int64)
