"""What a model is made of, as hashes: each of its weights, and the user's files behind it.

With them a later bundle can say whether it was the weights, the code, or something else.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from torch2mobile.records import Fingerprint, LoadedModel
from torch2mobile.user_code import is_user_file


def weights_of(module: torch.nn.Module) -> Fingerprint:
    """The SHA-256 of every parameter and buffer: dtype, shape and bytes; of all, with their names.

    Nothing is copied that is contiguous and on the CPU. A tensor that has no bytes of its own (of
    an unusual subclass) has no hash, and then the whole has none.
    """
    tensors = {**dict(module.named_buffers()), **module.state_dict()}
    parts = {
        name: _tensor_sha256(tensor)
        for name, tensor in sorted(tensors.items())
        if isinstance(tensor, torch.Tensor)
    }
    return Fingerprint(_combined(f"{name} {digest}" for name, digest in parts.items()), parts)


def _tensor_sha256(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    try:
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        plain = plain.dequantize() if plain.is_quantized else plain
        plain = plain if plain.layout == torch.strided else plain.to_dense()
        digest.update(plain.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return ""
    return digest.hexdigest()


def sources_of(loaded: LoadedModel, source: str, files: Iterable[str]) -> Fingerprint:
    """The SHA-256 of the user's files: of the module's classes, of the source, and of ``files``.

    They are named relative to the working directory or to a folder of ``sys.path``, never in full,
    and the whole does not depend on their names. A saved program stands for its own source.
    """
    if loaded.program is not None:
        code = loaded.program.graph_module.code
        parts = {"exported program": _text_sha256(code)}
        return Fingerprint(_combined(parts.values()), parts)
    paths = {*_class_files(loaded.module), *_source_file(source), *filter(None, map(_find, files))}
    found: dict[str, str] = {}
    for path in sorted(paths):
        text = "".join(linecache.getlines(path)) if is_user_file(path) else ""
        if text:
            name = _shown(Path(path))
            # Two files of one base name, and no folder that tells them apart.
            found[name] = _text_sha256(found.get(name, "") + text)
    return Fingerprint(_combined(found.values()), found)


def _class_files(module: torch.nn.Module) -> Iterator[str]:
    """Where the methods of the modules' classes are written; a notebook's cell counts as a file."""
    for kind in {base for child in module.modules() for base in type(child).__mro__}:
        for member in vars(kind).values():
            if inspect.isfunction(member):
                yield member.__code__.co_filename


def _source_file(source: str) -> Iterator[str]:
    """The file that a source as typed names: there the module may be built with arguments."""
    place, colon, _ = source.rpartition(":")
    if colon and place.endswith(".py"):
        yield str(Path(place).absolute())
    elif colon:
        file = getattr(sys.modules.get(place), "__file__", None)
        yield from [file] if file else []


def _find(name: str) -> str | None:
    """The full path of a file that was named relative to the working directory or ``sys.path``."""
    tries = (Path(folder or ".") / name for folder in ("", *sys.path))
    return next((str(path.absolute()) for path in tries if path.is_file()), None)


def _shown(path: Path) -> str:
    folders = [Path.cwd(), *sorted(map(Path, filter(None, sys.path)), key=_depth, reverse=True)]
    for folder in folders:
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


def _depth(path: Path) -> int:
    return len(path.parts)


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _combined(texts: Iterable[str]) -> str:
    """One hash of several; none where there is nothing, or one of them is not known."""
    lines = sorted(texts)
    if not lines or any(line.endswith(" ") or not line for line in lines):
        return ""
    return _text_sha256("\n".join(lines))
