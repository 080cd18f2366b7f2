"""A chat model for guards that ask one: any server that speaks the OpenAI protocol, one question at a time."""

from __future__ import annotations

import threading
from typing import Any

from holdfast.errors import ExtractionError, MissingExtraError

try:
    import openai

    from holdfast.encode.endpoint import open_client
except ImportError as error:
    raise MissingExtraError("asking a language model needs the extra: pip install 'holdfast[llm]'") from error


class ChatModel:
    """``model(system, user)`` is the model's answer (``guard.chains.Ask``). Safe to call from any thread.

    ``timeout`` in seconds is for each attempt; timeouts, lost connections, 429 and 5xx are tried again ``retries`` times.
    With a ``base_url`` only the key that is passed is sent, never one from the environment. ``temperature`` None leaves it to
    the server. Raises InputError where no key is known for the default endpoint, and ExtractionError, when called, where the
    endpoint gives no answer.
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
        try:
            completion = self._client.chat.completions.create(
                model=self.model,
                messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
                **self._temperature,
            )
            content = completion.choices[0].message.content
            used = completion.usage
        except openai.OpenAIError as error:
            raise ExtractionError(f"the endpoint failed ({type(error).__name__})") from error
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            # The client passes on whatever a server says: a page of HTML, a list, no choices.
            raise ExtractionError("the endpoint does not speak the chat protocol") from error
        with self._lock:
            self._tokens += used.total_tokens if used else 0
        return content or ""
