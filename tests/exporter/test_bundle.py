"""The bundle: written whole or not at all, the same bytes each time, and read with suspicion."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from torch2mobile.errors import BundleError, ExitCode, ModelFileError, WriteError
from torch2mobile.exporter import bundle as bundles
from torch2mobile.exporter import staging
from torch2mobile.exporter.bundle import load_bundle, tampered_files
from torch2mobile.exporter.bundle_writer import BundleWriter
from torch2mobile.records import Bundle, Dim, GoldenCase, InputSpec, Manifest, OutputSpec, Values

MANIFEST = Manifest(
    name="net",
    source="net.py:Net",
    strategy="non-strict",
    opset=20,
    simplified=True,
    seed=0,
    inputs=(InputSpec("x", ("x",), "float32", (Dim(symbol="N", least=1),), Values("range", 0, 1)),),
    outputs=(OutputSpec("y", "float32", ("N", 3)),),
    targets={"ort": ("model.ort",)},
    golden=(GoldenCase("golden/0.npz", "example", {"y": 1e-6}),),
    versions={"b": "2", "a": "1"},
    files={},
)


ENTRY = {"sha256": "0", "size": 1}


def fill(stage: Path, text: str = "new") -> None:
    (stage / "model.onnx").write_text(text)
    (stage / "model.ort").write_bytes(b"ort")
    feeds, outputs = {"x": np.arange(3, dtype="f4")}, [("y", np.ones((1, 3), "f4"))]
    bundles.write_case(stage / "golden" / "0.npz", feeds, outputs)


def write(out: Path, text: str = "new") -> Bundle:
    with BundleWriter(out) as writer:
        fill(writer.stage, text)
        return writer.commit(MANIFEST)


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder, those in its subfolders and the hidden ones included."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- writing ----------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    written = write(tmp_path / "deep" / "out")
    read = load_bundle(tmp_path / "deep" / "out")
    assert read == written
    assert replace(read.manifest, files={}) == MANIFEST
    assert list(read.manifest.files) == ["golden/0.npz", "model.onnx", "model.ort"]
    assert read.manifest.files["model.ort"].size == 3
    assert tampered_files(read) == []
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_the_same_content_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a")
    # A .npz is a zip, and could hold the time of its making.
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    write(tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    text = (tmp_path / "a" / "manifest.json").read_text()
    assert text.index('"a": "1"') < text.index('"b": "2"')


def test_whoever_may_read_the_model_may_read_it_all(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "out") as writer:
        fill(writer.stage)
        (writer.stage / "model.ort").chmod(0o600)
        (writer.stage / "model.onnx").chmod(0o644)
        made = writer.commit(MANIFEST)
    assert {made.file(name).stat().st_mode & 0o777 for name in made.manifest.files} == {0o644}


def test_golden_cases_are_read_in_the_written_order(tmp_path: Path) -> None:
    feeds = {"b": np.ones(2), "a/b": np.array([True])}
    outputs = [("z", np.float16([1])), ("b", np.zeros((0, 3), "i8"))]
    bundles.write_case(tmp_path / "sub" / "0.npz", feeds, outputs)
    read_feeds, read_outputs = bundles.read_case(tmp_path / "sub" / "0.npz")
    assert list(read_feeds) == ["b", "a/b"]
    assert [(name, array.dtype, array.shape) for name, array in read_outputs] == [
        ("z", np.dtype("f2"), (1,)),
        ("b", np.dtype("i8"), (0, 3)),
    ]


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Path]:
    """A bundle that must be there afterwards, whole, with nothing beside it."""
    out = tmp_path / "out"
    write(out, "old")
    before = content(out)
    yield out
    assert content(out) == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_midway_leaves_what_stood_there(standing: Path, error: Any) -> None:
    def fail() -> None:
        with BundleWriter(standing) as writer:
            fill(writer.stage)
            raise error

    with pytest.raises(error):
        fail()


def test_no_commit_writes_nothing(standing: Path) -> None:
    with BundleWriter(standing) as writer:
        fill(writer.stage)


def test_a_commit_that_fails_leaves_what_stood_there(
    standing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging, "_exchange", full)
    with pytest.raises(WriteError, match="No space left") as caught:
        write(standing)
    assert caught.value.exit_code is ExitCode.STAGE
    assert "disk space" in caught.value.remedy


KILLED = """
import os, sys
from pathlib import Path
from torch2mobile.exporter.bundle_writer import BundleWriter
with BundleWriter(Path(sys.argv[1])) as writer:
    (writer.stage / "model.onnx").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_kill_9_leaves_what_stood_there_and_the_next_run_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old")
    before = content(out)
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert content(out) == before
    assert len(list(tmp_path.iterdir())) == 2
    write(out)
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "model.onnx").read_text() == "new"


