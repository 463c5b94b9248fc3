"""``timm:NAME`` and ``hf:NAME-or-folder``: a model whose own configuration says how to call it.

Nothing is fetched unless the user asks for it; what only has a configuration has random weights.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from torch2mobile import limits
from torch2mobile.errors import SourceError, did_you_mean, near_path, some_of
from torch2mobile.exporter.loading import preprocessing
from torch2mobile.exporter.loading.hub_inputs import Described

if TYPE_CHECKING:
    import torch

HUBS = ("timm", "hf")
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_RANDOM = "its weights are random: give --weights FILE, or --download"
# What a configuration of another form raises where it is read.
_MALFORMED = (ValueError, TypeError, AttributeError, LookupError)


class _NotLoadedError(SourceError):
    """The library knows the model, and does not get at its files or fails on them."""


@dataclass(frozen=True)
class Published:
    """A model of a library, and what its configuration says of it, as ``--input`` has it."""

    module: torch.nn.Module
    INPUTS: tuple[str, ...]
    VALUES: tuple[str, ...]
    notes: tuple[str, ...]
    PREPROCESS: str = ""
    TOKENIZER: str = ""


def published(hub: str, name: str, *, download: bool) -> Published:
    """The model of this name; SourceError where the library, or the name, is not there."""
    if not name:
        raise SourceError(f"{hub}: names no model", f"Write {hub}:NAME.")
    asks = download and not (hub == "hf" and Path(name).is_dir())
    silent = _silence() if asks and not any(map(os.environ.get, _OFFLINE)) else ""
    with _network(allowed=download and not silent, silent=silent):
        return _timm(name, download=download) if hub == "timm" else _hf(name, download=download)


@contextlib.contextmanager
def _network(*, allowed: bool, silent: str) -> Iterator[None]:
    """Without leave, the libraries look for files on this machine only."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    if not allowed:
        os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    try:
        yield
    except _NotLoadedError as error:
        if not silent:
            raise
        # What the libraries say then is about how they were asked.
        raise SourceError(silent, "Check the network, or name a folder.") from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _silence() -> str:
    """Why the hub cannot be reached, if so: the libraries would ask for half a minute."""
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urlopen(address, timeout=10).close()  # noqa: S310 (the address is the user's own)
    except OSError as error:
        # What answers with an error, or with a certificate of its own, is for the libraries.
        reason = getattr(error, "reason", error)
        if isinstance(reason, socket.gaierror | ConnectionError | TimeoutError):
            return f"{address} does not answer: {reason}"
    except (ValueError, HTTPException) as error:
        return f"{address} cannot be asked: {error}"
    return ""


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Without the libraries' own bars of progress on stderr: that is the observer's."""
    known = ("transformers.utils.logging", "_bar"), ("huggingface_hub.utils", "_bars")
    there = [(sys.modules[name], end) for name, end in known if name in sys.modules]
    on = [(module, end) for module, end in there if _has_bars(module)]
    for module, end in on:
        getattr(module, f"disable_progress{end}")()
    try:
        yield
    finally:
        for module, end in reversed(on):
            getattr(module, f"enable_progress{end}")()


def _has_bars(module: Any) -> bool:
    if hasattr(module, "is_progress_bar_enabled"):
        return bool(module.is_progress_bar_enabled())
    return not module.are_progress_bars_disabled()


def library(name: str, extra: str) -> Any:
    """A module of an extra; SourceError with the command where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SourceError(
            f"{name} cannot be imported: {error}",
            f"Install it: pip install 'torch2mobile[{extra}]'",
        ) from error


def _unreachable(hub: str, name: str, error: Exception) -> _NotLoadedError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    here = hub == "hf" and Path(name).is_dir()
    return _NotLoadedError(
        f"{hub}:{name} could not be loaded: {type(error).__name__}: {lines[0][:200]}",
        f"Check the files in {name}: nothing was asked of the network."
        if here
        else "Check the name and the network, or name a folder that holds it.",
    )


