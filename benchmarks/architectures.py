"""Exports public architectures, one command each, and writes docs/reference/architectures.md.

    python benchmarks/architectures.py [NAME ...] [--timeout SECONDS] [--page]

Needs torchvision, timm and transformers, and half an hour. With names only those are run. Results
are kept in benchmarks/results/architectures.json; ``--page`` writes the page from those alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MODELS = "benchmarks/architecture_models.py"
RESULTS = ROOT / "benchmarks" / "results" / "architectures.json"
PAGE = ROOT / "docs" / "reference" / "architectures.md"

HEAD = """# Architectures

Public architectures, exported from their configurations with random weights by one command each,
the same for all but what stands in the column *options*:

```console
$ torch2mobile export benchmarks/architecture_models.py:NAME OPTIONS
```

The file says what a user would of each model's inputs. The configurations are small (two layers of
32 channels, say; SSDLite, ConvNeXt, EdgeNeXt, MobileNetV4 and MobileViT are their libraries'
smallest), so that the time is mostly that of the stages, and not of the arithmetic. The weights are
random: a pass says nothing of a trained model's range. Seconds and memory (of the largest process)
were measured on a busy machine of two cores by `python benchmarks/architectures.py`, which wrote
this page.

| architecture | inputs | options | verdict | probes | nodes | seconds | MiB |
|---|---|---|---|---|---|---|---|
"""


def run(name: str, timeout: float) -> dict[str, Any]:
    """One export in processes of its own."""
    from benchmarks.architecture_models import OPTIONS

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch2mobile", "export", f"{MODELS}:{name}"]
        command += [*OPTIONS[name], "--out", f"{folder}/out", "--format", "json", "-q"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=timeout,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"name": name, "verdict": "stopped", "reason": f"after {timeout:.0f} s"}
        seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    memory = after.ru_maxrss / 1024
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    measured = {"name": name, "seconds": seconds, "cpu": cpu, "mib": memory}
    try:
        report = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["no report"]
        return {**measured, "verdict": "refused", "reason": " ".join(lines[-4:])[:400]}
    return {**measured, **_verdict(report)}


def _verdict(report: dict[str, Any]) -> dict[str, Any]:
    checks = report["checks"]
    bad = [c for c in checks if c["status"] in {"failed", "error"}]
    parity = [c for c in checks if c["name"] == "parity" and c["target"] == "onnx"]
    nodes = [c["summary"] for c in checks if c["name"] == "simplify"]
    found: dict[str, Any] = {"verdict": "failed" if bad else "passed"}
    if parity:
        found["probes"] = parity[0]["metrics"].get("probes")
    if nodes:
        found["nodes"] = nodes[0]
    if bad:
        found["reason"] = "; ".join(f"{c['name']}: {c['summary']}" for c in bad[:2])[:400]
    return found


def page(results: dict[str, dict[str, Any]]) -> str:
    """The page of all results."""
    from benchmarks.architecture_models import INPUTS, OPTIONS

    rows, reasons = [], []
    for name in INPUTS:
        item = results.get(name)
        if item is None:
            continue
        inputs = list(INPUTS[name])
        shown = " ".join(f"`{text}`" for text in inputs[:3]) + (
            f" and {len(inputs) - 3} more" if len(inputs) > 3 else ""
        )
        options = f"`{' '.join(OPTIONS[name])}`" if OPTIONS[name] else ""
        nodes = str(item.get("nodes", "")).partition(" nodes")[0].replace("->", "to")
        figures = f"{item.get('seconds', 0):.0f} | {item.get('mib', 0):.0f}"
        rows.append(
            f"| `{name}` | {shown} | {options} | {item['verdict']} | {item.get('probes', '')} | "
            f"{nodes} | {figures} |"
        )
        if item.get("reason"):
            reasons.append(f"- `{name}`: {item['reason'].replace('|', '/')}")
    left = [name for name in INPUTS if name not in results]
    text = HEAD + "\n".join(rows) + "\n"
    if reasons:
        text += "\n## What does not pass\n\n" + "\n".join(reasons) + "\n"
    if left:
        text += "\n## Not run\n\n" + ", ".join(f"`{name}`" for name in left) + ".\n"
    return text


def main() -> None:
    """Run, keep the results after each, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from benchmarks.architecture_models import INPUTS

    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    names = asked.names or ([] if asked.page else list(INPUTS))
    for name in names:
        # In a process of its own, as the memory of children is that of the largest so far.
        with ProcessPoolExecutor(1) as process:
            results[name] = process.submit(run, name, asked.timeout).result()
        print(json.dumps(results[name]), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