def test_a_new_bundle_replaces_the_old_one_whole(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with BundleWriter(tmp_path / "out") as writer:
        (writer.stage / "model.onnx").write_text("new")
        writer.commit(replace(MANIFEST, targets={}, golden=()))
    assert list(content(tmp_path / "out")) == ["manifest.json", "model.onnx"]
    assert load_bundle(tmp_path / "out").manifest.targets == {}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


# --- where it may not write -------------------------------------------------------------------


def refusal(out: Path) -> BundleError:
    before = content(out.parent) if out.parent.is_dir() else None
    with pytest.raises(BundleError) as caught:
        BundleWriter(out).__enter__()
    assert before is None or content(out.parent) == before
    assert caught.value.exit_code is ExitCode.USAGE
    assert "--out" in caught.value.remedy
    return caught.value


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("months of work")
    assert "not empty and was not written by torch2mobile" in refusal(tmp_path / "thesis").message


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "other"}'])
def test_a_folder_with_another_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text(text)
    assert "was not written by torch2mobile" in refusal(tmp_path / "app").message


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert write(tmp_path / "out").path == tmp_path / "out"


def test_a_tampered_bundle_is_still_ours(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    (tmp_path / "out" / "model.onnx").write_text("changed")
    write(tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").read_text() == "new"


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert "is no folder" in refusal(tmp_path / "out").message
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "is no folder" in refusal(tmp_path / "dangling").message


def test_a_parent_that_cannot_hold_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    assert "cannot write beside" in refusal(tmp_path / "file" / "out").message
    assert "cannot read" in refusal(tmp_path / ("x" * 300)).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert "cannot write beside" in refusal(tmp_path / "out").message
    finally:
        tmp_path.chmod(0o700)


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "real", "old")
    (tmp_path / "out").symlink_to("real")
    assert write(tmp_path / "out").path == tmp_path / "out"
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "real" / "model.onnx").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"real", "out"}


def test_a_mount_point_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "out")
    assert "is a mount point" in refusal(tmp_path / "out").message


def test_a_path_that_is_no_utf8_is_refused_at_once(tmp_path: Path) -> None:
    for path in (b"net-\xff", b"\xff/net"):
        out = tmp_path / os.fsdecode(path)
        with pytest.raises(BundleError, match=r"xff\S* is no UTF-8, and no ONNX tool") as caught:
            BundleWriter(out)
        caught.value.message.encode()
        with pytest.raises(BundleError, match="is no UTF-8"):
            load_bundle(out)
    assert list(tmp_path.iterdir()) == []


def _list_it_too(out: Path) -> None:
    """A file of the user's, which the manifest was made to list."""
    (out / "notes.md").write_text("mine")
    raw = json.loads((out / "manifest.json").read_bytes())
    raw["files"]["notes.md"] = ENTRY
    (out / "manifest.json").write_text(json.dumps(raw))


def _link_a_file(out: Path) -> None:
    (out / "model.ort").unlink()
    (out / "model.ort").symlink_to("model.onnx")


FOREIGN: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "file": ("notes.md", lambda out: (out / "notes.md").write_text("mine")),
    "empty folder": ("notes", lambda out: (out / "notes").mkdir()),
    "empty folder below": ("golden/notes", lambda out: (out / "golden/notes").mkdir()),
    "link to a folder": ("link", lambda out: (out / "link").symlink_to("..")),
    "dangling link": ("link", lambda out: (out / "link").symlink_to("nowhere")),
    "FIFO": ("pipe", lambda out: os.mkfifo(out / "pipe")),
    "listed": ("notes.md", _list_it_too),
    "link in place of a file": ("model.ort", _link_a_file),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_of_the_bundle_is_never_lost(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    write(out, "old")
    name, add = FOREIGN[kind]
    add(out)
    assert f"holds {name}, which is no part of the bundle" in refusal(out).message
    assert (out / "model.onnx").read_text() == "old"
    assert (out / name).is_symlink() or (out / name).exists()


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("instant", ["during the export", "at the exchange"])
def test_what_comes_later_is_not_lost_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, instant: str
) -> None:
    out = tmp_path / "out"
    write(out, "old")
    name, add = FOREIGN[kind]
    real, calls = staging._exchange, []

    def exchange(new: Path, place: Path) -> None:
        calls.append(place)
        if len(calls) == 1:
            add(out)
        real(new, place)

    if instant == "at the exchange":
        monkeypatch.setattr(staging, "_exchange", exchange)
    with BundleWriter(out) as writer:
        fill(writer.stage)
        if instant == "during the export":
            add(out)
        with pytest.raises(BundleError, match=f"holds {name}, which is no part"):
            writer.commit(MANIFEST)
    assert len(calls) == (2 if instant == "at the exchange" else 0)
    assert (out / "model.onnx").read_text() == "old"
    assert (out / name).is_symlink() or (out / name).exists()
    assert not list(tmp_path.glob(".*"))


