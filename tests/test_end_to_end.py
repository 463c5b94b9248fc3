"""The real console script: all samples, edits of a finished model, and runs that are cut short."""

from __future__ import annotations

import hashlib
import importlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from torch2mobile import sampling
from torch2mobile.exporter.loading.inputs import resolve
from torch2mobile.sample_models import SAMPLES

pytestmark = pytest.mark.slow

TOOL = Path(sys.executable).with_name("torch2mobile")
ORDINARY = [name for name, sample in SAMPLES.items() if sample.ordinary]
AWKWARD = [name for name, sample in SAMPLES.items() if not sample.ordinary]


def tool(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the console script to its end."""
    return subprocess.run(
        [TOOL, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


def hashes(folder: Path) -> dict[str, str]:
    """The content of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Exports an ordinary sample once, through the console script."""
    folder = tmp_path_factory.mktemp("samples")

    def export(name: str) -> Path:
        bundle = folder / "dist" / name
        if not bundle.exists():
            done = tool("export", f"sample:{name}", cwd=folder)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "PASSED: " in done.stdout
        return bundle

    return export


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_samples_export_and_verify(name: str, bundles: Callable[[str], Path]) -> None:
    bundle = bundles(name)
    done = tool("verify", bundle, cwd=bundle.parent)
    assert done.returncode == 0, done.stdout
    fresh = ["verify", bundle, "--against", f"sample:{name}", "--seed", "11", "--probes", "3"]
    done = tool(*fresh, cwd=bundle.parent)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_samples_are_right_at_sizes_that_no_probe_had(
    name: str, bundles: Callable[[str], Path]
) -> None:
    import onnxruntime
    import torch

    sample = importlib.import_module(SAMPLES[name].module)
    specs, _ = resolve(sample.INPUTS, sample.VALUES)
    sizes = {
        dim.symbol: (dim.least or 1) + 1 + number
        for number, dim in enumerate(d for spec in specs for d in spec.dims)
        if dim.symbol and (dim.greatest or 99) > (dim.least or 1) + number
    } | {d.symbol: d.greatest for s in specs for d in s.dims if d.symbol == "N"}
    rng = np.random.default_rng(5)
    feeds = {spec.name: sampling.draw(spec, sizes, "example", rng) for spec in specs}
    session = onnxruntime.InferenceSession(bundles(name) / "model.onnx")
    got = session.run(None, feeds)
    with torch.no_grad():
        want = sample.build()(*(torch.from_numpy(array) for array in feeds.values()))
    wanted = list(want.values()) if isinstance(want, dict) else [want]
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_allclose(other, one.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_samples_fail_as_documented_and_name_their_line(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    done = tool("export", f"sample:{name}", "--format", "json", "-q", cwd=tmp_path)
    assert done.returncode == sample.expect_exit, done.stdout + done.stderr
    lines = [
        place["code"] for check in json.loads(done.stdout)["checks"] for place in check["locations"]
    ]
    assert any(sample.expect_line in line for line in lines), lines
    kept = {"dist", f"dist/{name}.failed", f"dist/{name}.failed/model.onnx"}
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} <= kept


# --- edits of a finished model ----------------------------------------------------------------


def _replace_operator(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "HardSwish")
    node.op_type = "Relu"


def _change_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda item: int(np.prod(item.dims)))
    changed = numpy_helper.to_array(tensor) * np.float32(1.01)
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))


def _rename_output(model: onnx.ModelProto, index: int, name: str) -> str:
    """Give an output's own value another name inside the graph; returns that name."""
    output = model.graph.output[index].name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for number, value in enumerate(names):
                if value == output:
                    names[number] = name
    return output


def _make_nan(model: onnx.ModelProto) -> None:
    output = _rename_output(model, 0, "before_nan")
    nan = numpy_helper.from_array(np.array(np.nan, np.float32), "nan")
    model.graph.initializer.append(nan)
    model.graph.node.append(helper.make_node("Add", ["before_nan", "nan"], [output]))


def _drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[-1]


def _swap_outputs(model: onnx.ModelProto) -> None:
    first, second = (
        onnx.ValueInfoProto.FromString(o.SerializeToString()) for o in model.graph.output
    )
    model.graph.output[0].CopyFrom(second)
    model.graph.output[1].CopyFrom(first)


def _cast_output(model: onnx.ModelProto) -> None:
    output = _rename_output(model, 0, "before_cast")
    model.graph.node.append(
        helper.make_node("Cast", ["before_cast"], [output], to=TensorProto.DOUBLE)
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _freeze_dim(model: onnx.ModelProto) -> None:
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    dim.dim_value = 2


EDITS: dict[str, tuple[str, Callable[[onnx.ModelProto], None]]] = {
    "operator replaced": ("mobile_cnn", _replace_operator),
    "weight changed by 1 %": ("mobile_cnn", _change_weight),
    "output made NaN": ("mobile_cnn", _make_nan),
    "output dropped": ("detector", _drop_output),
    "outputs swapped": ("detector", _swap_outputs),
    "output cast to float64": ("mobile_cnn", _cast_output),
    "dynamic dim frozen": ("mobile_cnn", _freeze_dim),
}


@pytest.mark.parametrize("rehash", [False, True], ids=["as is", "hash forged too"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_model_fails_verification(
    edit: str, rehash: bool, bundles: Callable[[str], Path], tmp_path: Path
) -> None:
    sample, change = EDITS[edit]
    bundle = tmp_path / "bundle"
    shutil.copytree(bundles(sample), bundle)
    assert tool("verify", bundle, cwd=tmp_path).returncode == 0
    model = onnx.load(bundle / "model.onnx")
    change(model)
    onnx.save(model, bundle / "model.onnx")
    if rehash:
        data = (bundle / "model.onnx").read_bytes()
        manifest = json.loads((bundle / "manifest.json").read_text())
        manifest["files"]["model.onnx"] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
        }
        (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = tool("verify", bundle, "--format", "json", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [c for c in json.loads(done.stdout)["checks"] if c["status"] == "failed"]
    names = {check["name"] for check in failed}
    assert ("integrity" in names) is not rehash
    assert names & {"golden", "contract"}


def test_an_edited_model_fails_against_its_source(
    bundles: Callable[[str], Path], tmp_path: Path
) -> None:
    model = onnx.load(bundles("mobile_cnn") / "model.onnx")
    _replace_operator(model)
    onnx.save(model, tmp_path / "edited.onnx")
    done = tool("verify", "edited.onnx", "--against", "sample:mobile_cnn", cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    for word in ("expected", "actual", "probe", "would have passed with"):
        assert word in done.stdout


# --- runs that are cut short ------------------------------------------------------------------


def _start_over(folder: Path) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """An export onto a finished bundle, stopped in the middle; with the bundle's hashes."""
    before = hashes(folder / "dist")
    process = subprocess.Popen(
        [TOOL, "export", "sample:detector", "--seed", "5"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "] reference" in line:
            return process, before
    raise AssertionError("the export ended before it was to be stopped")


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name
)
def test_a_run_that_is_cut_short_leaves_the_old_bundle(
    number: signal.Signals, bundles: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "dist").mkdir()
    shutil.copytree(bundles("detector"), tmp_path / "dist" / "detector")
    process, before = _start_over(tmp_path)
    process.send_signal(number)
    out, err = process.communicate()
    assert out == ""
    if number is not signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "interrupted; nothing was written" in err
        assert [path.name for path in (tmp_path / "dist").iterdir()] == ["detector"]
        assert hashes(tmp_path / "dist") == before
    else:
        assert process.returncode == -signal.SIGKILL
        kept = hashes(tmp_path / "dist")
        assert {name: kept[name] for name in before} == before
    assert tool("verify", "dist/detector", cwd=tmp_path).returncode == 0
    # The next run removes what the killed one left.
    time.sleep(0.1)
    assert tool("export", "sample:detector", cwd=tmp_path).returncode == 0
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["detector"]


def test_a_full_disk_leaves_the_old_bundle(bundles: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    shutil.copytree(bundles("detector"), tmp_path / "dist" / "detector")
    before = hashes(tmp_path / "dist")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [TOOL, "export", "sample:detector", "--seed", "5"],
        cwd=tmp_path,
        preexec_fn=small_files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot write" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert hashes(tmp_path / "dist") == before


def test_the_same_request_gives_the_same_bytes(
    bundles: Callable[[str], Path], tmp_path: Path
) -> None:
    first = hashes(bundles("segmenter"))
    assert tool("export", "sample:segmenter", cwd=tmp_path).returncode == 0
    assert hashes(tmp_path / "dist" / "segmenter") == first


def test_the_shipped_model_says_nothing_of_the_build_machine(
    bundles: Callable[[str], Path],
) -> None:
    bundle = bundles("mobile_cnn")
    sample = importlib.import_module(SAMPLES["mobile_cnn"].module)
    source = Path(str(sample.__file__))
    lines = [line.strip() for line in source.read_text().splitlines() if "self." in line]
    private = [str(Path.home()), str(bundle.parent), source.name, "site-packages", *lines]
    for name in ("model.onnx", "model.ort", "operators.config"):
        data = (bundle / name).read_bytes()
        assert not [text for text in private if text.encode() in data]
    # The map beside it does say.
    assert source.name in (bundle / "provenance.json").read_text()


LARGE = """
import torch

class Large(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(34_000, 16_384))
        with torch.no_grad():
            torch.manual_seed(0)
            self.weight[::1000] = torch.randn(34, 16_384)

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight)
"""


def _free_gib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "MemAvailable" in line) / 2**20


def test_a_model_above_two_gigabytes_is_exported_and_proven(tmp_path: Path) -> None:
    if _free_gib() < 14:
        pytest.skip("needs 14 GiB of free memory")
    (tmp_path / "large.py").write_text(LARGE)
    done = tool(
        *("export", "large.py:Large", "--input", "x:float32[N=1..4,16384]", "--probes", "0"),
        *("--format", "json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    status = {(c["name"], c["target"]): c["status"] for c in json.loads(done.stdout)["checks"]}
    assert status["parity", "onnx"] == "passed"
    assert status["simplify", ""] == status["convert", "ort"] == "skipped"
    bundle = tmp_path / "dist" / "Large"
    assert (bundle / "model.onnx.data").stat().st_size > 2**31
    assert tool("verify", bundle, cwd=tmp_path).returncode == 0
    shutil.rmtree(bundle)
