"""Awkward: the logarithm of complex numbers, for which ONNX has no operator.

The Fourier transform alone would do: it is exported as pairs of real numbers. So would the
logarithm as ``torch.complex(spectrum.abs().log(), spectrum.angle())``, which is the same.
"""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("speech:float32[N=1..4,L=64..512]",)
VALUES = ("speech=normal(0,1)",)


class ComplexFft(nn.Module):
    """Classifies frames of speech, ``[N, L]``, by their cepstrum: logits ``[N, classes]``."""

    def __init__(self, coefficients: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.coefficients = coefficients
        self.classifier = nn.Linear(coefficients, classes)

    def forward(self, speech: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.fft(speech)
        cepstrum = torch.fft.ifft(torch.log(spectrum + 1e-3)).real
        logits: torch.Tensor = self.classifier(cepstrum[:, : self.coefficients])
        return logits


def build() -> nn.Module:
    """An untrained classifier."""
    with seeded(0):
        return ComplexFft().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two frames of 128 samples."""
    return (torch.randn(2, 128, generator=generator(0)),)
