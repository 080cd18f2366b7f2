"""Pages: no page has two owners unless it is shared, what is freed is free, and whatever fails loses nothing."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.errors import InputError, OutOfPagesError, PageError
from holdfast.latent.mapped_pages import MappedPages
from holdfast.latent.page_slots import Layout, PageSlots
from holdfast.latent.pages import PAGE_BYTES, CountedPages, PagePool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages of memory are made on Linux alone")

PAGE = 4096
SLOTS, TOKENS, PAGES = 4, 16, 28
SOMETIMES = st.sampled_from([None] * 12 + [*range(6)])  # after how many calls the system refuses one


class Checked:
    """A back end over another that knows what lies where, holds callers to the protocol, and fails when it is told to."""

    def __init__(self, inner) -> None:
        self.inner, self.page_bytes, self.device = inner, inner.page_bytes, inner.device
        self.at: dict[int, int] = {}
        self.reserved: list[range] = []
        self.stuck: set[int] = set()
        self.fail: int | None = None

    def _may_fail(self) -> None:
        if self.fail is not None:
            self.fail -= 1
            if self.fail < 0:
                self.fail = None
                raise PageError("told to fail")

    @property
    def resident(self) -> int:
        return self.inner.resident

    def reserve(self, size: int) -> int:
        start = self.inner.reserve(size)
        assert size % self.page_bytes == 0 and not any(
            start < one.stop and one.start < start + size for one in self.reserved
        )
        self.reserved.append(range(start, start + size))
        return start

    def map(self, address: int, pages) -> None:
        self._may_fail()
        assert pages
        for at, page in enumerate(pages):
            here = address + at * self.page_bytes
            assert any(here in one and here + self.page_bytes <= one.stop for one in self.reserved)
            assert here not in self.at, "a page was mapped over another"
            self.at[here] = page
        self.inner.map(address, list(pages))

    def unmap(self, address: int, drop) -> None:
        try:
            self._may_fail()
        except PageError:
            self.stuck.add(address)
            raise
        page = self.at.pop(address)
        self.stuck.discard(address)
        assert drop in (None, page)
        if drop is not None:
            assert not any(other == page and at not in self.stuck for at, other in self.at.items()), (
                "dropped under another"
            )
        self.inner.unmap(address, drop)

    def copy(self, to: int, source: int) -> None:
        self._may_fail()
        assert to in self.at and source in self.at
        self.inner.copy(to, source)

    def close(self) -> None:
        self.inner.close()


class Laws(RuleBasedStateMachine):
    """Any requests, any failures: what each wrote is what it reads, and the books add up. On real memory."""

    @initialize(
        heads=st.sampled_from([512, 768, 1024]), fused=st.booleans(), deferred=st.booleans(), real=st.booleans()
    )
    def begin(self, heads: int, fused: bool, deferred: bool, real: bool) -> None:
        self.begin_with(heads, fused, deferred, real)
        self.written = {slot: [] for slot in range(SLOTS)}  # of each token the byte that fills it in every tensor
        self.next = 0
        first = self.slots.take()
        self.slots.step({first: 6})
        self.fill(first, 0, 6)

    def begin_with(self, heads: int, fused: bool, deferred: bool, real: bool) -> None:
        self.real = real
        self.backend = Checked(MappedPages(PAGE, guarded=True) if real else CountedPages(PAGE))
        self.layout = Layout(2, heads, 1, 1, PAGE, fused)
        self.pool = PagePool(self.backend, PAGES)
        self.slots = PageSlots(self.pool, self.layout, SLOTS, TOKENS, deferred=deferred)

    def most_resident(self, held: int) -> int:
        return held * PAGE

    def touch(self) -> None:
        """Whoever owns pages has used them."""

    def teardown(self) -> None:
        if hasattr(self, "backend"):
            self.backend.close()
            assert self.backend.resident == 0

    def tried(self, call) -> bool:
        """Whether it went through; lengths are then the caller's to know, else as they were."""
        before = list(self.slots.lengths)
        try:
            call()
        except PageError:
            assert self.slots.lengths == before or call.__name__ in ("freed", "shrunk")
            return False
        finally:
            self.backend.fail = None
        return True

    def fill(self, slot: int, start: int, stop: int) -> None:
        for at in range(start, stop):
            self.next = self.next % 255 + 1
            self.written[slot][at:] = [self.next]
            if self.real:
                for tensor in range(self.layout.tensors):
                    first = self.slots.address(tensor, slot) + at * self.layout.token
                    ctypes.memset(first, self.next, self.layout.token)
        self.touch()

    @rule(tokens=st.integers(0, TOKENS))
    def take(self, tokens: int) -> None:
        idle = {slot: self.slots.mapped(slot) for slot in range(SLOTS) if slot not in self.slots.taken}
        slot = self.slots.take(tokens)
        if slot is None:
            assert not idle
            return
        enough = [count for count in idle.values() if count >= self.layout.blocks(tokens)]
        assert idle[slot] == min(enough) if enough else slot == min(idle)
        self.written[slot] = []

    @rule(count=st.integers(1, 3))
    def take_run(self, count: int) -> None:
        before = self.slots.taken
        first = self.slots.take_run(count)
        if first is not None:
            assert before.isdisjoint(range(first, first + count))
            for slot in range(first, first + count):
                self.written[slot] = []

    @rule(data=st.data(), fail=SOMETIMES)
    @precondition(lambda self: self.slots.taken)
    def step(self, data, fail) -> None:
        some = data.draw(st.sets(st.sampled_from(sorted(self.slots.taken)), min_size=1, max_size=2))
        most = {slot: min(self.slots.lengths[slot] + 4, TOKENS) for slot in sorted(some)}
        lengths = {slot: data.draw(st.integers(0, most[slot])) for slot in sorted(some)}
        self.backend.fail = fail
        if self.tried(lambda: self.slots.step(lengths)):
            for slot, length in lengths.items():
                start = len(self.written[slot])
                del self.written[slot][length:]
                self.fill(slot, start, length)

    @rule(steps=st.integers(1, 12), fail=SOMETIMES)
    @precondition(lambda self: self.slots.taken)
    def ahead(self, steps: int, fail) -> None:
        self.backend.fail = fail
        self.tried(lambda: self.slots.ahead(steps))

    @rule(data=st.data(), now=st.booleans(), fail=SOMETIMES)
    @precondition(lambda self: self.slots.taken)
    def end(self, data, now: bool, fail) -> None:
        slot = data.draw(st.sampled_from(sorted(self.slots.taken)))
        self.backend.fail = fail

        def freed() -> None:
            self.slots.free(slot, now=now)

        if self.tried(freed) and now:
            assert self.slots.mapped(slot) == 0
        self.written[slot] = []

    @rule(data=st.data(), fail=SOMETIMES)
    @precondition(lambda self: self.slots.taken)
    def shrink(self, data, fail) -> None:
        slot = data.draw(st.sampled_from(sorted(self.slots.taken)))
        length = data.draw(st.integers(0, self.slots.lengths[slot]))
        self.backend.fail = fail

        def shrunk() -> None:
            self.slots.shrink(slot, length)

        if self.tried(shrunk):
            assert self.slots.mapped(slot) == self.layout.blocks(length)
        del self.written[slot][length:]

    @rule(data=st.data(), fail=SOMETIMES)
    @precondition(lambda self: any(self.slots.lengths) and len(self.slots.taken) < SLOTS)
    def fork(self, data, fail) -> None:
        source = data.draw(st.sampled_from([slot for slot in range(SLOTS) if self.slots.lengths[slot]]))
        tokens = data.draw(st.integers(0, self.slots.lengths[source]))
        to = self.slots.take()
        self.written[to] = []
        self.backend.fail = fail
        if self.tried(lambda: self.slots.share(source, to, tokens)):
            self.written[to] = self.written[source][:tokens]
            assert self.slots.pages(to) == self.slots.pages(source)[: self.layout.blocks(tokens)]

    @rule(data=st.data(), fail=SOMETIMES)
    @precondition(lambda self: any(self.slots.lengths))
    def rewrite(self, data, fail) -> None:
        slot = data.draw(st.sampled_from([slot for slot in range(SLOTS) if self.slots.lengths[slot]]))
        start = data.draw(st.integers(0, self.slots.lengths[slot] - 1))
        self.backend.fail = fail
        if self.tried(lambda: self.slots.writable(slot, start, start + 1)):
            after = self.written[slot][start + 1 :]
            self.fill(slot, start, start + 1)
            self.written[slot][start + 1 :] = after

    @rule()
    def reclaim(self) -> None:
        self.slots.reclaim()
        assert self.slots.free_blocks * self.layout.tensors <= self.pool.free

    @invariant()
    def the_books_add_up(self) -> None:
        if not hasattr(self, "slots"):
            return
        tensors = range(self.layout.tensors)
        held = Counter(page for slot in range(SLOTS) for tensor in tensors for page in self.slots.pages(slot, tensor))
        assert all(self.pool.owners(page) == count for page, count in held.items()), "owners that nobody counted"
        assert sum(count > 1 for count in held.values()) == self.pool.shared
        assert self.pool.free + len(held) == PAGES, "pages were lost or made"
        lies = {
            self.slots.address(tensor, slot, at): page
            for slot in range(SLOTS)
            for tensor in tensors
            for at, page in enumerate(self.slots.pages(slot, tensor))
        }
        assert {at: page for at, page in self.backend.at.items() if at not in self.backend.stuck or at in lies} == lies
        assert all(
            self.slots.mapped(slot) >= self.layout.blocks(length) for slot, length in enumerate(self.slots.lengths)
        )
        assert self.backend.resident <= self.most_resident(len(held)), "what was freed is still there"
        stats = self.slots.stats()
        assert stats.used + stats.wasted == held.total() * PAGE and stats.free == self.pool.free

    @invariant()
    def everyone_reads_what_they_wrote(self) -> None:
        if not hasattr(self, "slots") or not self.real:
            return
        for slot, written in self.written.items():
            assert len(written) == self.slots.lengths[slot]
            for tensor in range(self.layout.tensors):
                found = (
                    ctypes.string_at(self.slots.address(tensor, slot), len(written) * self.layout.token)
                    if written
                    else b""
                )
                assert found == b"".join(bytes([byte]) * self.layout.token for byte in written)


