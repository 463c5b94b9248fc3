"""What the tests of examples/embed need, in a folder: ``python scripts/embed_libraries.py DIR``.

Headers of ONNX Runtime and of nlohmann/json come from Debian's packages, whichever system this is:
they are unpacked, not installed. The C API has a version of its own, so that headers of 1.21 serve
for any later library. All is checked by its SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

POOL = "http://deb.debian.org/debian/pool/main"
HEADERS = {
    f"{POOL}/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb": (
        "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"
    ),
    f"{POOL}/n/nlohmann-json3/nlohmann-json3-dev_3.11.3-2.1_all.deb": (
        "741a6a32f61a14eaf9560ba1814b27da8e78fa3b9bed9e8867ab46316ddf3793"
    ),
}
SECONDS = 60


def add_headers(folder: Path, scratch: Path) -> None:
    """``include/onnxruntime`` and ``include/nlohmann``."""
    for url, sha256 in HEADERS.items():
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            data = answer.read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise SystemExit(f"{url} is not what it was: its SHA-256 differs")
        archive = scratch / url.rpartition("/")[2]
        archive.write_bytes(data)
        subprocess.run(["dpkg-deb", "-x", archive, scratch], check=True)
    shutil.copytree(scratch / "usr" / "include", folder / "include", dirs_exist_ok=True)


def main() -> None:
    """Add what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    try:
        with tempfile.TemporaryDirectory() as name:
            if not (folder / "include").is_dir():
                add_headers(folder, Path(name))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"cannot be had: {error}")


if __name__ == "__main__":
    main()
