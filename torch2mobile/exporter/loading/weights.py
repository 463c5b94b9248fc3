"""Weights from a file into a module: safetensors, or a state dict without unrestricted pickle."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from torch2mobile import limits
from torch2mobile.copies import first_line
from torch2mobile.errors import SourceError, some_of
from torch2mobile.tensors import quiet

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors, .pt or .pth file, by name.

    Raises SourceError for a missing, corrupt or unknown file, and for a pickle that holds more
    than tensors.
    """
    if not path.is_file():
        raise SourceError(f"there is no weights file {path}", "Check the path given to --weights.")
    if path.stat().st_size == 0:
        raise SourceError(
            f"{path} is empty: it has 0 bytes, and no state dict in it",
            "Save it anew, with torch.save(model.state_dict(), path) or as .safetensors.",
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in {".pt", ".pth", ".bin"}:
        raise SourceError(
            f"{path} has an unknown ending {path.suffix!r}",
            "Give a .safetensors file, or a state dict saved as .pt or .pth.",
        )
    loaded = _unpickled(path)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in loaded.items()
    ):
        raise SourceError(
            f"{path} holds no state dict, but something of type {type(loaded).__name__}",
            "Save model.state_dict().",
        )
    return dict(loaded)


def _unpickled(path: Path) -> object:
    """What a file of torch.save holds, read without running anything in it."""
    try:
        limits.refuse_inflating(path)
    except ValueError as error:
        raise SourceError(f"{path} was not read: {error}", "Save it as torch.save does.") from error
    try:
        with quiet():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        what = f"code ({code[1]}), not only tensors" if code else "no tensors, or is corrupt"
        raise SourceError(
            f"{path} holds {what}",
            "Save model.state_dict() instead of the whole model; unrestricted pickles are not run.",
        ) from error
    except Exception as error:
        # What the readers of pickles raise about other bytes says nothing about the file.
        raise SourceError(
            f"{path} is no file of torch.save, or is corrupt{_said(error)}",
            "Save it anew with torch.save(model.state_dict(), path).",
        ) from error


def _said(error: Exception) -> str:
    """What torch, unlike Python's pickle, says in words of an archive or of memory."""
    first = first_line(error)
    return f": {first}" if isinstance(error, RuntimeError | OSError) and first else ""


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise SourceError(
            f"{path} cannot be read as safetensors: {error}", "Save the weights anew."
        ) from error


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Put a file's weights into the module, strictly: same keys, same shapes.

    Raises SourceError that names the missing and the unexpected keys, the shapes that differ, and
    the dtypes that the model's cannot hold.
    """
    state = read_state_dict(path)
    own = module.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    problems = []
    if missing:
        problems.append(f"missing keys: {some_of(missing, 8)}")
    if unexpected:
        problems.append(f"unexpected keys: {some_of(unexpected, 8)}")
    for key in sorted(set(own) & set(state)):
        problems += _misfit(key, state[key], own[key])
    if problems:
        prefix = _common_prefix(missing, unexpected)
        remedy = "Build the model as it was when these weights were saved."
        if prefix:
            remedy = f"All keys of the file begin with {prefix!r}: save them without it."
        raise SourceError(f"{path} does not fit the model: {'; '.join(problems)}", remedy)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise SourceError(
            f"{path} does not fit the model: {error}",
            "Build the model as it was when these weights were saved.",
        ) from error


def _misfit(key: str, given: torch.Tensor, own: torch.Tensor) -> list[str]:
    # A lazy module's weights take their shape from the file.
    if not torch.nn.parameter.is_lazy(own) and own.shape != given.shape:
        return [f"{key} is {list(given.shape)} in the file, {list(own.shape)} in the model"]
    if given.layout != own.layout:
        return [f"{key} is {given.layout} in the file, {own.layout} in the model"]
    if not torch.can_cast(given.dtype, own.dtype):
        return [f"{key} is {given.dtype} in the file, {own.dtype} in the model"]
    return []


def _common_prefix(missing: list[str], unexpected: list[str]) -> str:
    for key in unexpected:
        for wanted in missing:
            if key.endswith("." + wanted):
                prefix = key.removesuffix(wanted)
                if all(name.startswith(prefix) for name in unexpected):
                    return prefix
    return ""