TestLaws = Laws.TestCase
TestLaws.settings = settings(stateful_step_count=50)


# --- the arithmetic of the paper ---


@pytest.mark.parametrize(
    ("page", "fused", "tokens", "block"),
    [(2 * 2**20, False, 1024, 128 * 2**20), (65536, False, 32, 4 * 2**20), (2 * 2**20, True, 32, 4 * 2**20)],
)
def test_blocks_are_those_of_the_paper(page: int, fused: bool, tokens: int, block: int) -> None:
    layout = Layout(layers=32, heads=8, size=128, item=2, page=page, fused=fused)
    assert layout.room(1) == tokens and layout.tensors * page == block
    assert [layout.blocks(count) for count in (0, 1, tokens, tokens + 1)] == [0, 1, 1, 2]


@given(st.integers(1, 70), st.integers(1, 5), st.integers(0, 500), st.booleans())
def test_blocks_hold_what_they_are_for_and_none_is_spare(heads: int, layers: int, tokens: int, fused: bool) -> None:
    layout = Layout(layers, heads, 24, 2, PAGE, fused)
    blocks = layout.blocks(tokens)
    assert layout.room(blocks) >= tokens and (not blocks or layout.room(blocks - 1) < tokens)


def made(pages: int = 16, slots: int = 4, tokens: int = 40, **given) -> PageSlots:
    """Slots whose blocks are one page of two tensors, of four tokens."""
    return PageSlots(PagePool(CountedPages(PAGE), pages), Layout(1, 1024, 1, 1, PAGE), slots, tokens, **given)


