"""A causal model of ``transformers`` with its tokenizer, as one that reads memories: what it is, and what it makes of a text.

What a cache is worth depends on everything that took part in making it, so ``Reader.key`` names all of it: the model's
configuration, every weight and adapter, the tokenizer, the number type and the words before the first memory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Self

from holdfast.errors import InputError, MissingExtraError
from holdfast.latent.identity import config_digest, digest, weights_digest
from holdfast.latent.rotary import full_attention
from holdfast.latent.sealing import Seal
from holdfast.latent.segments import Segment, joined, taken
from holdfast.latent.tensors import Key
from holdfast.torched import torch

try:
    from transformers.cache_utils import DynamicCache
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error

PROFILE = ()  # what reads, and no memory

_MEMORIES, _QUESTION = "\ue000memories\ue000", "\ue000question\ue000"


class Reader:
    """A model that reads memories. Raises InputError for one that has other layers than full attention.

    Args:
        model: a causal model of ``transformers``; it should be in ``eval`` mode.
        tokenizer: its tokenizer.
        before, between, after: the words of a prompt before the memories, between them and the question, and after it;
            ``Reader.chat`` takes them from the tokenizer's chat template.
        seal: encrypts what it keeps (``latent.sealing``).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        before: str = "",
        between: str = "\n",
        after: str = "",
        seal: Seal | None = None,
    ) -> None:
        full_attention(model)
        self.model, self.tokenizer, self.seal = model, tokenizer, seal
        self.before, self.between, self.after = before, between, after
        self._begun: tuple[Key, str, Segment] | None = None
        self.pace = 0.0
        """Seconds to read a token, of late."""
        self._tokenizer = _tokenizer_digest(tokenizer)

    @classmethod
    def chat(cls, model: Any, tokenizer: Any, *, seal: Seal | None = None) -> Self:
        """With the memories in the system message of the tokenizer's chat template, and the question in the user's.

        Raises InputError where the tokenizer has no template, or one that changes what it is given.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise InputError("this tokenizer has no chat template: say Reader(model, tokenizer, before=..., after=...)")
        messages = [{"role": "system", "content": _MEMORIES}, {"role": "user", "content": _QUESTION}]
        told = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, one, rest = told.partition(_MEMORIES)
        between, other, after = rest.partition(_QUESTION)
        if not one or not other or _MEMORIES in rest or _QUESTION in after:
            raise InputError("the chat template does not take a system message and a question as they are, once each")
        return cls(model, tokenizer, before=before, between=between, after=after, seal=seal)

    @property
    def key(self) -> dict[str, str]:
        """All that must match before a cache is used."""
        return {
            "model": config_digest(self.model),
            "weights": weights_digest(self.model),
            "tokenizer": self._tokenizer,
            "dtype": str(self.model.dtype),
            "positions": "rotary",
            "before": digest(self.before.encode()),
        }

    def ids(self, text: str, *, first: bool = False) -> tuple[int, ...]:
        """The tokens of a text; of the first of a prompt with what the tokenizer sets before it."""
        if not text:
            return ()
        return tuple(self.tokenizer(text, add_special_tokens=first)["input_ids"])

    def begin(self, text: str, key: Key) -> Segment:
        """What the model makes of the first words of every prompt; read once for a key that ``key`` gave."""
        if self._begun is None or self._begun[:2] != (key, text):
            self._begun = key, text, self.read(self.ids(text, first=True))
        return self._begun[2]

    def read(self, tokens: Sequence[int], past: Sequence[Segment] = ()) -> Segment:
        """What the model makes of some tokens after what it has read. Raises InputError where there are none."""
        if not tokens:
            raise InputError("there is nothing to read")
        cache = joined(past) if past else DynamicCache()
        start = past[-1].end if past else 0
        ids = torch.tensor([list(tokens)], device=self.model.device)
        began = time.perf_counter()
        with torch.no_grad():
            self.model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1)
        segment = taken(cache, tokens, start)
        pace = (time.perf_counter() - began) / len(tokens)
        self.pace = 0.8 * self.pace + 0.2 * pace if self.pace else pace
        return segment


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return digest(backend.to_str().encode())
    vocabulary = sorted(tokenizer.get_vocab().items())
    return digest(json.dumps([type(tokenizer).__name__, vocabulary, tokenizer.all_special_tokens]).encode())
