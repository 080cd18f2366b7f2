"""Tensor files encrypted at rest: AES-256-GCM (NIST SP 800-38D), in a safetensors file of its own, bound to its owner.

A cache of a text is the text: whoever reads the file can read the words back. A sealed file opens with the key alone, and only for
the tenant's user that it was sealed for. It needs the extra ``holdfast[sealed]``.
"""

from __future__ import annotations

import os

from holdfast.errors import InputError, IntegrityError, MissingExtraError
from holdfast.latent.tensors import key_of, pack, unpack
from holdfast.torched import torch

PROFILE = ()  # a wrapping, and no memory

_KIND = "AES-256-GCM"
_NONCE = 12


class Seal:
    """Seals and opens files with a key of 32 bytes, such as ``os.urandom(32)`` gives; to lose it is to lose what was sealed.

    Raises InputError for another key, MissingExtraError.
    """

    def __init__(self, key: bytes) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtraError("to seal needs the extra: pip install 'holdfast[sealed]'") from error
        if len(key) != 32:
            raise InputError(f"a key to seal with has 32 bytes, not {len(key)}")
        self._cipher = AESGCM(key)

    def close(self, data: bytes, owner: str) -> bytes:
        """A file that holds another one, to be opened for the same owner alone."""
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, data, owner.encode())
        return pack(
            {"sealed": torch.frombuffer(bytearray(sealed), dtype=torch.uint8)}, {"sealed": _KIND, "nonce": nonce.hex()}
        )

    def open(self, data: bytes, owner: str) -> bytes:
        """The file within. Raises IntegrityError where the key or the owner is another one, or the file was changed."""
        from cryptography.exceptions import InvalidTag

        key = key_of(data)
        if key.get("sealed") != _KIND:
            raise InputError("this file is not sealed")
        try:
            nonce = bytes.fromhex(str(key.get("nonce")))
            within: bytes = self._cipher.decrypt(nonce, unpack(data)["sealed"].numpy().tobytes(), owner.encode())
        except (InvalidTag, ValueError, KeyError) as error:
            raise IntegrityError(
                "a sealed file does not open: another key, another owner, or it was changed"
            ) from error
        return within


def is_sealed(data: bytes) -> bool:
    """Whether a file of tensors is a sealed one."""
    return key_of(data).get("sealed") == _KIND
