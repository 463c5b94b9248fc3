"""One call of the module on its example, watched: what it does with tensors, and at which lines."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from torch2mobile.copies import fresh
from torch2mobile.dispatch import Operations, short_name
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet
from torch2mobile.validators.coverage.source import operations, syntax
from torch2mobile.validators.coverage.source.lasting_containers import Containers
from torch2mobile.validators.coverage.source.python_calls import PythonCalls
from torch2mobile.validators.coverage.source.sightings import Observation, Place, Read, Stack

# Python values out of tensors: a truth, a number, a list, an array.
READS = syntax.ASKED | {"item", "tolist", "__int__", "__float__", "__complex__", "__index__"}
_DATA: Any = torch.Tensor.data
# Asks whether a mask is causal, which a capture need not know: the mask is applied anyway.
_SAVING_TIME = transformer._detect_is_causal_mask.__code__
_SHOWING = {"__repr__", "__format__", "__str__"}


class _Watch:
    """What both modes know: the inputs and what the module owns, by memory and by tensor."""

    def __init__(self, own: LoadedModel, inputs: Mapping[str, torch.Tensor]) -> None:
        self.seen = Observation()
        self.stack = Stack(own.module, _call.__code__)
        self.inputs = {id(tensor): name for name, tensor in inputs.items()}
        self.given = {_memory(tensor): name for name, tensor in inputs.items()}
        self.owned = {_memory(tensor): name for name, tensor in _owned(own.module)}
        # Those of which the data say how many elements there are.
        self.unsized: Any = WeakTensorKeyDictionary()
        self.running = ""
        self.dynamic = False

    def place(self) -> Place | None:
        """The user's line that runs now."""
        return self.stack.place(sys._getframe(2))

    def written(self, tensor: torch.Tensor) -> None:
        """Note that a tensor is changed in place, if it is an input's memory or the module's."""
        at, place = _memory(tensor), self.stack.place(sys._getframe(2))
        if at in self.given:
            self.seen.see("T2M120", place, f"the input {self.given[at]} is changed in place")
        elif at in self.owned:
            self.seen.see("T2M122", place, f"the buffer {self.owned[at]} is changed in place")


class _Functions(TorchFunctionMode):
    """Within it, what the code asks of torch is seen: each outermost function and method."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one function, and note what it reads and what becomes of it."""
        watch, kwargs = self._watch, kwargs or {}
        watch.running, watch.dynamic = _name(func), False
        given = list(_tensors((*args, *kwargs.values())))
        result = None
        if watch.running == "__set__" and func.__self__ is _DATA:
            watch.written(args[0])
        try:
            result = func(*args, **kwargs)
        finally:
            self._note(watch.running, given, result)
            watch.running = ""
        return result

    def _note(self, name: str, given: list[torch.Tensor], result: Any) -> None:
        watch, frame = self._watch, sys._getframe(2)
        made = list(_tensors((result,)))
        read = name in READS or name in syntax.LEAVES
        if read and frame.f_code is not _SAVING_TIME:
            place = watch.stack.place(frame)
            if place is not None:
                watch.seen.reads.setdefault(Read(name, place))
        if not read and not made and result is not None:
            if name == "__len__" and any(tensor in watch.unsized for tensor in given):
                message = "how many elements there are depends on data"
                watch.seen.see("T2M107", watch.stack.place(frame), message)
            return  # a size, a dtype: no use of the values
        lines = list(watch.stack.lines(frame))
        watch.seen.touched.update(lines)
        for tensor in given:
            if id(tensor) in watch.inputs and lines and name != "__set__":
                watch.seen.uses.setdefault(watch.inputs[id(tensor)], set()).add(lines[0])
        if watch.dynamic or any(tensor in watch.unsized for tensor in given):
            for tensor in made:
                watch.unsized[tensor] = True
        if name == "unbind" and any(_memory(tensor) in watch.given for tensor in given):
            self._loop(watch.stack.place(frame))

    def _loop(self, place: Place | None) -> None:
        """Iterating over a tensor unbinds it; a loop that says so itself is no surprise."""
        if place is not None and syntax.loops_over_rows(place.file, place.line):
            message = "a loop over a tensor: its length is fixed in a graph"
            self._watch.seen.see("T2M102", place, message)


class _Below(Operations):
    """Within it, the operations themselves are seen: writes, shapes that data decide, dtypes."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation, and note what it does."""
        result = func(*args, **kwargs)
        watch, seen = self._watch, self._watch.seen
        running = watch.running or short_name(func)
        if torch.Tag.dynamic_output_shape in func.tags and _by_data(func, args, kwargs):
            watch.dynamic = True
            seen.see("T2M106", watch.place(), f"the shape that {running} gives depends on data")
        reads = torch.Tag.data_dependent_output in func.tags
        if reads and watch.running and running not in READS | syntax.LEAVES | _SHOWING:
            seen.see("T2M104", watch.place(), f"{running} reads a number out of a tensor")
        if func._schema.is_mutable:
            for tensor in operations.written(func, args, kwargs):
                watch.written(tensor)
        for code, message in operations.found(func, args, kwargs, tree_leaves(result)):
            seen.see(code, watch.place(), message)
        return result


def observe(loaded: LoadedModel) -> Observation:
    """What one call on the example shows, as far as it gets."""
    tensors = [tensor.clone() for tensor in loaded.tensors]
    inputs = {spec.name: tensor for spec, tensor in zip(loaded.specs, tensors, strict=True)}
    with fresh(loaded, "observed") as own, quiet():
        watch = _Watch(own, inputs)
        containers = Containers(own.module)
        try:
            with _Functions(watch), _Below(watch):
                _call(own, tensors, PythonCalls(watch.stack, watch.seen, containers))
        except Exception as error:  # noqa: BLE001 (the module is the user's code)
            watch.seen.failure = f"{type(error).__name__}: {error}".partition("\n")[0]
        containers.note(watch.seen)
    syntax.note(watch.seen)
    return watch.seen


def _call(own: LoadedModel, tensors: Iterable[torch.Tensor], calls: PythonCalls) -> None:
    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # what others run when memory is collected would be taken for the module's code
    sys.setprofile(calls)
    try:
        cast("Any", own.flat)(*tensors)
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()


def _name(func: Any) -> str:
    """A function's or method's own name; ``shape`` where that attribute is read."""
    name: str = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(func.__self__, "__name__", name)
    return name


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from (each for each in value if isinstance(each, torch.Tensor))


def _memory(tensor: torch.Tensor) -> int:
    """What tells whether two tensors share their memory."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return id(tensor)
    return int(tensor.untyped_storage()._cdata)


def _owned(root: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for module in root.modules():
        for store in (vars(module), module._parameters, module._buffers):
            for name, value in store.items():
                if isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value):
                    yield name, value


def _by_data(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether data say how many elements there are, in an operation where they can."""
    name = short_name(func)
    if name == "index":
        kinds = (torch.bool, torch.uint8)
        return any(index is not None and index.dtype in kinds for index in args[1])
    return name != "repeat_interleave" or kwargs.get("output_size") is None
