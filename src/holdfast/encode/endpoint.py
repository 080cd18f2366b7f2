"""The client of an endpoint that speaks the OpenAI protocol: one way to open it for everything that asks a model."""

from __future__ import annotations

import openai

from holdfast.errors import InputError


def open_client(base_url: str | None, api_key: str | None, timeout: float, retries: int) -> openai.OpenAI:
    """A client. With a ``base_url`` only the key that is passed is sent, never one from the environment.

    Raises InputError where no key is known for the default endpoint.
    """
    try:
        return openai.OpenAI(
            base_url=base_url,
            api_key=api_key or ("unused" if base_url else None),
            timeout=timeout,
            max_retries=retries,
        )
    except openai.OpenAIError as error:
        raise InputError(
            "no API key: pass api_key=, set OPENAI_API_KEY, or name a local server by base_url="
        ) from error