def test_a_relative_place_is_that_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with BundleWriter(Path("dist/out/")) as writer:
        fill(writer.stage)
        monkeypatch.chdir("/")
        assert writer.commit(MANIFEST).path == tmp_path / "dist" / "out"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "0.npz").symlink_to("/dev/full")
    with pytest.raises(WriteError, match="No space left on device") as caught:
        bundles.write_case(tmp_path / "0.npz", {"x": np.ones(5000)}, [])
    assert caught.value.remedy == "Free some disk space."


# --- reading ----------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    return write(tmp_path / "out")


def edit(made: Bundle, **changes: Any) -> BundleError:
    """The error after a change to the manifest."""
    path = made.file("manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    with pytest.raises(BundleError) as caught:
        load_bundle(made.path)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.remedy
    return caught.value


def test_no_bundle_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / "manifest.json").mkdir(parents=True)
    for name, message in (
        ("gone", "there is no bundle"),
        ("file", "there is no bundle"),
        ("empty", "empty is no bundle: it holds nothing, and no manifest.json"),
        ("odd", "no readable manifest.json"),
    ):
        with pytest.raises(BundleError, match=message):
            load_bundle(tmp_path / name)


def test_a_folder_that_is_no_bundle_says_what_is_in_it(tmp_path: Path) -> None:
    for name in ("net.onnx", "a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path)
    assert "it holds a.txt, b.txt, c.txt and 1 more, and no manifest.json" in str(caught.value)
    assert "with manifest.json, model.onnx and golden data" in caught.value.remedy
    assert caught.value.remedy.endswith(f"{tmp_path / 'net.onnx'} can be given by itself.")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" \n", b"{", b"null", b"[]", b"7", b"\xff\xfe", b"\x00", b"{}",
        b'{"a":' * 100_000, b"[" * 100_000, b'{"name": "\\ud800"}',
    ],
    ids=lambda raw: repr(raw[:12]),
)  # fmt: skip
def test_a_corrupt_manifest(made: Bundle, raw: bytes) -> None:
    made.file("manifest.json").write_bytes(raw)
    with pytest.raises(BundleError, match=r"truncated|is empty|is not JSON|its schema|too deeply"):
        load_bundle(made.path)


def test_any_truncation_of_a_manifest_is_noticed(made: Bundle) -> None:
    raw = made.file("manifest.json").read_bytes()
    for length in range(0, len(raw.rstrip()), 7):
        made.file("manifest.json").write_bytes(raw[:length])
        with pytest.raises(BundleError):
            load_bundle(made.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opset": "20"}, "Expected `int`, got `str` - at `$.opset`"),
        ({"files": []}, "`$.files`"),
        ({"inputs": [{"name": "x"}]}, "missing required field"),
        ({"golden": [["golden/0.npz"]]}, "`$.golden[0]`"),
        ({"kind": "something else"}, "of kind 'something else'"),
        ({"schema_version": 2}, "version 2"),
        ({"files": {}}, "no hash for model.onnx, model.ort, golden/0.npz"),
        ({"targets": {"ort": ["other.ort"]}}, "no hash for other.ort"),
        ({"golden": [{"file": "golden/9.npz", "probe": "", "allowed": {}}]}, "golden/9.npz"),
    ],
)
def test_a_manifest_of_another_kind(made: Bundle, changes: Any, message: str) -> None:
    assert message in edit(made, **changes).message


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../secret", "golden/../../secret", "golden/../model.ort", "..", "",
        "C:\\secret", "a\\..\\b",
        "zero\0byte", "link/passwd", "link", "loop", "loop/file", "up/secret",
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["files", "targets", "golden"])
def test_a_path_that_leads_out_is_refused(made: Bundle, name: str, where: str) -> None:
    made.file("link").symlink_to("/etc")
    made.file("loop").symlink_to("loop")
    made.file("up").symlink_to("..")
    entry = {
        "files": {**msgspec.to_builtins(made.manifest.files), name: ENTRY},
        "targets": {"ort": [name]},
        "golden": [{"file": name, "probe": "", "allowed": {}}],
    }[where]
    error = edit(made, **{where: entry})
    assert f"names {name!r}, which leads out of the bundle" in error.message
    assert "Do not use this bundle" in error.remedy


def test_a_link_within_the_bundle_is_fine(made: Bundle) -> None:
    made.file("model.ort").unlink()
    made.file("copy.ort").write_bytes(b"ort")
    made.file("model.ort").symlink_to("copy.ort")
    assert tampered_files(load_bundle(made.path)) == []