def _refuse_folder(folder: Path) -> None:
    """SourceError for a folder without a configuration; those in it that have one are named."""
    if not folder.is_dir() or (folder / "config.json").is_file():
        return
    held = sorted(f"hf:{config.parent}" for config in folder.glob("*/config.json"))
    raise SourceError(
        f"the folder {folder} has no config.json, which says what model it is",
        f"Name a folder in it: {some_of(held)}."
        if held
        else "Name a folder that save_pretrained() wrote, or one with the model's config.json.",
    )


def _timm(name: str, *, download: bool) -> Published:
    timm = library("timm", "timm")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        near = did_you_mean(name, known)
        remedy = near if near.startswith("Did") else "timm.list_models() has their names."
        raise SourceError(f"timm has no model {name!r}", remedy)
    try:
        with _without_bars():
            module = timm.create_model(name, pretrained=download)
    except Exception as error:
        raise _unreachable("timm", name, error) from error
    config = timm.data.resolve_model_data_config(module)
    channels, *sizes = config["input_size"]
    mean, std = config["mean"], config["std"]
    ends = [((edge - m) / (s or 1)) for m, s in zip(mean, std, strict=True) for edge in (0, 1)]
    return Published(
        module,
        (f"image:float32[N=1..8,{channels},{','.join(map(str, sizes))}]",),
        (f"image=uniform({min(ends):.4f},{max(ends):.4f})",),
        () if download else (_RANDOM,),
        preprocessing.of_timm(config),
    )


def _hf(name: str, *, download: bool) -> Published:
    transformers = library("transformers", "hf")
    config, weights = _configured(transformers, name, download=download)
    kind = _architecture(transformers, config)
    if weights:
        try:
            with _without_bars():
                module = kind.from_pretrained(name, local_files_only=not download)
        except Exception as error:
            raise _unreachable("hf", name, error) from error
    elif hasattr(kind, "from_config"):
        module = kind.from_config(config)
    else:
        module = kind(config)
    inputs, values = Described(module, config).texts()
    notes = () if weights else (_RANDOM,)
    return Published(module.eval(), inputs, values, notes, *_beside(Path(name)))


def _beside(folder: Path) -> tuple[str, str]:
    """What a folder says of images and text: the steps of its preprocessing, its tokenizer."""
    config, tokenizer = folder / "preprocessor_config.json", folder / "tokenizer.json"
    steps = ""
    if config.is_file():
        try:
            steps = preprocessing.of_hugging_face(json.loads(limits.read_regular(config)))
        except (OSError, ArithmeticError, *_MALFORMED) as error:
            raise SourceError(f"{config} cannot be read: {error}", "Mend or remove it.") from error
    return steps, str(tokenizer) if tokenizer.is_file() else ""


def _configured(library: Any, name: str, *, download: bool) -> tuple[Any, bool]:
    """A configuration from a folder, the cache, the network, or of a kind of model; and weights."""
    types = list(library.CONFIG_MAPPING.keys())
    folder = Path(name).is_dir()
    if name in types and not folder:
        return library.CONFIG_MAPPING[name](), False
    _refuse_folder(Path(name))
    try:
        config = library.AutoConfig.from_pretrained(name, local_files_only=folder or not download)
    except Exception as error:
        if folder or download:
            raise _unreachable("hf", name, error) from error
        near = did_you_mean(name.rpartition("/")[2], types)
        remedy = "Give a folder with its config.json, or --download to fetch it."
        raise SourceError(
            f"{name!r} is no folder, and not on this machine",
            f"{near} {remedy}"
            if near.startswith("Did")
            else near_path(Path(name), remedy, folders=True),
        ) from None
    files = Path(name).glob("*") if folder else ()
    return config, not folder or any(p.suffix in {".safetensors", ".bin"} for p in files)


def _architecture(library: Any, config: Any) -> Any:
    """The class that the configuration names, or the plain model of its kind."""
    for name in getattr(config, "architectures", None) or ():
        if hasattr(library, name):
            return getattr(library, name)
    return library.AutoModel
