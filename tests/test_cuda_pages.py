"""Pages of a GPU: the calls are the ones that CUDA documents, in their order, each answer is looked at, and what fails is taken back.

Most of it is played (``played_driver``); what needs a GPU is skipped where there is none.
"""

from __future__ import annotations

import ctypes
import gc
import sys

import pytest
from hypothesis import settings

from holdfast.errors import InputError, OutOfPagesError, PageError
from holdfast.latent.cuda_pages import CudaPages
from holdfast.latent.page_slots import Layout, PageSlots
from holdfast.latent.pages import PagePool
from played_driver import CUresult, Driver
from test_pages import PAGE, PAGES, SLOTS, TOKENS, Checked, Laws

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the driver is played in memory that Linux alone has")


class PlayedLaws(Laws):
    """The laws of every pool, with the calls of CUDA between the pool and the memory."""

    def begin_with(self, heads: int, fused: bool, deferred: bool, real: bool) -> None:
        self.real = True
        self.driver = Driver()
        inner = CudaPages(driver=self.driver, spare=2 * real)
        self.backend = Checked(inner)
        self.layout = Layout(2, heads, 1, 1, PAGE, fused)
        self.pool = PagePool(self.backend, PAGES)
        self.slots = PageSlots(self.pool, self.layout, SLOTS, TOKENS, deferred=deferred)

    def most_resident(self, held: int) -> int:
        assert not self.driver.contexts, "a thread was left with a context that it did not have"
        return (held + 2) * PAGE

    def touch(self) -> None:
        self.driver.launch()


TestPlayedLaws = PlayedLaws.TestCase
TestPlayedLaws.settings = settings(stateful_step_count=30)


def made(**given) -> tuple[Driver, CudaPages, int]:
    driver = Driver(**{name: given.pop(name) for name in ("granularity", "pages", "able") if name in given})
    backend = CudaPages(driver=driver, **given)
    start = backend.reserve(8 * PAGE)
    driver.calls.clear()
    return driver, backend, start


def test_a_run_is_mapped_by_these_calls_and_access_is_set_once() -> None:
    driver, backend, start = made()
    backend.map(start, [3, 1])
    assert driver.calls == [
        "cuCtxPushCurrent", "cuMemCreate", "cuMemMap", "cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuCtxPopCurrent",
    ]  # fmt: skip
    assert backend.resident == 2 * PAGE and driver.allowed == {start, start + PAGE}
    driver.calls.clear()
    backend.map(start + 4 * PAGE, [3])  # it is there already
    assert driver.calls == ["cuCtxPushCurrent", "cuMemMap", "cuMemSetAccess", "cuCtxPopCurrent"]


def test_nothing_is_taken_away_before_the_gpu_is_done_with_it() -> None:
    driver, backend, start = made()
    backend.map(start, [0])
    driver.launch()
    driver.calls.clear()
    backend.unmap(start, 0)
    assert driver.calls == ["cuCtxPushCurrent", "cuCtxSynchronize", "cuMemUnmap", "cuMemRelease", "cuCtxPopCurrent"]
    assert backend.resident == 0 and driver.handles == {}


def test_what_is_kept_for_the_next_is_wiped_and_not_created_again() -> None:
    driver, backend, start = made(spare=1)
    backend.map(start, [0, 1])
    ctypes.memset(start, 7, 2 * PAGE)
    driver.calls.clear()
    backend.unmap(start, 0)
    assert driver.calls == [
        "cuCtxPushCurrent", "cuCtxSynchronize", "cuMemsetD8", "cuCtxSynchronize", "cuMemUnmap", "cuCtxPopCurrent",
    ]  # fmt: skip
    backend.unmap(start + PAGE, 1)  # one is kept already
    assert backend.resident == PAGE and len(driver.handles) == 1
    driver.calls.clear()
    backend.map(start, [9])
    assert "cuMemCreate" not in driver.calls and ctypes.string_at(start, PAGE) == bytes(PAGE)
    backend.unmap(start, 9)
    assert backend.trim() == PAGE and backend.resident == 0 and driver.handles == {}


def test_a_page_is_copied_between_two_waits() -> None:
    driver, backend, start = made()
    backend.map(start, [0, 1])
    ctypes.memset(start, 7, PAGE)
    driver.calls.clear()
    backend.copy(start + PAGE, start)
    assert driver.calls == [
        "cuCtxPushCurrent",
        "cuCtxSynchronize",
        "cuMemcpyDtoD",
        "cuCtxSynchronize",
        "cuCtxPopCurrent",
    ]
    assert ctypes.string_at(start + PAGE, PAGE) == b"\7" * PAGE


