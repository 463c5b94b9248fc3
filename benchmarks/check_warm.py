"""``check`` in a warm process: ``python benchmarks/check_warm.py [--runs N]``.

Prints, for each ordinary sample, the CPU time of ``check`` on the module by that of one
``torch.export.export`` with the same settings, in turns in one process: the median ratio, and the
range.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from torch2mobile.copies import fresh
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.strategies import STRATEGIES
from torch2mobile.pipeline.check import check_loaded
from torch2mobile.pipeline.check_options import CheckOptions
from torch2mobile.records import LoadedModel, Request
from torch2mobile.sample_models import SAMPLES
from torch2mobile.tensors import quiet


def seconds(action: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    begun = time.process_time()
    action()
    return time.process_time() - begun


def bare(loaded: LoadedModel) -> object:
    """One call of torch.export.export, as the first strategy makes it."""
    _, export = STRATEGIES[0]
    with fresh(loaded, "scratch") as own, quiet():
        return export(own)


def compare(name: str, runs: int) -> None:
    """Print one sample's row."""
    loaded = source.load(Request(source=f"sample:{name}"), SAMPLES)
    loaded.module.eval()
    options = CheckOptions()
    bare(loaded)  # what the first export of a process loads is not compared
    ratios, least = [], []
    for _ in range(runs):
        alone = seconds(lambda: bare(loaded))
        checked = seconds(lambda: check_loaded(lambda: loaded, options))
        ratios.append(checked / alone)
        least.append((alone, checked))
    alone, checked = (min(times) for times in zip(*least, strict=True))
    print(
        f"check sample:{name} / torch.export.export: {statistics.median(ratios):.2f}x "
        f"({min(ratios):.2f} to {max(ratios):.2f}; least {checked:.2f} s by {alone:.2f} s)"
    )


def main() -> None:
    """Measure all ordinary samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    for name, sample in SAMPLES.items():
        if sample.ordinary:
            compare(name, runs)


if __name__ == "__main__":
    main()
