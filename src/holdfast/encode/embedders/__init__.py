"""Embedders: texts to unit vectors. Nothing heavy is imported before an embedder is opened."""

from __future__ import annotations

from holdfast.encode.base import Embedder
from holdfast.encode.embedders.weights import install_command
from holdfast.errors import EmbedderError


def default_embedder() -> Embedder | None:
    """The offline MiniLM where its parts are installed, else None; ``why_no_embedder`` then says what to do."""
    return open_embedder("minilm") if install_command() is None else None


def why_no_embedder() -> str:
    """One line: what to run to have the offline embedder, or that it is here."""
    command = install_command()
    if command is None:
        return "The offline embedder is installed."
    return f"No embedder is installed, so search goes by words only. To search by meaning too, offline: {command}"


def open_embedder(name: str) -> Embedder:
    """The embedder of that name, or of that model id as an embedder gives it and a store records it.

    ``minilm``, ``minilm:int8``, ``minilm:float32``, ``static``, ``openai:MODEL``, ``openai:MODEL@DIMENSION``,
    ``sentence-transformers:NAME``. Raises EmbedderError for anything else, be it a model id of another Holdfast's
    version; MissingExtraError where a part is not installed.
    """
    kind, _, rest = name.partition(":")
    if kind == "openai" and rest:
        from holdfast.encode.embedders.openai import OpenAIEmbedder

        base, _, size = rest.rpartition("@")
        if base and size.isdecimal():
            return OpenAIEmbedder(base, dimension=int(size))
        return OpenAIEmbedder(rest)
    if kind == "sentence-transformers" and rest:
        from holdfast.encode.embedders.sentence_transformers import SentenceTransformerEmbedder

        return SentenceTransformerEmbedder(rest)
    from holdfast.encode.embedders.minilm import MiniLM, model_id
    from holdfast.encode.embedders.static import StaticTable

    if name == "minilm":
        return MiniLM()
    if name in ("minilm:int8", model_id("int8")):
        return MiniLM("int8")
    if name in ("minilm:float32", model_id("float32")):
        return MiniLM("float32")
    if name in ("static", StaticTable.model):
        return StaticTable()
    raise EmbedderError(
        f"There is no embedder {name!r} in this version of Holdfast. Known: minilm, minilm:int8, minilm:float32, static, "
        "openai:MODEL, openai:MODEL@DIMENSION, sentence-transformers:NAME."
    )
