"""Exports models to every target, on every device, and writes docs/reference/targets_measured.md.

    python benchmarks/targets.py [NAME ...] [--device DEVICE] [--page]

Needs what ``torch2mobile doctor`` lists for the targets and devices, timm and transformers, and an
hour or two. With names only those are run. Results are kept in targets.json beside this file;
``--page`` writes the page from those alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from architectures import exported, told

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".json")
PAGE = ROOT / "docs" / "reference" / "targets_measured.md"

LOSSY = ("ncnn-fp16", "mnn-fp16", "coreml-fp16", "litert-fp16", "qnn")
GATES = [f"--{kind}=@{label}=0.01" for label in LOSSY for kind in ("atol", "rtol")]
OPTIONS = ("--target", "all", "--probes", "1", *GATES)

BERT = ("input_ids:int64[N=1..2,T=1..16]", "attention_mask:int64[N,T]", "token_type_ids:int64[N,T]")
# Small and some fixed, as a call on an emulated processor takes some seventy times as long.
INPUTS: dict[str, tuple[str, ...]] = {
    "sample:super_resolution": ("image:float32[1,1,24,24]",),
    "sample:mobile_cnn": ("image:float32[1,3,32,32]",),
    "sample:transformer": ("ids:int64[N=1..2,L=2..16]", "mask:bool[N,L]"),
    "sample:recurrent": ("motion:float32[1,12,6]",),
    "sample:segmenter": ("image:float32[1,3,16,16]",),
    "sample:detector": ("image:float32[1,3,32,32]",),
    "timm:mobilenetv3_small_050": ("x:float32[1,3,64,64]",),
    "benchmarks/architecture_models.py:bert": BERT,
    "benchmarks/architecture_models.py:unet": ("image:float32[1,3,8,8]",),
}

HEAD = """# Targets, measured

Each model exported by one command, to every target and on some devices (the page of
[targets](targets.md) has what a variant is, the page of [devices](devices.md) what a device is):

```console
$ torch2mobile export MODEL --input SIZES --target all --device DEVICE --probes 1 \\
    --atol @LOSSY=0.01 --rtol @LOSSY=0.01
```

`LOSSY` is each of the variants that compute in float16 or keep float16 weights: ncnn-fp16,
mnn-fp16, coreml-fp16, litert-fp16 and qnn. Where a cell has an error and a time, the file was
executed there: the greatest error against the module in PyTorch, and the seconds that loading took.
Noise is how far float32 itself is from float64 on the same inputs. A cell in **bold** failed. A
number in brackets is that of a reason below the table: one without an error was not executed, one
with it was not judged. The three processors are [emulated](devices.md), so that their seconds say
nothing of a phone. Weights of all but super_resolution are random. `python benchmarks/targets.py`
measured and wrote all this. The devices are those that each model's command has; models that the
script has and this page has not were not measured yet.
"""


def run(source: str, devices: list[str], timeout: float) -> dict[str, Any]:
    """One export in processes of its own."""
    given = [f"--input={spec}" for spec in INPUTS[source]] + [
        f"--device={name}" for name in devices
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        start = time.perf_counter()
        words = [source, *given, *OPTIONS, "--out", f"{folder}/out", "--report", str(report)]
        done = exported(words, timeout)
        if done is None:
            return {"given": given, "exit": None, "reason": f"not done after {timeout:.0f} s"}
        if not report.exists():
            return {
                "given": given,
                "exit": done.returncode,
                "reason": told(done.stderr or done.stdout),
            }
        seconds = round(time.perf_counter() - start)
        found = {"given": given, "exit": done.returncode, "seconds": seconds}
        return found | read(json.loads(report.read_text()))


def read(report: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a report: its table of artefacts and devices, and the stages' seconds."""
    seconds: dict[str, float] = defaultdict(float)
    starts: dict[tuple[str, str], str] = {}
    rows: list[list[Any]] = []
    for check in report["checks"]:
        if check["name"] == "devices":
            rows = [row for table in check["tables"] for row in table["rows"]]
        elif not check["device"]:
            # What all targets need is counted with the .onnx.
            seconds[check["target"] or "onnx"] += check["seconds"] or 0.0
        if "layer" in check["metrics"]:
            layer, kind = (check["metrics"][name] for name in ("layer", "layer kind"))
            module = "".join(f" of {place['module']}" for place in check["locations"][-1:])
            starts[check["target"], check["device"] or "this machine"] = (
                f"; it starts at {layer} ({kind}){module}"
            )
    return {
        "stages": {name: round(took, 2) for name, took in seconds.items()},
        "rows": [kept(row, starts.get((row[0], row[1]), "")) for row in rows],
    }


