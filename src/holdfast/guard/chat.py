"""A chat model for guards that ask one: any server that speaks the OpenAI protocol, one question at a time."""

from __future__ import annotations

import threading
from typing import Any

from holdfast.errors import ChatError, ExtractionError, MissingExtraError

try:
    from holdfast.encode.endpoint import complete, open_client
except ImportError as error:
    raise MissingExtraError("asking a language model needs the extra: pip install 'holdfast[llm]'") from error


class ChatModel:
    """``model(system, user)`` is the model's answer (``guard.chains.Ask``). Safe to call from any thread.

    ``timeout`` in seconds is for each attempt; ``retries`` and keys are as ``encode.endpoint.open_client`` has them.
    ``temperature`` None leaves it to the server. Raises InputError where no key is known for the default endpoint, and
    ExtractionError, when called, where the endpoint gives no answer.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 2,
        temperature: float | None = 0.0,
    ) -> None:
        self._client = open_client(base_url, api_key, timeout, retries)
        self.model = model
        self._temperature: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        self._tokens = 0
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens spent so far, as the server counts them."""
        with self._lock:
            return self._tokens

    def __call__(self, system: str, user: str) -> str:
        """The answer. Raises ExtractionError, whose message holds nothing of what was asked."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        try:
            got = complete(self._client, model=self.model, messages=messages, **self._temperature)
        except ChatError as error:
            raise ExtractionError(str(error)) from error
        with self._lock:
            self._tokens += (got.prompt or 0) + (got.completion or 0)
        return got.text