@pytest.mark.parametrize("what", ["map", "unmap", "unmap to keep", "copy"])
def test_whichever_call_fails_nothing_has_changed(what: str) -> None:
    """Every call but the last, which only gives the thread its own context back, and those that the error is made good by."""
    driver, backend, start = made(spare=int(what == "unmap to keep"))
    backend.map(start, [0, 1])
    backend.map(start + 2 * PAGE, [0])
    ctypes.memset(start, 7, 2 * PAGE)
    driver.calls.clear()

    def carry_out() -> None:
        if what == "map":
            backend.map(start + 4 * PAGE, [2, 0, 5])
        elif what == "copy":
            backend.copy(start, start + PAGE)
        else:
            backend.unmap(start + PAGE, 1)

    carry_out()
    count = len(driver.calls)
    assert count >= 5
    for at in range(count - 1):
        driver, backend, start = made(spare=int(what == "unmap to keep"))
        backend.map(start, [0, 1])
        backend.map(start + 2 * PAGE, [0])
        ctypes.memset(start, 7, 2 * PAGE)
        before = dict(driver.at), set(driver.allowed), dict(driver.handles), backend.resident
        driver.launch()
        driver.fail = at
        with pytest.raises(PageError, match="CUDA_ERROR_UNKNOWN") as raised:
            carry_out()
        assert driver.calls[-1] == ("cuCtxPushCurrent" if at == 0 else "cuCtxPopCurrent") and not driver.contexts
        assert (dict(driver.at), set(driver.allowed), dict(driver.handles), backend.resident) == before, driver.calls
        assert not getattr(raised.value, "__notes__", [])
        assert ctypes.string_at(start, PAGE) == b"\7" * PAGE
        carry_out()  # and now it can be done
        backend.close()


def test_a_gpu_without_memory_is_told_from_one_that_fails_and_what_was_made_is_given_back() -> None:
    driver, backend, start = made(pages=3)
    backend.map(start, [90])
    with pytest.raises(OutOfPagesError, match="cuMemCreate failed: CUDA_ERROR_OUT_OF_MEMORY"):
        backend.map(start + PAGE, [91, 92, 93])
    assert backend.resident == PAGE and len(driver.handles) == 1 and list(driver.at) == [start]
    slots = PageSlots(PagePool(backend, 100), Layout(1, 1024, 1, 1, PAGE), 2, 100)
    slot = slots.take()
    slots.step({slot: 4})
    with pytest.raises(OutOfPagesError):
        slots.step({slot: 5})
    assert slots.lengths[slot] == 4 and slots.pool.free == 98 and backend.resident == 3 * PAGE


def test_what_fails_while_an_error_is_made_good_is_told_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, backend, start = made()
    monkeypatch.setattr(driver, "cuMemSetAccess", lambda *_: (_ for _ in ()).throw(MemoryError), raising=False)
    monkeypatch.setattr(driver, "cuMemUnmap", lambda *_: (_ for _ in ()).throw(MemoryError), raising=False)
    with pytest.raises(OutOfPagesError, match="cuMemSetAccess") as raised:
        backend.map(start, [0])
    assert raised.value.__notes__ == ["and then cuMemUnmap failed: CUDA_ERROR_OUT_OF_MEMORY"]


def test_all_is_given_back_when_it_is_closed_and_addresses_when_nobody_holds_them() -> None:
    driver, backend, start = made(spare=1)
    backend.map(start, [0, 1, 2])
    backend.unmap(start, 0)
    backend.close()
    assert (driver.at, driver.handles, backend.resident) == ({}, {}, 0) and driver.reserved and driver.retained == 1
    del backend
    gc.collect()
    assert not driver.reserved and driver.retained == 0 and not driver.contexts


def test_whoever_forgets_to_close_loses_nothing_of_the_gpu() -> None:
    driver, backend, start = made()
    backend.map(start, [0, 1])
    del backend
    gc.collect()
    assert (driver.at, driver.handles, driver.reserved, driver.retained) == ({}, {}, {}, 0)


@pytest.mark.parametrize("at", range(6))
def test_a_gpu_that_cannot_is_refused(at: int) -> None:
    driver = Driver()
    CudaPages(driver=driver)
    assert driver.calls[:5] == [
        "cuInit", "cuDeviceGet", "cuDeviceGetAttribute", "cuMemGetAllocationGranularity", "cuDevicePrimaryCtxRetain",
    ]  # fmt: skip
    driver.fail, driver.code = at, CUresult.CUDA_ERROR_INVALID_DEVICE
    if at < 5:
        with pytest.raises(PageError, match="CUDA_ERROR_INVALID_DEVICE"):
            CudaPages(driver=driver)
    else:
        with pytest.raises(PageError, match="cannot put pages"):
            CudaPages(driver=Driver(able=False))


def test_pages_are_those_of_the_driver() -> None:
    assert CudaPages(driver=Driver()).page_bytes == PAGE
    with pytest.raises(InputError, match="pages of 4096 bytes"):
        CudaPages(page_bytes=1000, driver=Driver())
    with pytest.raises(InputError, match="0 or more"):
        CudaPages(spare=-1, driver=Driver())