def test_what_has_ended_serves_the_next_one_that_fits_best() -> None:
    slots = made(pages=40)
    sizes = {slots.take(): length for length in (16, 8, 12)}
    slots.step(sizes)
    for slot in (0, 1, 2):
        slots.free(slot)
    mapped = slots.pool.backend.maps
    assert slots.take(9) == 2 and slots.take(20) == 0  # the fewest that are enough; else the first
    assert slots.step({2: 12}) == 0 and slots.pool.backend.maps == mapped and slots.pool.backend.unmaps == 0


def test_without_deferral_what_has_ended_is_free_at_once() -> None:
    slots = made(deferred=False)
    slot = slots.take()
    slots.step({slot: 16})
    slots.free(slot)
    assert slots.pool.free == 16 and slots.mapped(slot) == 0


def test_what_is_short_is_taken_from_the_last_slot_that_does_not_need_it() -> None:
    slots = made(pages=16)
    for _ in range(4):
        slots.take()
    slots.step({0: 8, 1: 8, 2: 8, 3: 8})
    slots.step({1: 4, 3: 4})
    assert slots.pool.free == 0 and slots.free_blocks == 2
    slots.step({0: 9})
    assert [slots.mapped(slot) for slot in range(4)] == [3, 2, 2, 1]
    with pytest.raises(OutOfPagesError, match="free"):
        slots.step({0: 13, 2: 13})
    assert slots.lengths == [9, 4, 8, 4]


