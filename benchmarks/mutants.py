"""Can the gate fail: ``python benchmarks/mutants.py [--seeds N] [--samples NAME …] [--time]``.

Over every ordinary sample and seed, prints how many of the mutants the gate catches, how many it
misses or never reaches, how many are equivalent, and how often it takes for a fault what is none: a
constant off by one unit in the last place, or the sample's own file. ``--time`` compares the time
of 50 mutants on super_resolution with that of verify without them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from measure import compare

import torch2mobile
from torch2mobile.records import ParityOptions, Report, Status
from torch2mobile.sample_models import SAMPLES

TOOL = str(Path(sys.executable).with_name("torch2mobile"))
OUTCOMES = ("caught", "missed", "unreached", "equivalent", "controls", "false_alarms")


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    ordinary = [name for name, sample in SAMPLES.items() if sample.ordinary]
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--mutants", type=int, default=50)
    parser.add_argument("--samples", nargs="+", default=ordinary, choices=ordinary)
    parser.add_argument("--time", action="store_true", help="the time only")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if options.time:
            measure_time(Path(name), options.runs)
        else:
            measure_rates(Path(name), options.samples, options.seeds, options.mutants)


def measure_time(folder: Path, runs: int) -> None:
    """50 mutants on super_resolution against the plain comparison."""
    from torch2mobile.pipeline.export import export_request
    from torch2mobile.records import Request

    export_request(Request("sample:super_resolution"), out=folder / "bundle")
    plain = [TOOL, "verify", "bundle", "--against", "sample:super_resolution", "-q"]
    compare(
        "verify --mutants 50 / verify, on super_resolution",
        [*plain, "--mutants", "50"],
        plain,
        folder,
        runs=runs,
        limit="20 s for the first",
    )


def measure_rates(folder: Path, samples: Sequence[str], seeds: int, mutants: int) -> None:
    """What is caught, by sample and by kind, over all seeds."""
    from torch2mobile.pipeline.export import export_request
    from torch2mobile.records import Request

    kinds: dict[str, Counter[str]] = {}
    print(f"{'sample':<18}" + "".join(f"{name:>14}" for name in (*OUTCOMES, "share", "least")))
    for sample in samples:
        bundle = folder / sample
        export_request(Request(f"sample:{sample}"), out=bundle)
        total: Counter[str] = Counter()
        shares = []
        start = time.perf_counter()
        for seed in range(seeds):
            report = torch2mobile.verify(
                bundle,
                f"sample:{sample}",
                parity=ParityOptions(seed=seed),
                mutants=mutants,
                min_caught=0,
            ).report
            found = _count(report, kinds)
            total += found
            judged = found["caught"] + found["missed"] + found["unreached"]
            shares.append(found["caught"] / judged if judged else 1.0)
            _tell(sample, seed, report)
        judged = total["caught"] + total["missed"] + total["unreached"]
        share = total["caught"] / max(1, judged)
        row = "".join(f"{total[name]:>14}" for name in OUTCOMES)
        seconds = time.perf_counter() - start
        print(f"{sample:<18}{row}{share:>14.4f}{min(shares):>14.4f}  {seconds / seeds:.1f} s a run")
    print(f"\n{'kind':<24}" + "".join(f"{name:>12}" for name in OUTCOMES[:4]))
    for kind, counted in sorted(kinds.items()):
        print(f"{kind:<24}" + "".join(f"{counted[name]:>12}" for name in OUTCOMES[:4]))


def _count(report: Report, kinds: dict[str, Counter[str]]) -> Counter[str]:
    """The counts of one report, added to those of each kind; a failed check is a false alarm."""
    (check,) = [each for each in report.checks if each.name == "mutants"]
    found = Counter({name: int(check.metrics[name]) for name in OUTCOMES})
    others = [each for each in report.checks if each is not check]
    found["false_alarms"] += sum(each.status is Status.FAILED for each in others)
    for kind, *counts in check.tables[0].rows:
        row = kinds.setdefault(str(kind), Counter())
        row.update(dict(zip(OUTCOMES[:4], (int(count or 0) for count in counts), strict=True)))
    return found


def _tell(sample: str, seed: int, report: Report) -> None:
    """What was missed or wrong, on stderr."""
    for check in report.checks:
        if check.status is Status.FAILED:
            print(f"{sample} {seed}: {check.name} {check.summary}", file=sys.stderr)
        for table in check.tables:
            if table.title in {"missed", "unreached", "false alarms"}:
                for row in table.rows:
                    print(f"{sample} {seed}: {table.title} {row}", file=sys.stderr)


if __name__ == "__main__":
    main()
