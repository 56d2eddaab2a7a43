"""Precision in which networks multiply and convolve: float32, TF32, bfloat16 or float16.

The weights, the sums over an epoch, statistics and the cosine of the regularizer stay in float32 whatever is chosen.
Factorizations are never rounded: what is here holds only while a block runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from htfcli.errors import ConfigError

PrecisionName = Literal["float64", "float32", "tf32", "bf16", "fp16"]
_ROUNDED = {"bf16": torch.bfloat16, "fp16": torch.float16}

# float16 has nothing below 6e-8 and nothing above 65,504: what is differentiated is multiplied by this before, and its
# gradient divided after. With 2^10 the second derivative of batch normalization overflows on the miniature network, of
# patch gradients near 1; with 2^5 the gradient of R is as near to that of float32 as rounding lets it.
_FLOAT16_SCALE = 2.0**5


@dataclass(frozen=True)
class Precision:
    """What products and convolutions on a device are rounded to.

    Args:
        name: float64 and float32 round nothing, tf32 (CUDA only) rounds operands to 10 bits, bf16 to 7, fp16 to 10 with
            a small range, the last two by torch's autocast.
    """

    name: PrecisionName
    device: torch.device

    @classmethod
    def choose(cls, name: PrecisionName | None, device: torch.device, dtype: torch.dtype = torch.float32) -> Precision:
        """The precision of a given name; None stands for tf32 on CUDA and float32 elsewhere, of float32 weights.

        Args:
            dtype: of the weights; float64 is never rounded.
        Raises:
            ConfigError: if the device has no such precision.
        """
        if dtype == torch.float64:
            name = "float64"
        elif name is None:
            name = "tf32" if device.type == "cuda" else "float32"
        if name == "tf32" and device.type != "cuda":
            raise ConfigError("--precision tf32 is for CUDA", got=device.type, allowed="float32, bf16, fp16")
        return cls(name, device)

    @property
    def scale(self) -> float:
        """The power of two by which a number is multiplied before its gradient is computed."""
        return _FLOAT16_SCALE if self.name == "fp16" else 1.0

    def autocast(self) -> torch.autocast:
        """Rounds operands to bfloat16 or float16 where that is the precision; for the forward pass."""
        dtype = _ROUNDED.get(self.name)
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    @contextmanager
    def set(self) -> Iterator[None]:
        """Set TF32 on or off, and let cuDNN look for the fastest algorithms, while the block runs on CUDA.

        torch by itself has TF32 on in convolutions and off in matrix products.
        """
        if self.device.type != "cuda":
            yield
            return
        tf32 = self.name == "tf32"
        before = _exchange((tf32, tf32, True))
        try:
            yield
        finally:
            _exchange(before)


def _exchange(flags: tuple[bool, bool, bool]) -> tuple[bool, bool, bool]:
    """Set TF32 of products, of convolutions, and cuDNN's search; returns what they were."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with warnings.catch_warnings():  # torch 2.9 warns of these names, which alone are in every version
        warnings.simplefilter("ignore", UserWarning)
        before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = flags
    return before