def test_the_next_token_is_mapped_ahead_and_two_blocks_beyond() -> None:
    slots = made(pages=40)
    for _ in range(4):
        slots.take()
    slots.step({0: 4, 1: 3, 2: 2, 3: 1})
    assert slots.ahead() == 2  # of the first its next token's; of the second, one token on, one more
    assert [slots.mapped(slot) for slot in range(4)] == [2, 2, 1, 1]
    assert slots.step({0: 5, 1: 4, 2: 3, 3: 2}) == 0


def test_to_map_ahead_takes_nothing_from_anyone_where_it_is_short() -> None:
    slots = made(pages=4)
    slots.take(), slots.take()
    slots.step({0: 4, 1: 4})
    assert slots.ahead() == 0 and slots.lengths[:2] == [4, 4] and slots.mapped(0) == slots.mapped(1) == 1


@pytest.mark.parametrize("shared", [True, False])
def test_a_slot_whose_pages_others_read_is_never_written_by_the_next(shared: bool) -> None:
    slots = made(pages=40)
    first, second = slots.take(), slots.take()
    slots.step({first: 8})
    if shared:
        slots.share(first, second, 8)
    slots.free(first)
    assert slots.mapped(first) == (0 if shared else 2)
    again = slots.take()
    slots.step({again: 8})
    assert not set(slots.pages(again)) & set(slots.pages(second))


def test_a_step_that_fails_takes_nothing_of_a_slot_that_was_to_shrink_in_it() -> None:
    slots = made(pages=8)
    slots.take(), slots.take()
    slots.step({0: 8, 1: 8})
    with pytest.raises(OutOfPagesError):
        slots.step({0: 1, 1: 24})
    assert slots.lengths[:2] == [8, 8] and slots.mapped(0) == 2


@pytest.mark.parametrize("after", range(5))
def test_a_copy_that_fails_at_any_call_leaves_what_was_shared(after: int) -> None:
    backend = Checked(MappedPages(PAGE, guarded=True))
    slots = PageSlots(PagePool(backend, 8), Layout(1, 1024, 1, 1, PAGE), 2, 40)
    slots.take(), slots.take()
    slots.step({0: 4})
    for tensor in range(2):
        ctypes.memset(slots.address(tensor, 0), 7, PAGE)
    slots.share(0, 1, 4)
    before, backend.fail = backend.resident, after
    with pytest.raises(PageError, match="told"):
        slots.writable(1, 0, 4)
    for slot in range(2):
        assert ctypes.string_at(slots.address(0, slot), PAGE) == b"\7" * PAGE
    copied = slots.pages(0)[0] != slots.pages(1)[0]
    assert copied is (after == 4)  # the last call only tidies up
    assert backend.resident == before + copied * PAGE and slots.pool.free == 6 - copied
    slots.writable(1, 0, 4)
    assert slots.pool.shared == 0 and slots.pool.free == 4
    backend.close()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="whole numbers"):
        Layout(1, 1, 1, 3, PAGE)
    with pytest.raises(InputError, match="a pool has"):
        PagePool(CountedPages(), 0)
    with pytest.raises(InputError, match="are 2097152"):
        PageSlots(PagePool(CountedPages(PAGE_BYTES), 4), Layout(1, 1, 1, 1, PAGE), 1, 1)
    slots = made()
    with pytest.raises(InputError, match="nobody's"):
        slots.step({0: 1})
    slot = slots.take()
    with pytest.raises(InputError, match="0 to 40"):
        slots.step({slot: 41})
    with pytest.raises(InputError, match="cannot be kept"):
        slots.shrink(slot, 1)
    with pytest.raises(InputError, match="another slot"):
        slots.share(slot, slot, 0)


