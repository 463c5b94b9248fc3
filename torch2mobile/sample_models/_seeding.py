"""Seeded weights and example data that leave the caller's random state alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator within the block and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that seeds the accelerators too, which fork_rng would not restore.
        torch.default_generator.manual_seed(seed)
        yield


def generator(seed: int) -> torch.Generator:
    """A generator of its own, for example inputs."""
    return torch.Generator().manual_seed(seed)


def images(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Example images in 0..1, of soft blobs: plain noise looks all the same to a network."""
    coarse = torch.rand(count, channels, 4, 4, generator=generator(0))
    return F.interpolate(coarse, (height, width), mode="bilinear").contiguous()


def enliven(module: nn.Module) -> None:
    """Give an untrained network's layers weights as if it had seen data.

    PyTorch's own let the signal fade from layer to layer, and make each batch norm the identity,
    so that a converter that got one wrong would go unnoticed.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.2)
            nn.init.normal_(layer.bias, 0.0, 0.2)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, 0.0, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
