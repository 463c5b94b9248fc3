"""The device ``web``: ONNX Runtime's WebAssembly build, as browsers run it, under Node.

It runs .onnx and .ort files as they are. npm's package is kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch2mobile import installing
from torch2mobile.environments import Environment, describe_exit
from torch2mobile.errors import DeviceError, InstallError, MissingToolError, ModelFileError
from torch2mobile.records import OutputSpec

if TYPE_CHECKING:
    import numpy as np

WEB = "web"
INSTALL = f"torch2mobile doctor --install {WEB}"
# npm's releases are not those of PyPI: the last one that was tried.
VERSION = "1.30.0"
_PACKAGES = ("onnxruntime-web", "onnxruntime-common")
# Of 140 MB, what Node needs for the CPU.
_FILES = ("ort.node.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_NEEDED = 200 << 20
_SCRIPT = Path(__file__).with_name("web_runner.mjs")


def environment() -> Environment:
    """The Python that talks to Node; it is not there where the package is not."""
    return Environment(WEB, needs=(str(_folder()),), install=INSTALL)


def installed() -> Mapping[str, str] | None:
    """The versions of the package and of Node; None where one is missing."""
    found, node = installing.part(_folder()), shutil.which("node")
    if found is None or node is None:
        return None
    return {**found.versions, "node": _version(node)}


@cache
def _version(node: str) -> str:
    """What Node says that it is: asked once, since it takes as long to start as a small model."""
    return installing.run([node, "--version"], "node").strip().removeprefix("v")


def digest() -> str:
    """One SHA-256 over those of the archives that it was made of."""
    return installing.digest([installing.part(_folder())])


def install(told: Callable[[str], None]) -> None:
    """Load the package from npm into the user's cache; InstallError where it cannot be had."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise InstallError(
                f"{WEB} needs {program}, which is not there", "Install Node.js 20 or later."
            )
    with installing.alone(_folder().parent, _NEEDED):
        if installing.part(_folder()) is None:
            told(f"onnxruntime-web {VERSION}")
            _install()


def _install() -> None:
    downloads = _folder().with_name("downloads")
    downloads.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{VERSION}" for name in _PACKAGES]
    command = ["npm", "pack", "--silent", "--pack-destination", str(downloads), *wanted]
    installing.run(command, f"the download of onnxruntime-web {VERSION}", cwd=downloads)
    packed = [downloads / f"{name}-{VERSION}.tgz" for name in _PACKAGES]
    with installing.filling(_folder(), {_PACKAGES[0]: VERSION}, packed) as staged:
        for name, archive in zip(_PACKAGES, packed, strict=True):
            _unpack(archive, staged / "node_modules" / name)
    shutil.rmtree(downloads, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    """The files of an npm package that are needed; one that is broken is loaded anew next time."""
    import tarfile

    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.removeprefix("package/")
                ours = name.partition("/")[2] in _FILES or folder.name != _PACKAGES[0]
                if member.isfile() and ".." not in name and (ours or name == "package.json"):
                    path = folder / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(cast("Any", tar.extractfile(member)).read())
    except (tarfile.TarError, EOFError, OSError) as error:
        archive.unlink(missing_ok=True)
        raise InstallError(
            f"{archive.name} is broken: {error}", f"Run it again: {INSTALL}"
        ) from error


def _folder() -> Path:
    return installing.cache() / WEB / f"onnxruntime-web-{VERSION}"


class WebRunner:
    """A session of onnxruntime-web in a Node of its own, on one thread."""

    def __init__(self, path: Path) -> None:
        node = shutil.which("node")
        if node is None:
            raise MissingToolError(f"{WEB} needs node", "Install Node.js 20 or later.")
        package = _folder() / "node_modules" / _PACKAGES[0] / "dist" / _FILES[0]
        self._process = subprocess.Popen(
            [node, str(_SCRIPT), str(package), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._about = self._answer()
        if "error" in self._about:
            raise ModelFileError(
                f"onnxruntime-web cannot load {path.name}: {self._about['error']}",
                "It may have an operator or a type that the WebAssembly build has not.",
            )

    def inputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the inputs, as the session has them."""
        return _specs(self._about["inputs"])

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the outputs, as the session has them."""
        return _specs(self._about["outputs"])

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs in the file's order."""
        import numpy as np

        tensors = [
            {"name": name, "type": str(array.dtype), "dims": array.shape, "size": array.nbytes}
            for name, array in feeds.items()
        ]
        self._send({"feeds": tensors}, [np.ascontiguousarray(array) for array in feeds.values()])
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(f"onnxruntime-web stops: {answer['error']}")
        return [
            (
                told["name"],
                np.frombuffer(self._read(told["size"]), told["type"]).reshape(told["dims"]),
            )
            for told in answer["outputs"]
        ]

    def _send(self, request: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> None:
        text = json.dumps(request).encode()
        stdin = cast("Any", self._process.stdin)
        # Where it died, the answer that does not come tells how.
        with contextlib.suppress(BrokenPipeError):
            for part in (
                struct.pack("<I", len(text)),
                text,
                *(array.tobytes() for array in arrays),
            ):
                stdin.write(part)
            stdin.flush()

    def _answer(self) -> dict[str, Any]:
        (size,) = struct.unpack("<I", self._read(4))
        return cast("dict[str, Any]", json.loads(self._read(size)))

    def _read(self, size: int) -> bytes:
        found: bytes = cast("Any", self._process.stdout).read(size)
        if len(found) < size:
            raise DeviceError(f"node {describe_exit(self._process.wait())}", f"Run: {INSTALL}")
        return found


def _specs(tensors: Sequence[Mapping[str, Any]]) -> tuple[OutputSpec, ...]:
    return tuple(
        OutputSpec(told["name"], told["type"], tuple(dim or "?" for dim in told["shape"]))
        for told in tensors
    )


def load(path: Path) -> WebRunner:
    """What a worker calls to load a file."""
    return WebRunner(path)