# --- the memory of this machine ---


def test_addresses_cost_nothing_and_what_is_dropped_is_gone() -> None:
    backend = MappedPages()
    size = 2**36
    start = backend.reserve(size)
    assert backend.resident == 0 and _rss() < 2**33
    backend.map(start + size // 2, [0, 1, 5])
    assert backend.resident == 0  # nothing was written yet
    before = _rss()
    ctypes.memset(start + size // 2, 7, 3 * PAGE_BYTES)
    assert backend.resident == 3 * PAGE_BYTES and _rss() - before > 2.9 * PAGE_BYTES
    assert backend.maps() >= 3  # two for the pages, for those in a row count as one, and the rest
    for at, page in enumerate((0, 1, 5)):
        backend.unmap(start + size // 2 + at * PAGE_BYTES, page)
    assert backend.resident == 0 and _rss() - before < 0.5 * PAGE_BYTES
    assert ctypes.string_at(start, 8) == bytes(8)  # unguarded: what nothing lies behind reads as zeros
    backend.map(start, [5])
    assert ctypes.string_at(start, PAGE_BYTES) == bytes(PAGE_BYTES), "the bytes of an earlier owner came back"
    backend.close()


def test_one_page_lies_behind_two_addresses() -> None:
    backend = MappedPages(PAGE)
    start = backend.reserve(4 * PAGE)
    backend.map(start, [0])
    backend.map(start + 2 * PAGE, [0])
    ctypes.memset(start, 9, 3)
    assert ctypes.string_at(start + 2 * PAGE, 4) == b"\t\t\t\0" and backend.resident == PAGE
    backend.unmap(start, None)
    assert ctypes.string_at(start + 2 * PAGE, 3) == b"\t\t\t"
    backend.close()
    backend.close()
    assert backend.resident == 0


@pytest.mark.parametrize("guarded", [True, False])
def test_guarded_addresses_end_whoever_touches_them(guarded: bool) -> None:
    code = (
        "import ctypes; from holdfast.latent.mapped_pages import MappedPages\n"
        f"backend = MappedPages(4096, guarded={guarded}); start = backend.reserve(8192); backend.map(start, [0])\n"
        "ctypes.string_at(start, 4096); print('read', flush=True); ctypes.string_at(start + 4096, 1); print('read too')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[:-1] == (["read"] if guarded else ["read", "read too"])
    assert (done.returncode == 0) is not guarded


def test_the_system_s_refusal_is_an_error_and_changes_nothing() -> None:
    backend = MappedPages(PAGE)
    with pytest.raises(PageError, match="would not map"):
        backend.reserve(2**60)
    start = backend.reserve(4 * PAGE)
    with pytest.raises(PageError, match="would not map"):
        backend.map(start + 1, [0])
    with pytest.raises(PageError, match="grow"):
        backend.map(start, [2**51])
    assert backend.resident == 0 and ctypes.string_at(start, PAGE) == bytes(PAGE)
    with pytest.raises(InputError, match="whole pages"):
        MappedPages(1000)


def test_a_run_of_pages_is_mapped_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.latent import mapped_pages

    backend = MappedPages(PAGE)
    start, real, calls = backend.reserve(8 * PAGE), mapped_pages._mapped, []

    def mapped(address, size, access, flags, file, offset):
        calls.append(file)
        if len([one for one in calls if one != -1]) == 3 and file != -1:
            raise PageError("the system would not")
        return real(address, size, access, flags, file, offset)

    monkeypatch.setattr(mapped_pages, "_mapped", mapped)
    with pytest.raises(PageError):
        backend.map(start, [0, 2, 4])
    assert backend.maps() == 1  # one bare range again
    backend.close()


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
