"""Claim 45's rehearsal: the trace is the packed one, every request is served whole, and each memory counts as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.claims.serving import FILE, SLOTS, Blocks, Request, Reserved, Virtual, load, served
from holdfast.errors import ClaimError
from holdfast.latent.page_slots import Layout

TOKEN = 2 * 2 * 2 * 16 * 2  # two layers of two heads of 16 numbers, keys and values, in 16 bits
LAYOUT = Layout(2, 2, 16, 2, 4096)
BUDGET = 4096 * 2 * 40


def virtual(budget: int = BUDGET, **given) -> Virtual:
    return Virtual(budget, LAYOUT, 600, **{"ahead": True, "deferred": True, **given})


def some(count: int) -> list[Request]:
    return [Request(20 + 37 * at % 200, 5 + 11 * at % 60) for at in range(count)]


def test_the_packed_trace_is_the_first_part_of_the_whole(tmp_path: Path) -> None:
    packed = load(None, packed=True)
    assert len(packed) == 600 and packed[0] == Request(7564, 192)
    assert min(one.answer for one in packed) > 0 and max(one.prompt + one.answer for one in packed) <= 65_536
    with pytest.raises(ClaimError, match="not packed"):
        load(tmp_path, packed=False)
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text("num_prefill_tokens,num_decode_tokens\n5.0,2.0\n")
    assert load(tmp_path, packed=False) == [Request(5, 2)]
    (tmp_path / FILE).write_text("prompt,answer\n5,2\n")
    with pytest.raises(ClaimError, match="laid out otherwise"):
        load(tmp_path, packed=False)


@pytest.mark.parametrize(
    "made",
    [
        virtual,
        lambda: virtual(ahead=False),
        lambda: virtual(deferred=False),
        lambda: Blocks(BUDGET, TOKEN, 16),
        lambda: Reserved(BUDGET, TOKEN, 300),
    ],
)
def test_every_token_of_every_request_is_said(made) -> None:
    requests, memory = some(60), made()
    found = served(requests, memory, TOKEN, 1)
    assert round(found["requests at once, to the end"] * found["steps"]) == sum(one.answer for one in requests)
    assert 0 < found["requests at once"] <= found["requests at once, most"] <= SLOTS
    assert found == served(requests, made(), TOKEN, 1) != served(requests, made(), TOKEN, 2)


def test_whoever_is_sent_back_comes_again_and_says_the_rest() -> None:
    requests = [Request(30, 200)] * 12
    for memory in (virtual(), Blocks(BUDGET, TOKEN, 16)):
        found = served(requests, memory, TOKEN, 0)
        assert found["sent back"] > 0
        assert round(found["requests at once, to the end"] * found["steps"]) == 12 * 200


def test_what_is_mapped_ahead_is_not_waited_for_and_what_is_deferred_not_mapped_again() -> None:
    ample = 100 * BUDGET  # where memory is short, some are waited for all the same
    ours, waits, gives = virtual(ample), virtual(ample, ahead=False), virtual(ample, deferred=False)
    for memory in (ours, waits, gives):
        served(some(300), memory, TOKEN, 0)
    assert ours.waited == 0 < waits.waited and waits.mapped_ahead == 0 < ours.mapped_ahead
    assert waits.counted.maps == waits.waited + waits.prompts
    assert gives.counted.unmaps > ours.counted.unmaps and gives.prompts > ours.prompts


def test_a_request_longer_than_all_memory_is_told() -> None:
    for memory in (Blocks(BUDGET, TOKEN, 16), virtual()):
        for request in (Request(100_000, 1), Request(100, 100_000)):
            if isinstance(memory, Blocks) or request.prompt > 600:
                with pytest.raises(ClaimError, match="longer than all memory"):
                    served([request], memory, TOKEN, 0)


def test_reserved_space_serves_as_many_as_fit_at_their_longest() -> None:
    found = served(some(30), Reserved(BUDGET, TOKEN, 300), TOKEN, 0)
    assert found["requests at once, most"] == BUDGET // (300 * TOKEN) and found["sent back"] == 0
