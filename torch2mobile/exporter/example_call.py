"""The module on its example: what it returns, by name, and what a file cannot carry."""

from __future__ import annotations

import re

from torch2mobile import user_code
from torch2mobile.copies import fresh
from torch2mobile.errors import InputError, LostOutputError, did_you_mean
from torch2mobile.exporter.loading import flat_module
from torch2mobile.records import InputSpec, LoadedModel, Location
from torch2mobile.tensors import quiet

# Errors of code, and not of what it was given.
_OWN = (AttributeError, NameError, ImportError, NotImplementedError, RecursionError)
_MEND = "Mend that line: called by itself, the module raises this too."
_GIVE = "Give inputs that the module itself takes, with --input, --values or --data."
_GIVE_SIZES = (
    "Give inputs that the module itself takes: with --input a narrower range, multiples (2*N) or "
    "one name for sizes that are equal; other values with --values or --data."
)
_OBJECTS = "An input of a file is a tensor: make numbers of text and objects before the call."
_DECLARE_FLOAT = (
    "Declare the inputs in the dtype of the weights (x:float16[2,4]), or: module.float()."
)
_DECLARE_WHOLE = "Declare the input as int64, and with --values what it can be."
_DTYPES = r"have the same dtype|expected scalar type|Input type .* should be the same"
# By what the error says.
_REMEDIES = (
    (
        r"not compiled with CUDA|no NVIDIA driver|on the same device|not linked with support",
        "Take the device from an input, as x.device, in place of a fixed one.",
    ),
    (r"where\(\) received .* got \(bool", "Keep the condition a tensor, without .item()."),
    (r"single memory location|received an invalid combination of arguments", _MEND),
    (r"vmap over calling \.item", "Keep it a tensor: x.sum() in place of x.sum().item()."),
    (r"Tensor\.split\(\) missing", _OBJECTS),
)
_ATTRIBUTE = re.compile(r"'Tensor' object has no attribute '(\w+)'")


def check_example(loaded: LoadedModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Run the module on its example; returns the output names and notes on what is left out.

    Raises InputError where the module itself refuses the example or returns no tensor, and
    LostOutputError where it returns more than a file can and that was not to be left out.
    """
    with fresh(loaded) as own, quiet():
        try:
            found = own.flat.outputs(*(tensor.clone() for tensor in loaded.tensors))
        except Exception as error:
            raise refused(loaded, error) from error
    _refuse_lost(loaded, found)
    names = _unique([name for name, _ in found.tensors], loaded.specs)
    absent = [f"the output {name} is None and was left out" for name in found.absent]
    asked = [
        f"the output {name} is left out, as asked for" for name in dict.fromkeys(found.dropped)
    ]
    return tuple(names), (*absent, *asked)


def refused(loaded: LoadedModel, error: Exception) -> InputError:
    """What the user is told where the module itself raises on the example."""
    where = user_code.from_exception(error)
    shapes = ", ".join(
        f"{s.name}{list(t.shape)}" for s, t in zip(loaded.specs, loaded.tensors, strict=True)
    )
    return InputError(
        f"the module refuses the example input ({shapes}): {type(error).__name__}: {_said(error)}",
        _remedy(loaded, error),
        (where,) if where else (),
    )


def _in_no_weight(loaded: LoadedModel) -> bool:
    """Whether an input's floating dtype is that of no weight."""
    weights = {w.dtype for w in loaded.module.parameters() if w.is_floating_point()}
    floats = {tensor.dtype for tensor in loaded.tensors if tensor.is_floating_point()}
    return bool(weights and floats - weights)


def _remedy(loaded: LoadedModel, error: Exception) -> str:
    """What to do about an error of the module itself, or of what it was given."""
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, str(error)):
            return remedy
    if re.search(_DTYPES, str(error)):
        return _DECLARE_FLOAT if _in_no_weight(loaded) else "Cast at that line: x.to(w.dtype)."
    if "scalar types: Long" in str(error):
        floating = any(tensor.is_floating_point() for tensor in loaded.tensors)
        return _DECLARE_WHOLE if floating else "Cast at that line: x.long()."
    absent = _ATTRIBUTE.search(str(error))
    if absent and any(hasattr(kind, absent[1]) for kind in (str, list, dict)):
        return _OBJECTS
    if isinstance(error, _OWN):
        return _MEND
    varies = any(dim.symbol is not None for spec in loaded.specs for dim in spec.dims)
    return _other_sizes(loaded) if varies else _GIVE


def _other_sizes(loaded: LoadedModel) -> str:
    """What to write in place of declared sizes that the module refuses."""
    from torch2mobile.exporter import taken_sizes  # it loads what captures

    taken = taken_sizes.multiples(loaded)
    return f"Of the sizes that vary {taken} in --input." if taken else _GIVE_SIZES


def _said(error: Exception) -> str:
    """An error's own words, without torch's on whom to tell of it and its lists of signatures."""
    told = re.split(r",? but expected one of:\n", str(error))[0]
    return re.split(r"(?:[,;.] | If [^.]*)[Pp]lease (?:report|file|open) an? ", told)[0]


def _forward_of(loaded: LoadedModel) -> tuple[Location, ...]:
    """The line at which the module's own forward begins."""
    own = user_code.function(type(loaded.module).forward)
    return (user_code.location(own.file, own.tree.lineno),) if own is not None else ()


def _refuse_lost(loaded: LoadedModel, found: flat_module.FlatOutputs) -> None:
    """Refuse to lose an output in silence, and to be asked for what is not there."""
    dropped = loaded.flat.dropped
    names = [name for name, _ in found.tensors]
    unknown = sorted(set(dropped) - set(found.dropped))
    if unknown:
        raise InputError(
            f"the module returns no {unknown[0]!r}, which was to be left out",
            did_you_mean(unknown[0], [*names, *found.lost]),
        )
    if not names:
        raise InputError(
            "the module returns no tensor for the example input"
            + "".join(f", but {kind}" for kind in dict.fromkeys(found.lost.values())),
            "Return at least one tensor from forward: by itself, or in a tuple, dict or dataclass.",
            _forward_of(loaded),
        )
    if found.lost:
        lost = " and ".join(f"{name} ({kind})" for name, kind in found.lost.items())
        options = " ".join(f"--drop-output {name}" for name in found.lost)
        raise LostOutputError(
            f"the module returns {lost}, which is no tensor: the file would go without it",
            f"Return tensors from forward, or let it go: {options} (drop_outputs in Python).",
            _forward_of(loaded),
        )


def _unique(names: list[str], specs: tuple[InputSpec, ...]) -> list[str]:
    """Output names that clash with no input and no other output: all live in one namespace."""
    taken = {spec.name for spec in specs}
    result = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            candidate = f"{name}_out" if number == 1 else f"{name}_out{number}"
            number += 1
        taken.add(candidate)
        result.append(candidate)
    return result
