"""examples/embed: compiled, and run on bundles that are right and on bundles that are damaged.

The programs must exit as ``torch2mobile verify`` does. ``EMBED_LIBRARIES`` is a folder of
scripts/embed_libraries.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import torch2mobile
from torch2mobile import devices
from torch2mobile.cli import run as torch2mobile_command
from torch2mobile.errors import InstallError
from torch2mobile.exporter.bundle import read_case, write_case
from torch2mobile.exporter.targets.ncnn import NcnnTarget
from torch2mobile.records import ParityOptions, Tolerance

EXAMPLE = Path(__file__).parents[1] / "examples" / "embed"
LIBRARIES = Path(os.environ.get("EMBED_LIBRARIES", "there/is/none")).resolve()
CROSS = "aarch64-linux-gnu-g++"
WORST = re.compile(r"PASSED  (\S+)  (\S+)  worst error (\S+) of (\S+) allowed \(case (.*)\)")
FAST: dict[str, Any] = {"simplify": False, "parity": ParityOptions(probes=2)}


# --- without a compiler -----------------------------------------------------------------------


def test_cmake_compiles_every_source() -> None:
    listed = set(re.findall(r"\b\w+\.cpp\b", (EXAMPLE / "CMakeLists.txt").read_text("utf-8")))
    assert listed == {path.name for path in EXAMPLE.glob("*.cpp")}


def test_the_readme_shows_what_the_programs_print() -> None:
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^PASSED .*$", text, re.MULTILINE)
    assert {said[1] for said in map(WORST.fullmatch, shown) if said} == {"onnx", "ort", "ncnn"}


def test_dtypes_have_numpys_names_and_sizes() -> None:
    table = re.findall(
        r'\{"(\S\w\d)", "(\w+)", (\d)\}', (EXAMPLE / "npz.cpp").read_text(encoding="utf-8")
    )
    assert len(table) == 12
    for descr, name, size in table:
        dtype = np.dtype(descr)
        assert (dtype.name, dtype.itemsize) == (name, int(size))


def test_golden_data_is_row_by_row_and_not_compressed(tmp_path: Path) -> None:
    by_column = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert not by_column.flags.c_contiguous
    write_case(tmp_path / "case.npz", {"x": by_column}, [("y", np.float32(1)[()])])
    text = (tmp_path / "case.npz").read_bytes()
    assert by_column.tobytes() in text
    assert b"'fortran_order': True" not in text
    feeds, outputs = read_case(tmp_path / "case.npz")
    np.testing.assert_array_equal(feeds["x"], by_column)
    assert outputs[0][1].shape == ()


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that makes EMBED_LIBRARIES."""
    monkeypatch.syspath_prepend(EXAMPLE.parents[1] / "scripts")
    monkeypatch.delitem(sys.modules, "embed_libraries", raising=False)
    return importlib.import_module("embed_libraries")


