"""torch at arm's length: numpy in and out, and the user's process left as it was."""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from torch2mobile.errors import InputError

_TORCH_NAMES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int8: "int8",
    torch.int16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.uint8: "uint8",
    torch.bool: "bool",
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, log lines and prints of torch and the exporters from the user.

    Errors still raise. What the module itself prints is lost with them: standard output belongs
    to the report.
    """
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        # Each change of the level empties the caches of all loggers, and torch has many.
        if disabled < logging.ERROR:
            logging.disable(logging.ERROR)
        try:
            yield
        finally:
            if logging.root.manager.disable != disabled:
                logging.disable(disabled)


@contextlib.contextmanager
def untouched(module: torch.nn.Module) -> Iterator[Callable[[], None]]:
    """Run with ``module`` in eval mode and without gradients, then put everything back.

    Restored, also after an error: train/eval and all other attributes of every submodule (a
    cache filled while tracing would hold a tensor without data), what lists, dicts, sets and
    deques among them hold, the values of all tensors and arrays but the weights, the random states
    of torch, numpy and Python, grad mode and the default dtype. What is given makes all as fresh as
    at the start.
    """
    kept = _Kept(module)
    with torch.no_grad():
        try:
            kept.to_eval()
            yield kept.freshen
        finally:
            kept.put_back()


class _Kept:
    """What a module and the random generators held at one time."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        children = list(module.modules())
        self._modes = [(child, child.training) for child in children]
        owned = [child for child in children if not isinstance(child, torch.jit.ScriptModule)]
        self._owned = [(vars(child), dict(vars(child))) for child in owned]
        self._owned += [
            (own, dict(own)) for c in owned for own in (c._buffers, c._parameters, c._modules)
        ]
        values = [value for child in owned for value in _own(vars(child))]
        boxes = [box for value in values for box in _containers(value)]
        self._boxes = [(box, copy.copy(box)) for box in boxes if isinstance(box, BOXES)]
        held: list[Any] = [tensor for child in children for tensor in child._buffers.values()]
        held += [item for box in (values, *boxes) for item in _items(box)]
        # Weights are not copied; the layers of torch keep lists of theirs.
        weights = {id(weight) for weight in module.parameters()}
        tensors = [x for x in held if torch.is_tensor(x) and id(x) not in weights]
        self._held = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._arrays = [(x, x.copy()) for x in held if isinstance(x, np.ndarray)]
        self._dtype = torch.get_default_dtype()
        self._seeds = random.getstate(), np.random.get_state(), torch.random.get_rng_state()

    def to_eval(self) -> None:
        """The mode in which models are used."""
        # An ExportedProgram's module refuses eval(); it has no mode to change.
        with contextlib.suppress(NotImplementedError):
            if any(mode for _, mode in self._modes):
                self._module.eval()

    def freshen(self) -> None:
        """As if nothing had been called yet."""
        torch.set_grad_enabled(False)
        self.put_back()
        self.to_eval()

    def put_back(self) -> None:
        """All as it was."""
        for child, mode in self._modes:
            if child.training != mode:
                child.training = mode
        # forward() may have put other tensors or layers in their places.
        for own, contents in self._owned:
            own.clear()
            own.update(contents)
        for box, held in self._boxes:
            refill(box, held)
        random.setstate(self._seeds[0])
        np.random.set_state(self._seeds[1])
        torch.random.set_rng_state(self._seeds[2])
        for tensor, value in self._held:
            if tensor.shape != value.shape:
                tensor.data = value.clone()
            elif not torch.equal(tensor, value):
                tensor.detach().copy_(value)
        for array, kept in self._arrays:
            array[...] = kept
        torch.set_default_dtype(self._dtype)


TORCHS_OWN = frozenset(vars(torch.nn.Module()))
BOXES = (list, dict, set, collections.deque)
_HOLDERS = (*BOXES, tuple)


def _own(attributes: Mapping[str, Any]) -> list[Any]:
    """What a module keeps beside torch's own attributes."""
    return [value for name, value in attributes.items() if name not in TORCHS_OWN]


def _items(box: Any) -> list[Any]:
    return list(box.values() if isinstance(box, dict) else box)


def _containers(value: Any, depth: int = 3) -> Iterator[Any]:
    """A container, and those in it."""
    if depth and isinstance(value, _HOLDERS):
        yield value
        for item in _items(value):
            yield from _containers(item, depth - 1)


def refill(box: Any, contents: Any) -> None:
    """Give a container what it held before, if it holds anything else."""
    before, now = _items(contents), _items(box)
    same = len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))
    if same and not (isinstance(box, dict) and list(box) != list(contents)):
        return
    box.clear()
    box.update(contents) if isinstance(box, dict | set) else box.extend(contents)


def dtype_name(value: Any) -> str:
    """numpy's name of a tensor's or array's dtype; InputError for one that ONNX inputs lack."""
    is_tensor = isinstance(value, torch.Tensor)
    name = _TORCH_NAMES.get(value.dtype, "") if is_tensor else str(value.dtype)
    if name not in _TORCH_NAMES.values():
        raise InputError(
            f"an input of dtype {value.dtype} cannot be exported",
            f"Use one of {', '.join(_TORCH_NAMES.values())}.",
        )
    return name


def to_torch(array: np.ndarray) -> torch.Tensor:
    """A tensor with a copy of the array's values."""
    if str(array.dtype) == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A numpy array with the tensor's values, free of gradients, conjugation and device."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.dtype == torch.bfloat16:
        import ml_dtypes

        return plain.float().numpy().astype(ml_dtypes.bfloat16)
    return plain.contiguous().numpy()