def kept(row: list[Any], start: str) -> list[Any]:
    """A row of the table with its reason in one line, and no more digits than are shown."""
    figures = [float(f"{x:.2g}") if isinstance(x, float) else x for x in row[2:-1]]
    return [*row[:2], *figures, told(row[-1])[:300].replace(row[1], "this device") + start]


def page(results: dict[str, dict[str, Any]]) -> str:
    """The page of all results."""
    return HEAD + "".join(section(name, item) for name, item in results.items()) + costs(results)


def section(source: str, item: dict[str, Any]) -> str:
    """One model: a row an artefact, a column a device, and the reasons below."""
    text = f"\n## {source.rpartition(':')[2]}\n\n`{source} {' '.join(item['given'])}`"
    if "reason" in item:
        return f"{text}\n\nNo report (exit code {item['exit']}): {item['reason']}\n"
    text += f"; {item['seconds']} s in all, exit code {item['exit']}.\n\n"
    devices = list(dict.fromkeys(row[1] for row in item["rows"]))
    reasons: dict[str, int] = {}
    lines: dict[str, dict[str, Any]] = defaultdict(dict)
    for label, device, error, noise, size, load, status, reason in item["rows"]:
        line = lines[label]
        line.setdefault("KiB", f"{size / 1024:.0f}" if size else "")
        line.setdefault("noise", f"{noise:.2g}" if noise is not None else "")
        line[device] = cell(status, error, load, reason, reasons)
    columns = ["KiB", "noise", *devices]
    text += f"| artefact | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}\n"
    for label, line in lines.items():
        text += f"| `{label}` | {' | '.join(str(line.get(name, '')) for name in columns)} |\n"
    return text + "".join(
        f"{'' if number > 1 else chr(10)}{number}. {reason}\n" for reason, number in reasons.items()
    )


def cell(
    status: str, error: float | None, load: float | None, reason: str, reasons: dict[str, int]
) -> str:
    """What one artefact did on one device."""
    figures = "" if error is None else f"{error:.2g}"
    figures += "" if error is None or load is None else f", {load:.2g} s"
    if status == "passed":
        return figures or "passed"
    number = reasons.setdefault(f"{status.upper()}: {reason}", len(reasons) + 1)
    shown = f"{figures} ({number})".strip()
    return f"**{shown}**" if status in {"failed", "error"} else shown


def costs(results: dict[str, dict[str, Any]]) -> str:
    """What each target takes of an export, as a ratio to the export without any."""
    text = (
        "\n## What a target costs\n\nSeconds of its own stages (conversion, contract, tables and\n"
        "parity here; none of the devices) as a ratio to all the stages of an export that ends\n"
        "with the `.onnx`, whose seconds stand in the first row.\n\n"
    )
    known = {name: item["stages"] for name, item in results.items() if "stages" in item}
    labels = list(dict.fromkeys(label for stages in known.values() for label in stages))
    heads = [name.rpartition(":")[2] for name in known]
    text += f"| | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}\n"
    for label in labels:
        cells = []
        for stages in known.values():
            base, own = stages["onnx"], stages.get(label)
            cells.append(
                "" if own is None else f"{own:.0f} s" if label == "onnx" else f"{own / base:.2f}x"
            )
        text += f"| `{label}` | {' | '.join(cells)} |\n"
    return text


def main() -> None:
    """Run, keep the results after each, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--timeout", type=float, default=3600)
    parser.add_argument("--device", action="append", help="instead of all")
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    full = {name.rpartition(":")[2]: name for name in INPUTS}
    for wrong in {*asked.names} - {*full, *INPUTS}:
        parser.error(f"there is no {wrong!r}: {', '.join(full)}")
    names = [full.get(name, name) for name in asked.names]
    for name in names if asked.names else [] if asked.page else INPUTS:
        found = run(name, asked.device or ["all"], asked.timeout)
        print(name, found["exit"], found.get("seconds"), flush=True)
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results = {each: {**known, name: found}[each] for each in INPUTS if each in {*known, name}}
        RESULTS.write_text(json.dumps(results) + "\n")
    PAGE.write_text(page(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
