"""Weights from a file into a module: safetensors, or a state dict without unrestricted pickle."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import torch

from torch2mobile import limits
from torch2mobile.copies import first_line
from torch2mobile.errors import SourceError, did_you_mean, some_of
from torch2mobile.tensors import quiet

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state_dict(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a .safetensors, .pt or .pth file, by name, and what to note of their choice.

    ``path`` may end in ``:KEY``, which is the one meant of a checkpoint's state dicts. Raises
    SourceError for a missing, corrupt or unknown file, for a pickle that holds more than tensors,
    and for several state dicts of which none is named.
    """
    path, key = _parted(path)
    if not path.is_file():
        raise SourceError(f"there is no weights file {path}", "Check the path given to --weights.")
    if path.stat().st_size == 0:
        raise SourceError(
            f"{path} is empty: it has 0 bytes, and no state dict in it",
            "Save it anew, with torch.save(model.state_dict(), path) or as .safetensors.",
        )
    if path.suffix not in {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar"}:
        raise SourceError(
            f"{path} has an unknown ending {path.suffix!r}",
            "Give a .safetensors file, or a state dict saved as .pt or .pth.",
        )
    loaded = (_read_safetensors if path.suffix == ".safetensors" else _unpickled)(path)
    return (dict(loaded), "") if _is_state_dict(loaded) and not key else _held(loaded, path, key)


def _held(loaded: object, path: Path, key: str) -> tuple[dict[str, torch.Tensor], str]:
    """The state dict of a checkpoint that is named, or known by its key, or the only one."""
    parts = loaded.items() if isinstance(loaded, Mapping) else ()
    held = {str(name): each for name, each in parts if _is_state_dict(each) and each}
    if not held or (key and key not in held):
        message = f"{path} holds no state dict" + (f" {key!r}" if key else "")
        if held:
            raise SourceError(message, did_you_mean(key, list(held)))
        if _is_state_dict(loaded):
            raise SourceError(message, f"Give {path} as it is.")
        message += f", but something of type {type(loaded).__name__}"
        raise SourceError(message, "Save model.state_dict().")
    known = key or next((name for name in _WRAPPERS if name in held), "")
    first = next(iter(held))
    if not known and len(held) > 1:
        raise SourceError(
            f"{path} holds {len(held)} state dicts: {some_of(list(held), 8)}",
            f"Name the one that is meant: --weights {path}:{first}",
        )
    note = "" if known else f"the weights are {first!r} of {path.name}"
    return dict(held[known or first]), note


def _parted(path: Path) -> tuple[Path, str]:
    """A file, and which of its state dicts is meant: ``net.pth:params_ema``."""
    file, _, key = str(path).rpartition(":")
    return (Path(file), key) if not path.exists() and Path(file).is_file() else (path, "")


def _is_state_dict(value: object) -> TypeGuard[Mapping[str, torch.Tensor]]:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(each, torch.Tensor) for key, each in value.items()
    )


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


def load_weights(module: torch.nn.Module, path: Path) -> tuple[str, ...]:
    """Put a file's weights into the module, strictly: same keys, same shapes; returns notes.

    A prefix that all keys of the file have (``module.`` of DataParallel, ``_orig_mod.`` of
    torch.compile) is left out. Raises SourceError that names the missing and the unexpected keys,
    the shapes that differ, and the dtypes that the model's cannot hold.
    """
    own = module.state_dict()
    state, chosen = read_state_dict(path)
    prefix = _common_prefix(own, state)
    state = {key.removeprefix(prefix): value for key, value in state.items()}
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
        raise SourceError(
            f"{path} does not fit the model: {'; '.join(problems)}",
            "Build the model as it was when these weights were saved.",
        )
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise SourceError(
            f"{path} does not fit the model: {error}",
            "Build the model as it was when these weights were saved.",
        ) from error
    cut = prefix and f"{prefix!r} was left out of all keys of {path.name}"
    return tuple(filter(None, (chosen, cut)))


def _misfit(key: str, given: torch.Tensor, own: torch.Tensor) -> list[str]:
    # A lazy module's weights take their shape from the file.
    if not torch.nn.parameter.is_lazy(own) and own.shape != given.shape:
        return [f"{key} is {list(given.shape)} in the file, {list(own.shape)} in the model"]
    if given.layout != own.layout:
        return [f"{key} is {given.layout} in the file, {own.layout} in the model"]
    if not torch.can_cast(given.dtype, own.dtype):
        return [f"{key} is {given.dtype} in the file, {own.dtype} in the model"]
    return []


def _common_prefix(own: Mapping[str, object], given: Mapping[str, object]) -> str:
    """What all given names have before those of the module, of which they have none as it is."""
    if not given or own.keys() & given.keys():
        return ""
    first = next(iter(given))
    for wanted in own:
        prefix = first.removesuffix(wanted)
        if first.endswith("." + wanted) and all(name.startswith(prefix) for name in given):
            return prefix
    return ""
