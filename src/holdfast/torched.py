"""torch, for the rooms that need it; where it is missing, the one line that says how to have it."""

from __future__ import annotations

from holdfast.errors import MissingExtraError

try:
    import torch as torch
    from torch import Tensor as Tensor
    from torch import nn as nn
except ImportError as error:
    raise MissingExtraError("this needs the extra: pip install 'holdfast[torch]'") from error