def test_a_library_that_does_not_compile_says_why_and_is_not_there(
    libraries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, cmake = tmp_path / "sources", tmp_path / "bin" / "cmake"
    for folder in (sources / "src", cmake.parent):
        folder.mkdir(parents=True)
    (sources / "src" / "CMakeLists.txt").write_text("ncnn_add_layer(ReLU)\n", "utf-8")
    stopped = "[ $1 = --build ] && echo no room >&2 && exit 1"
    made = 'for each; do case $each in *PREFIX=*) mkdir -p "${each#*=}/lib";; esac; done'
    cmake.write_text(f"#!/bin/sh\n{stopped}\n{made}\n", "utf-8")
    cmake.chmod(0o755)
    monkeypatch.setenv("PATH", str(cmake.parent), prepend=os.pathsep)
    with pytest.raises(InstallError, match="cmake failed:\nno room"):
        libraries.add_ncnn(tmp_path / "ncnn", sources, [])
    assert not (tmp_path / "ncnn").exists()


def test_headers_whose_copy_is_interrupted_are_not_there(
    libraries: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: Path, into: Path, **options: Any) -> None:
        into.mkdir(exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(libraries, "HEADERS", {})
    monkeypatch.setattr(libraries.shutil, "copytree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        libraries.add_headers(tmp_path, tmp_path)
    assert not (tmp_path / "include").exists()


# --- compiled ---------------------------------------------------------------------------------


def need(*programs: str) -> None:
    """Skip with the reason where something is not there."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"not there: {program}")
    if not (LIBRARIES / "include").is_dir():
        pytest.skip("EMBED_LIBRARIES is no folder of scripts/embed_libraries.py")


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One worker at a time in a folder that they share."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(folder: Path, *options: str) -> Path:
    """The example, compiled into a folder."""
    with alone(folder):
        settings = [f"-DJSON_ROOT={LIBRARIES}", "-DCMAKE_CXX_FLAGS=-Werror", *options]
        for command in (
            ["cmake", "-S", EXAMPLE, "-B", folder, *settings],
            ["cmake", "--build", folder],
        ):
            ended = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=600
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def onnxruntime_root(folder: Path, package: Path) -> str:
    """What a release of ONNX Runtime unpacks to: headers, and the library of a Python wheel."""
    found = list((package / "capi").glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip("this onnxruntime has no library of its own")
    with alone(folder):
        (folder / "lib").mkdir(parents=True, exist_ok=True)
        for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
            link = folder / "lib" / name
            if not link.exists():
                link.symlink_to(found[0])
        if not (folder / "include").exists():
            (folder / "include").symlink_to(LIBRARIES / "include" / "onnxruntime")
    return f"-DONNXRUNTIME_ROOT={folder}"


Replay = Callable[[Path], "tuple[int, str]"]


def program(*command: str | Path) -> Replay:
    def replay(bundle: Path) -> tuple[int, str]:
        ended = subprocess.run(
            [*command, bundle], capture_output=True, text=True, check=False, timeout=300
        )
        return ended.returncode, ended.stdout + ended.stderr

    return replay


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent / "embed" if "PYTEST_XDIST_WORKER" in os.environ else base / "embed"


def with_ncnn(folder: str) -> list[str]:
    """The option for ncnn, where it was compiled."""
    found = LIBRARIES / folder / "lib" / "cmake" / "ncnn"
    return [f"-Dncnn_DIR={found}"] if found.is_dir() else []


@pytest.fixture(scope="session")
def built(shared: Path) -> Path:
    """The folder of both programs, for this machine."""
    need("cmake", "c++")
    root = onnxruntime_root(shared / "onnxruntime", Path(onnxruntime.__file__).parent)
    return build(shared / "build", root, *with_ncnn("ncnn"))


@pytest.fixture(scope="session")
def replay(built: Path) -> Replay:
    return program(built / "replay")


@pytest.fixture(scope="session")
def replay_ncnn(built: Path) -> Replay:
    if not with_ncnn("ncnn"):
        pytest.skip("EMBED_LIBRARIES has no ncnn")
    return program(built / "replay_ncnn")


class Pair(nn.Module):
    """Two inputs, one of them whole numbers, and outputs of three dtypes."""

    INPUTS = ("x:float32[N=1..3,4]", "ids:int64[N]")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.linear = nn.Embedding(5, 4), nn.Linear(4, 6)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.linear(x + self.table(ids))
        return y, y.argmax(1), y > 0


class Two(nn.Module):
    """What ncnn takes without its first dimension: an image and a row."""

    INPUTS = ("image:float32[N=1..2,3,H=4..9,W=4..9]", "x:float32[N,8]")

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 6)

    def forward(self, image: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.conv(image).relu(), self.head(x)


class Mean(nn.Module):
    """A mean that is carried from call to call."""

    INPUTS = ("x:float32[2,4]",)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.full((4,), 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.level.copy_(self.level * 0.9 + x.mean(0) * 0.1)
        return x - self.level


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "pair"
    values = ["ids=0..4"]
    result = torch2mobile.export(Pair().eval(), inputs=Pair.INPUTS, values=values, out=path, **FAST)
    assert result.exit_code == 0, result.report
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if NcnnTarget().missing():
        pytest.skip(f"not there: {NcnnTarget().missing()}")
    path = tmp_path_factory.mktemp("bundles") / "two"
    half = {"@ncnn-fp16": Tolerance(0.02, 0.0)}
    result = torch2mobile.export(
        Two().eval(),
        inputs=Two.INPUTS,
        targets=["ncnn", "ncnn-fp16"],
        out=path,
        simplify=False,
        parity=ParityOptions(probes=2, tolerances=half),
    )
    assert result.exit_code == 0, result.report
    return path


def rows(text: str) -> dict[tuple[str, str], str]:
    """The verdict's words by artefact and output."""
    found = re.findall(r"^(?:PASSED|FAILED)  (\S+)  (\S*)  (.*)$", text, re.MULTILINE)
    return {(label, output): said for label, output, said in found}


def agrees_with_the_manifest(bundle: Path, text: str) -> None:
    """Each error is what was measured at the export, on the same library."""
    cases = known(bundle)["golden"]
    for line in text.splitlines():
        found = WORST.fullmatch(line)
        if found is None:
            assert line.endswith("  equal")
            continue
        label, output, error, allowed, probe = found.groups()
        (case,) = (each for each in cases if each["probe"] == probe)
        assert float(error) == pytest.approx(case["errors"][label][output], rel=0.01)
        assert float(error) <= float(allowed)


@pytest.mark.slow
def test_a_bundle_that_is_right(replay: Replay, pair: Path) -> None:
    code, text = replay(pair)
    assert code == 0, text
    found = rows(text)
    assert len(found) == 6
    assert {output for _, output in found} == set(outputs_of(pair))
    agrees_with_the_manifest(pair, text)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "detector"])
def test_samples(replay: Replay, tmp_path: Path, name: str) -> None:
    bundle = tmp_path / name
    command = ["export", f"sample:{name}", "--no-simplify", "--probes", "2", "--out", str(bundle)]
    assert torch2mobile_command(command) == 0
    code, text = replay(bundle)
    assert code == 0, text
    assert {output for _, output in rows(text)} == set(outputs_of(bundle))
    agrees_with_the_manifest(bundle, text)


@pytest.mark.slow
def test_calls_in_a_row_carry_the_state(replay: Replay, tmp_path: Path) -> None:
    bundle = tmp_path / "mean"
    result = torch2mobile.export(Mean().eval(), inputs=Mean.INPUTS, state=True, out=bundle, **FAST)
    assert result.exit_code == 0, result.report
    assert replay(bundle)[0] == 0
    # The file that an app starts from counts, and not what the golden data say it was.
    state = bundle / "state.bin"
    state.write_bytes(np.full(4, 3.0, np.float32).tobytes())
    assert codes(replay, bundle) == (1, 1)
    state.write_bytes(b"")
    assert codes(replay, bundle) == (1, 1)


def outputs_of(bundle: Path) -> list[str]:
    return [output["name"] for output in known(bundle)["outputs"]]


def codes(replay: Replay, bundle: Path) -> tuple[int, int]:
    """The exit codes of the program and of ``torch2mobile verify``."""
    return replay(bundle)[0], torch2mobile_command(["verify", str(bundle), "--quiet"])


# --- damaged ----------------------------------------------------------------------------------


def example(bundle: Path) -> Path:
    return bundle / "golden" / "0_example.npz"


def weight(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == "linear.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, tensor.name))
    onnx.save(model, bundle / "model.onnx")


def flipped_bit(bundle: Path) -> None:
    _, outputs = read_case(example(bundle))
    data = bytearray(example(bundle).read_bytes())
    data[data.index(outputs[0][1].tobytes())] ^= 1
    example(bundle).write_bytes(data)


def cut(bundle: Path) -> None:
    example(bundle).write_bytes(example(bundle).read_bytes()[:200])


def compressed(bundle: Path) -> None:
    with np.load(example(bundle)) as arrays:
        np.savez_compressed(example(bundle), **dict(arrays))


def changed(name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[Path], None]:
    """One array of the example's golden data replaced, or left out."""

    def damage(bundle: Path) -> None:
        with np.load(example(bundle)) as loaded:
            arrays = dict(loaded)
        replaced = change(arrays.pop(name) if name in arrays else np.zeros(2, np.float32))
        # At its old place: order counts.
        found = {k: arrays.get(k, replaced) for k in [*loaded.files, name]}
        np.savez(example(bundle), **{k: v for k, v in found.items() if v is not None})

    return damage


def poked(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


def manifest(**fields: Any) -> Callable[[Path], None]:
    def damage(bundle: Path) -> None:
        (bundle / "manifest.json").write_text(json.dumps({**known(bundle), **fields}), "utf-8")

    return damage


def known(bundle: Path) -> dict[str, Any]:
    """The manifest as it is."""
    return dict(json.loads((bundle / "manifest.json").read_text("utf-8")))


def leads_out(bundle: Path) -> None:
    manifest(golden=[{**known(bundle)["golden"][0], "file": "../outside.npz"}])(bundle)


def written(name: str, data: bytes) -> Callable[[Path], None]:
    def damage(bundle: Path) -> None:
        (bundle / name).write_bytes(data)

    return damage


def gone(name: str) -> Callable[[Path], None]:
    def damage(bundle: Path) -> None:
        (bundle / name).unlink()

    return damage


FIRST, INDEX, SIGN = "outputs/output_0", "outputs/output_1", "outputs/output_2"
EXAMPLE_FILE = "golden/0_example.npz"
DAMAGE: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "weight": (weight, 1, r"FAILED  onnx  output_0  worst error \S+ of \S+ allowed"),
    "flipped bit": (flipped_bit, 1, "damaged: its checksum differs"),
    "cut": (cut, 1, "it is no .npz"),
    "golden gone": (gone(EXAMPLE_FILE), 1, "0_example.npz cannot be read"),
    "golden empty": (written(EXAMPLE_FILE, b""), 1, "it is no .npz"),
    "compressed": (compressed, 1, "it is compressed"),
    "one output less": (changed(INDEX, lambda _: None), 1, "3 outputs for 2"),
    "one output more": (changed("outputs/z", lambda a: a), 1, "3 outputs for 4"),
    "one input less": (changed("inputs/ids", lambda _: None), 1, "ids"),
    "a NaN": (changed(FIRST, poked(np.nan)), 1, "gives .* for nan"),
    "infinity": (changed(FIRST, poked(np.inf)), 1, "gives .* for inf"),
    "another value": (changed(FIRST, poked(9.0)), 1, "FAILED  ort  output_0  worst error"),
    "another index": (changed(INDEX, lambda a: a + 1), 1, "must be equal"),
    "another truth": (changed(SIGN, lambda a: ~a), 1, "must be equal"),
    "dtype": (changed(FIRST, lambda a: a.astype(np.float64)), 1, r"is float32\[.*not float64"),
    "dtype of an input": (changed("inputs/ids", lambda a: a.astype(np.int32)), 1, "ids"),
    "a dtype of no use": (changed(FIRST, lambda a: a.astype(complex)), 1, "has the dtype <c16"),
    "shape": (changed(FIRST, lambda a: a[..., None]), 1, "is float32.*, and not float32"),
    "a batch of one": (changed(FIRST, lambda a: a[None]), 1, r"and not float32\[1,\d,6\]"),
    "by column": (changed(FIRST, np.asfortranarray), 1, "is by column"),
    "model gone": (gone("model.onnx"), 1, "FAILED  onnx    model.onnx does not load"),
    "no model": (written("model.ort", b"no model"), 1, "FAILED  ort    model.ort does not load"),
    "no golden": (manifest(golden=[]), 3, "nothing was compared"),
    "schema": (manifest(schema_version=99), 2, "another kind or schema version"),
    "kind": (manifest(kind="other"), 2, "another kind or schema version"),
    "no list": (manifest(golden=3), 2, "is not as torch2mobile writes it"),
    "manifest gone": (gone("manifest.json"), 2, "is no bundle"),
    "no JSON": (written("manifest.json", b"{"), 2, "is not as torch2mobile writes it"),
    "leads out": (leads_out, 2, "not in the bundle"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_has_the_exit_code_of_verify(
    replay: Replay, pair: Path, tmp_path: Path, name: str
) -> None:
    damage, code, said = DAMAGE[name]
    bundle = tmp_path / "pair"
    shutil.copytree(pair, bundle)
    damage(bundle)
    found, text = replay(bundle)
    assert re.search(said, text), text
    assert (found, codes(replay, bundle)[1]) == (code, code)


@pytest.mark.slow
def test_a_folder_that_is_no_bundle(replay: Replay, tmp_path: Path) -> None:
    assert codes(replay, tmp_path) == codes(replay, tmp_path / "none") == (2, 2)


# --- ncnn -------------------------------------------------------------------------------------


def holds_for_ncnn(replay: Replay, bundle: Path) -> None:
    code, text = replay(bundle)
    assert code == 0, text
    found = [said.groups() for said in map(WORST.fullmatch, text.splitlines()) if said]
    assert [(label, output) for label, output, *_ in found] == [
        (label, output) for label in ("ncnn", "ncnn-fp16") for output in ("output_0", "output_1")
    ]
    # The one was proven in float32 arithmetic, the other in float16.
    assert all(float(error) < 1e-5 for label, _, error, *_ in found if label == "ncnn")
    assert all(float(error) > 1e-5 for label, _, error, *_ in found if label == "ncnn-fp16")
    assert "cases on ncnn: it takes no batch" in text


@pytest.mark.slow
def test_ncnn(replay_ncnn: Replay, two: Path) -> None:
    holds_for_ncnn(replay_ncnn, two)


def ncnn_weight(bundle: Path) -> None:
    """The last number of the file, of a bias."""
    data = (bundle / "model.ncnn.bin").read_bytes()
    (bundle / "model.ncnn.bin").write_bytes(data[:-4] + np.float32(0.5).tobytes())


def only_batches(bundle: Path) -> None:
    golden = known(bundle)["golden"]
    twos = [c for c in golden if read_case(bundle / c["file"])[0]["x"].shape[0] == 2]
    assert twos
    manifest(golden=twos)(bundle)


NCNN_DAMAGE: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "weight": (ncnn_weight, 1, "FAILED  ncnn  output_1  worst error"),
    "no net": (written("model.ncnn.param", b"no net"), 1, "model.ncnn.param does not load"),
    "no weights": (gone("model.ncnn.bin"), 1, "model.ncnn.param does not load"),
    "batches only": (only_batches, 3, "no golden case fits"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NCNN_DAMAGE)
def test_damage_of_what_ncnn_reads(
    replay_ncnn: Replay, two: Path, tmp_path: Path, name: str
) -> None:
    damage, code, said = NCNN_DAMAGE[name]
    shutil.copytree(two, tmp_path / "two")
    damage(tmp_path / "two")
    found, text = replay_ncnn(tmp_path / "two")
    assert re.search(said, text), text
    assert found == code


@pytest.mark.slow
def test_a_lossy_artefact_without_a_tolerance_is_held_to_its_structure(
    replay_ncnn: Replay, two: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "two"
    shutil.copytree(two, bundle)
    files = known(bundle)["targets"]
    manifest(golden=[{**case, "limits": {}} for case in known(bundle)["golden"]])(bundle)
    assert codes(replay_ncnn, bundle) == (0, 0)
    _, text = replay_ncnn(bundle)
    assert [label for label, _ in rows(text)] == ["ncnn", "ncnn"]
    found = re.findall(r"SKIPPED  ncnn-fp16  \S+  worst error (\S+), held to no tolerance", text)
    assert [float(error) > 1e-5 for error in found] == [True, True]
    manifest(targets={"ncnn-fp16": files["ncnn-fp16"]})(bundle)
    code, text = replay_ncnn(bundle)
    assert (code, "no tolerance that values were held to" in text) == (3, True)
    file = next(bundle / c["file"] for c in known(bundle)["golden"] if c["probe"] == "N=1")
    feeds, outputs = read_case(file)
    write_case(file, feeds, [(name, array[..., None]) for name, array in outputs])
    code, text = replay_ncnn(bundle)
    assert (code, "FAILED  ncnn-fp16  output_0  is float32" in text) == (1, True)


@pytest.mark.slow
def test_a_bundle_without_a_model_for_it(replay_ncnn: Replay, pair: Path) -> None:
    code, text = replay_ncnn(pair)
    assert (code, "no model for this runtime" in text) == (3, True)


FITS, WIDE = 4, 2**40  # the last id, of a table with five rows
CALLS = {"ids": "rows"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("calls", "code", "skipped"),
    [
        ([(FITS, {})], 0, 0),
        ([(WIDE, {})], 3, 1),
        # A call that is refused leaves the next one without a state to carry on.
        ([(WIDE, {}), (FITS, CALLS), (FITS, CALLS), (FITS, {})], 0, 3),
    ],
)
def test_token_ids_are_int32_in_ncnn(
    replay_ncnn: Replay,
    two: Path,
    tmp_path: Path,
    calls: list[tuple[int, dict[str, str]]],
    code: int,
    skipped: int,
) -> None:
    """A table looked up, in a net by hand: pnnx makes none of an .onnx."""
    bundle = tmp_path / "two"
    shutil.copytree(two, bundle)
    table = np.arange(20, dtype=np.float32).reshape(5, 4)
    net = "7767517\n2 2\nInput in0:1 0 1 in0\nEmbed table 1 1 in0 out0 0=4 1=5 2=0 3=20\n"
    (bundle / "model.ncnn.param").write_text(net, "utf-8")
    (bundle / "model.ncnn.bin").write_bytes(bytes(4) + table.tobytes())
    before, golden = known(bundle), []
    for number, (last, carries) in enumerate(calls):
        ids, file = np.array([[3, 0, last]]), f"golden/call_{number}.npz"
        write_case(bundle / file, {"ids": ids}, [("rows", table[np.minimum(ids, 4)])])
        case = {"file": file, "allowed": {"rows": 0.0}, "limits": {}, "carries": carries}
        golden.append({**before["golden"][0], **case})
    entry = {**before["artifacts"]["ncnn"], "names": {"ids": "in0", "rows": "out0"}}
    dims = [{**before["inputs"][0]["dims"][0], "symbol": None, "size": size} for size in (1, 3)]
    manifest(
        targets={"ncnn": before["targets"]["ncnn"]},
        artifacts={"ncnn": entry},
        golden=golden,
        inputs=[{**before["inputs"][0], "name": "ids", "dims": dims}],
        outputs=[{**before["outputs"][0], "name": "rows", "dims": [1, 3, 4]}],
    )(bundle)
    found, text = replay_ncnn(bundle)
    assert found == code, text
    said = f"skipped {skipped} cases on ncnn: its values do not fit into int32"
    assert (said in text) == bool(skipped)


# --- for ARM64 --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def arm64(shared: Path) -> Callable[[str, str], Replay]:
    """A program on an emulated processor."""
    need("cmake", CROSS)
    packages = ("onnxruntime", "numpy")
    if devices.installed(packages) is None:
        pytest.skip(f"not there: {devices.INSTALL}")
    place = devices.environment(devices.DEVICES[0], packages)
    wheel = Path(place.needs[0]) / "onnxruntime"
    root = onnxruntime_root(shared / "onnxruntime-arm64", wheel)
    system = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
    compiler = f"-DCMAKE_CXX_COMPILER={CROSS}"
    ncnn = with_ncnn("ncnn-arm64")
    folder = build(shared / "build-arm64", *system, compiler, root, *ncnn)

    def on(name: str, device: str) -> Replay:
        if name == "replay_ncnn" and not ncnn:
            pytest.skip("EMBED_LIBRARIES has no ncnn for ARM64")
        launcher = devices.environment(device, packages).launcher
        return program(*launcher, "-E", "LD_LIBRARY_PATH=", folder / name)

    return on


@pytest.mark.slow
@pytest.mark.parametrize("device", devices.DEVICES)
def test_on_an_emulated_processor(
    arm64: Callable[[str, str], Replay], pair: Path, tmp_path: Path, device: str
) -> None:
    replay = arm64("replay", device)
    code, text = replay(pair)
    assert code == 0, text
    assert len(rows(text)) == 6
    shutil.copytree(pair, tmp_path / "pair")
    weight(tmp_path / "pair")
    assert replay(tmp_path / "pair")[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("device", devices.DEVICES)
def test_ncnn_on_an_emulated_processor(
    arm64: Callable[[str, str], Replay], two: Path, tmp_path: Path, device: str
) -> None:
    replay = arm64("replay_ncnn", device)
    holds_for_ncnn(replay, two)
    shutil.copytree(two, tmp_path / "two")
    ncnn_weight(tmp_path / "two")
    assert replay(tmp_path / "two")[0] == 1
