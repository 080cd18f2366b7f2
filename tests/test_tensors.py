"""Tensors as a file with a key of all that must match."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from holdfast.errors import InputError, StaleError
from holdfast.latent.layers import detached
from holdfast.latent.tensors import differing, key_of, pack, unpack

KEY = {"model": "tiny", "dtype": "torch.float32", "tokens": [1, 2, 3]}


def test_what_was_packed_comes_back_in_every_kind():
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = {
        "view": whole[:, 1:],
        "turned": whole.transpose(1, 2),
        "half": whole.to(torch.bfloat16),
        "places": torch.arange(5),
        "none": torch.empty(0, 2),
    }
    found = unpack(pack(tensors, KEY), KEY)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    found["view"] += 1  # memory of its own
    assert torch.equal(whole[:, 1:], tensors["view"])


def test_the_same_tensors_and_key_make_the_same_file():
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    assert pack(tensors, KEY) == pack(dict(reversed(tensors.items())), dict(reversed(KEY.items())))


def test_another_key_is_stale_and_says_in_what():
    data = pack({"a": torch.ones(1)}, KEY)
    assert key_of(data) == KEY
    with pytest.raises(StaleError, match="of another dtype, tokens: make it anew"):
        unpack(data, {**KEY, "dtype": "torch.bfloat16", "tokens": [1, 2]})
    with pytest.raises(StaleError, match="of another salt"):
        unpack(data, {**KEY, "salt": "x"})
    assert differing(KEY, {**KEY, "tokens": (1, 2, 3)}) == []


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", b"\xff" * 20, (10**6).to_bytes(8, "little") + b"{}"])
def test_what_is_no_such_file_is_refused(data):
    with pytest.raises(InputError, match="no file of tensors that Holdfast has written"):
        unpack(data, KEY)


def test_a_damaged_file_is_refused():
    data = pack({"a": torch.ones(100)}, KEY)
    with pytest.raises(InputError):
        unpack(data[:-40], KEY)


def test_nothing_to_keep_and_a_key_that_is_no_json_are_refused():
    with pytest.raises(InputError, match="nothing to keep"):
        pack({}, KEY)
    with pytest.raises(InputError, match="key must be JSON"):
        pack({"a": torch.ones(1)}, {"model": object()})


def test_a_branch_shares_nothing():
    state = {"memory": torch.zeros(1, 2, requires_grad=True)}
    branch = detached(state)
    branch["memory"] += 1
    assert torch.equal(state["memory"], torch.zeros(1, 2)) and not branch["memory"].requires_grad
