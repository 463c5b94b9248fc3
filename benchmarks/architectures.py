"""Exports public architectures, one command each, and writes docs/reference/architectures.md.

    python benchmarks/architectures.py [NAME ...] [--timeout SECONDS] [--page]

Needs torchvision, timm and transformers, and half an hour. With names only those are run. Results
are kept in architectures.json beside this file; ``--page`` writes the page from those alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from architecture_models import INPUTS, OPTIONS

ROOT = Path(__file__).parents[1]
MODELS = "benchmarks/architecture_models.py"
RESULTS = Path(__file__).with_suffix(".json")
PAGE = ROOT / "docs" / "reference" / "architectures.md"

HEAD = """# Architectures

Public architectures with random weights, each exported by one command, the same for all but for
what stands in the column *options*:

```console
$ torch2mobile export benchmarks/architecture_models.py:NAME OPTIONS
```

[The file](../../benchmarks/architecture_models.py) builds each from its library's configuration and
says what a user would of its inputs and their values. (Seven are small versions written there: the
YOLO, ESRGAN, CRNN, both U-Nets, the tagger and the keyword spotter.) The configurations are small
(two layers of 32 channels, say; those of timm and torchvision are the libraries' smallest), so that
the seconds are mostly those of the stages, and not of the arithmetic. Random weights say nothing of
a trained model's range.

Probes are the inputs on which the module and the `.onnx` were compared, nodes those of the `.onnx`
as translated and as simplified. Seconds and memory (of the largest process) are of a busy machine
of two cores. `python benchmarks/architectures.py` measured and wrote all this.

| architecture | inputs | options | verdict | probes | nodes | seconds | MiB |
|---|---|---|---|---|---|---|---|
"""


def exported(words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str] | None:
    """One export in processes of its own, by this tree; None where it is not done in time."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        return subprocess.run(
            [sys.executable, "-m", "torch2mobile", "export", *words, "-q"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def run(name: str, timeout: float) -> dict[str, Any]:
    """One model's verdict, seconds and memory."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"{MODELS}:{name}", *OPTIONS[name], "--out", f"{folder}/out", "--format", "json"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = exported(words, timeout)
    if done is None:
        return {"verdict": "stopped", "reason": f"not done after {timeout:.0f} s"}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "mib": round(after.ru_maxrss / 1024),
    }
    try:
        return measured | verdict(json.loads(done.stdout))
    except ValueError:
        return {"verdict": "refused", "reason": told(done.stderr or "no report"), **measured}


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """What a report says: passed, or the checks that did not."""
    checks = report["checks"]
    bad = [f"{c['name']}: {c['summary']}" for c in checks if c["status"] in {"failed", "error"}]
    found: dict[str, Any] = {"verdict": "failed" if bad else "passed"}
    for check in checks:
        if check["name"] == "parity" and check["target"] == "onnx":
            found["probes"] = check["metrics"].get("probes")
        if check["name"] == "simplify":
            found["nodes"] = check["summary"].partition(" nodes")[0]
    return found | ({"reason": told("; ".join(dict.fromkeys(bad)))} if bad else {})


def told(text: str) -> str:
    """A reason in one line, without the folders of this machine."""
    return re.sub(r"/\S*/site-packages/", "", " ".join(text.split()))[:600]


def page(results: dict[str, dict[str, Any]]) -> str:
    """The page of all results."""
    text = HEAD
    for name, item in results.items():
        inputs = [f"`{each}`" for each in INPUTS[name]]
        shown = " ".join(inputs[:3]) + (f" and {len(inputs) - 3} more" if len(inputs) > 3 else "")
        options = f"`{' '.join(OPTIONS[name])}`" if OPTIONS[name] else ""
        cells = [f"`{name}`", shown, options, item["verdict"]]
        cells += [str(item.get(key, "")) for key in ("probes", "nodes")]
        cells += [f"{item[key]:.0f}" if key in item else "" for key in ("seconds", "mib")]
        text += f"| {' | '.join(cells)} |\n"
    reasons = [
        f"- `{name}`: {item['reason']}" for name, item in results.items() if "reason" in item
    ]
    return text + ("\n## What does not pass\n\n" + "\n".join(reasons) + "\n" if reasons else "")


def main() -> None:
    """Run, keep the results after each, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    for name in asked.names or ([] if asked.page else list(INPUTS)):
        # In a process of its own, as the memory of children is that of the largest so far.
        with ProcessPoolExecutor(1) as process:
            found = process.submit(run, name, asked.timeout).result()
        print(json.dumps({name: found}), flush=True)
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results = {each: {**known, name: found}[each] for each in INPUTS if each in {*known, name}}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
