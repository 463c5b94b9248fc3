"""What the tests of examples/embed need, in a folder: ``python scripts/embed_libraries.py DIR``.

Headers of ONNX Runtime and of nlohmann/json come from Debian's packages, whichever system this is:
they are unpacked, not installed. The C API has a version of its own, so that headers of 1.21 serve
for any later library. ncnn is compiled from its sources on PyPI, for this machine and, if there is
a compiler, for ARM64: with the layers of the tests only, which takes a minute or two. All is
checked by its SHA-256.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from torch2mobile import installing
from torch2mobile.errors import InstallError

POOL = "http://deb.debian.org/debian/pool/main"
HEADERS = {
    f"{POOL}/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb": (
        "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"
    ),
    f"{POOL}/n/nlohmann-json3/nlohmann-json3-dev_3.11.3-2.1_all.deb": (
        "741a6a32f61a14eaf9560ba1814b27da8e78fa3b9bed9e8867ab46316ddf3793"
    ),
}
# By its address: pip takes no sdist by name whose version it finds to be another, as this one's is.
NCNN = (
    "https://files.pythonhosted.org/packages/b7/50/"
    "32b5172afe7d3e0dce410b7d8f4a5b7b84b942a0d69affbaedf669de52bc/ncnn-1.0.20261020.tar.gz"
    "#sha256=ad8cdd63e9755cfa8e23b9b6d9ce46156077d80298a89e7c3ba325ffccfca200"
)
LAYERS = {"input", "split", "convolution", "innerproduct", "embed", "relu"}
LAYERS |= {"padding", "packing", "cast", "flatten"}  # what these make for themselves
WITHOUT = "RUNTIME_CPU OPENMP INT8 BF16 WEIGHT_QUANT PIXEL PIXEL_ROTATE PIXEL_AFFINE PIXEL_DRAWING"
WITHOUT += " C_API AVX ARM82 BUILD_TOOLS BUILD_EXAMPLES BUILD_BENCHMARK"
CROSS = "aarch64-linux-gnu-g++"
SYSTEMS = {
    "ncnn": [],
    "ncnn-arm64": [
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={CROSS}",
    ],
}
SECONDS = 60
LAST_LINES = 20


def run(*command: str | Path) -> None:
    """Run a program; InstallError with its last lines where it does not succeed."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    try:
        ended = subprocess.run(command, stdout=pipe, stderr=both, errors="replace", check=False)
    except FileNotFoundError:
        raise InstallError(f"{command[0]} is not there") from None
    if ended.returncode != 0:
        said = "\n".join(ended.stdout.splitlines()[-LAST_LINES:])
        raise InstallError(f"{command[0]} failed:\n{said}")


def add_headers(folder: Path, scratch: Path) -> None:
    """``include/onnxruntime`` and ``include/nlohmann``."""
    for url, sha256 in HEADERS.items():
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            archive = scratch / url.rpartition("/")[2]
            archive.write_bytes(answer.read())
        if installing.file_sha256(archive) != sha256:
            raise InstallError(f"{url} is not what it was: its SHA-256 differs")
        run("dpkg-deb", "-x", archive, scratch)
    with installing.filling(folder / "include", {}, ()) as staged:
        shutil.copytree(scratch / "usr" / "include", staged, dirs_exist_ok=True)


def ncnn_sources(scratch: Path) -> Path:
    """The unpacked sources."""
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", scratch, NCNN)
    (archive,) = scratch.glob("ncnn-*.tar.gz")
    # Not by tarfile: its filters are newer than the oldest Python here, and newer ones want one.
    run("tar", "-xzf", archive, "-C", scratch)
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


def add_ncnn(folder: Path, sources: Path, system: Sequence[str]) -> None:
    """A static library with its headers, as a release of ncnn unpacks to."""
    cmake = (sources / "src" / "CMakeLists.txt").read_text(encoding="utf-8")
    layers = {name.lower() for name in re.findall(r"^ncnn_add_layer\((\w+)", cmake, re.MULTILINE)}
    settings = [f"-DWITH_LAYER_{layer}=OFF" for layer in sorted(layers - LAYERS)]
    settings += [f"-DNCNN_{option}=OFF" for option in WITHOUT.split()]
    # Half of the time that -O3 takes.
    settings += ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O1"]
    built = sources.parent / folder.name
    with installing.filling(folder, {}, ()) as staged:
        prefix = f"-DCMAKE_INSTALL_PREFIX={staged}"
        run("cmake", "-S", sources, "-B", built, prefix, *settings, *system)
        run("cmake", "--build", built, "--target", "install", "--parallel", str(os.cpu_count()))


def main() -> None:
    """Add what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    wanted = [name for name in SYSTEMS if name == "ncnn" or shutil.which(CROSS)]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if installing.part(folder / "include") is None:
                add_headers(folder, Path(scratch))
            missing = [name for name in wanted if installing.part(folder / name) is None]
            sources = ncnn_sources(Path(scratch)) if missing else Path()
            for name in missing:
                add_ncnn(folder / name, sources, SYSTEMS[name])
    except (OSError, InstallError) as error:
        sys.exit(f"not all can be had: {error}")


if __name__ == "__main__":
    main()