def test_a_model_generates_over_the_calls_of_cuda() -> None:
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")
    from holdfast.latent.paged import PagedCache
    from holdfast.latent.virtual import VirtualKV

    class Here(CudaPages):
        """The driver is played in this computer's memory, so that is where its tensors lie."""

        def __init__(self) -> None:
            super().__init__(driver=Driver())
            self.device = "cpu"

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    tokens = torch.arange(20)[None]
    plain = model.generate(tokens, max_new_tokens=40, do_sample=False, eos_token_id=None)
    kv = VirtualKV.of(model, slots=2, tokens=200, budget=2**20, backend=Here())
    with PagedCache(kv) as cache:
        assert torch.equal(
            model.generate(tokens, cache=cache, max_new_tokens=40, do_sample=False, eos_token_id=None), plain
        )
    kv.close()
    assert kv.backend.resident == 0


# --- the bindings themselves, where they are installed ---


def test_the_bindings_have_all_that_is_called() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="the extra cuda is not installed")
    for name in vars(Driver):
        if name.startswith(("cu", "CU")):
            assert hasattr(driver, name), name
    for played in (
        Driver.CUdevice_attribute,
        Driver.CUmemLocationType,
        Driver.CUmemAllocationType,
        Driver.CUmemAccess_flags,
    ):
        (kind,) = [name for name, value in vars(Driver).items() if value is played]
        for name, value in vars(played).items():
            assert int(getattr(getattr(driver, kind), name)) == value
    made = driver.CUmemAllocationProp()
    made.location.type, made.location.id = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE, 3
    assert (int(made.location.type), made.location.id) == (1, 3)


def test_without_a_driver_there_is_one_plain_error() -> None:
    pytest.importorskip("cuda.bindings.driver", reason="the extra cuda is not installed")
    if _gpu() is None:
        with pytest.raises(PageError, match="driver|cuInit"):
            CudaPages()


# --- a GPU ---


def _gpu():
    """torch, where it has a GPU and the bindings are installed."""
    try:
        import torch
        from cuda.bindings import driver  # noqa: F401
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


@pytest.fixture
def gpu():
    found = _gpu()
    if found is None:
        pytest.skip("there is no NVIDIA GPU here, or the extra cuda is not installed")
    return found


def test_on_a_gpu_pages_come_and_go(gpu) -> None:
    from holdfast.latent.virtual import VirtualKV

    backend = CudaPages()
    gpu.zeros(1, device="cuda")
    free = gpu.cuda.mem_get_info()[0]
    kv = VirtualKV(8, 8, 128, slots=8, tokens=131_072, budget=2**30, dtype=gpu.float16, backend=backend)
    assert gpu.cuda.mem_get_info()[0] > free - 2**26  # addresses cost nothing
    one, two = kv.take(), kv.take()
    kv.step({one: 4000})
    keys, values = gpu.randn(2, 1, 8, 4000, 128, device="cuda", dtype=gpu.float16)
    for layer in range(8):
        kv.write(layer, one, 0, keys, values)
    assert free - gpu.cuda.mem_get_info()[0] >= backend.resident > 0
    kv.share(one, two, 3990)
    kv.step({two: 4000})  # the last page is copied
    for layer in range(8):
        kv.write(layer, two, 3990, keys[:, :, :10], values[:, :, :10])
        for kept, given in zip(kv.view(layer, one), (keys, values), strict=True):
            assert gpu.equal(kept, given)
        assert gpu.equal(kv.view(layer, two)[0][:, :, :3990], keys[:, :, :3990])
    kv.free(two, now=True)
    kv.compact(one, gpu.arange(100, device="cuda").expand(8, 8, 100))
    assert backend.resident == kv.layout.blocks(100) * 2 * kv.layout.page
    assert gpu.equal(kv.view(3, one)[1], values[:, :, :100])
    del keys, values, kept, given
    kv.close()
    gpu.cuda.empty_cache()
    assert gpu.cuda.mem_get_info()[0] > free - 2**26


def test_on_a_gpu_a_model_says_what_it_says_with_a_plain_cache(gpu) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra torch is not installed")
    from holdfast.latent.paged import PagedCache
    from holdfast.latent.virtual import VirtualKV

    gpu.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=256, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4
    )
    model = transformers.LlamaForCausalLM(config).eval().to("cuda", gpu.float16)
    tokens = gpu.arange(50, device="cuda")[None]
    plain = model.generate(tokens, max_new_tokens=300, do_sample=False, eos_token_id=None)
    for fused in (True, False):
        kv = VirtualKV.of(model, slots=2, tokens=100_000, budget=2**28, backend=CudaPages(), fused=fused)
        with PagedCache(kv) as cache:
            said = model.generate(tokens, cache=cache, max_new_tokens=300, do_sample=False, eos_token_id=None)
        assert gpu.equal(said, plain)
        kv.close()