# --- tampering --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (lambda path: path.unlink(), "model.onnx is missing"),
        (lambda path: path.write_text("ne"), "model.onnx has 2 bytes, the manifest says 3"),
        (lambda path: path.write_text("mew"), "model.onnx was changed after it was written"),
        (lambda path: (path.unlink(), path.mkdir()), "model.onnx is missing"),
    ],
)
def test_a_tampered_file_is_named(
    made: Bundle, tamper: Callable[[Path], Any], problem: str
) -> None:
    tamper(made.file("model.onnx"))
    (found,) = tampered_files(made)
    assert found.startswith(problem)


def test_every_tampered_file_is_named(made: Bundle) -> None:
    for name in made.manifest.files:
        made.file(name).write_bytes(b"")
    assert [problem.split()[0] for problem in tampered_files(made)] == list(made.manifest.files)


def test_a_file_that_cannot_be_read_is_a_problem_not_a_crash(made: Bundle) -> None:
    name = "x" * 5000
    files = {**made.manifest.files, name: made.manifest.files["model.ort"]}
    (problem,) = tampered_files(replace(made, manifest=replace(made.manifest, files=files)))
    assert problem == f"{name} cannot be read: File name too long"


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert bundles.file_sha256(tmp_path / "f") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize("raw", [b"", b"no zip", b"PK\x03\x04"])
def test_a_corrupt_golden_case(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "0.npz").write_bytes(raw)
    with pytest.raises(ModelFileError, match=r"cannot be read as \.npz"):
        bundles.read_case(tmp_path / "0.npz")


# --- external data ----------------------------------------------------------------------------


def outside(location: str) -> Any:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def node(**attributes: Any) -> Any:
    return helper.make_node("Any", [], ["y"], domain="d", **attributes)


PLACES: dict[str, Callable[[Any], Any]] = {
    "weight": lambda w: {"initializer": [w]},
    "attribute": lambda w: {"nodes": [node(value=w)]},
    "list attribute": lambda w: {"nodes": [node(value=[w])]},
    "sparse": lambda w: {
        "nodes": [
            node(value=helper.make_sparse_tensor(w, helper.make_tensor("i", 7, [1], [0]), [1]))
        ]
    },
    "branch": lambda w: {
        "nodes": [node(body=helper.make_graph([node(value=w)], "branch", [], []))]
    },
    "branch weight": lambda w: {
        "nodes": [node(body=helper.make_graph([], "branch", [], [], initializer=[w]))]
    },
    "function": lambda w: {"functions": [node(value=w)]},
}


def model_with(place: str, location: str, path: Path) -> Path:
    parts = PLACES[place](outside(location))
    graph = helper.make_graph(
        parts.get("nodes", []), "graph", [], [], initializer=parts.get("initializer", [])
    )
    opset = helper.make_opsetid("d", 1)
    functions = [
        helper.make_function("d", "F", [], ["y"], [inner], [opset])
        for inner in parts.get("functions", [])
    ]
    path.write_bytes(helper.make_model(graph, functions=functions).SerializeToString())
    return path


@pytest.mark.parametrize("place", PLACES)
def test_external_data_must_stay_inside_and_be_listed(tmp_path: Path, place: str) -> None:
    model = tmp_path / "model.onnx"
    (tmp_path / "link").symlink_to("/etc")
    long = f"{'./' * 999}../../secret"
    for location in ("../secret", "/etc/passwd", "link/passwd", "sub/../../secret", "", long):
        model_with(place, location, model)
        with pytest.raises(BundleError, match="leads out of the bundle") as caught:
            bundles.refuse_external_data(tmp_path, model, ["model.onnx.data"])
        assert "model.onnx names" in caught.value.message
    model_with(place, "other.data", model)
    with pytest.raises(BundleError, match="which the manifest does not list"):
        bundles.refuse_external_data(tmp_path, model, ["model.onnx.data"])
    bundles.refuse_external_data(tmp_path, model, [])
    model_with(place, "model.onnx.data", model)
    bundles.refuse_external_data(tmp_path, model, ["model.onnx.data"])


def test_a_model_that_only_speaks_of_a_location(tmp_path: Path) -> None:
    graph = helper.make_graph([helper.make_node("Abs", ["location"], ["y"])], "g", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    bundles.refuse_external_data(tmp_path, tmp_path / "model.onnx", ["other"])


def test_a_truncated_model_with_external_data(tmp_path: Path) -> None:
    path = model_with("weight", "model.onnx.data", tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelFileError, match="no ONNX file, or is truncated"):
        bundles.refuse_external_data(tmp_path, path, [])


def test_a_model_without_any_is_not_even_parsed(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing of the kind")
    bundles.refuse_external_data(tmp_path, tmp_path / "model.onnx", [])


def test_clean_up_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    with BundleWriter(tmp_path / "out") as writer:
        (writer.stage / "link").symlink_to(tmp_path / "precious")
    assert (tmp_path / "precious" / "file").read_text() == "kept"
