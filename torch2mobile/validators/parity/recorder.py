"""What a module does, operation by operation: to see where two runs of it part.

Only digests of the values are kept, so a recording is small however large the model is. Beside
each operation stand the Python frames that led to it and the submodule that it runs in.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves, tree_map_only

from torch2mobile import user_code
from torch2mobile.copies import fresh
from torch2mobile.dispatch import Operations
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet
from torch2mobile.validators.parity.calls import tensors_of

if TYPE_CHECKING:
    import numpy as np

Frames = tuple[tuple[str, int], ...]

# Operations that compute nothing; a captured graph has them in other places than the module.
_SILENT = {
    "aten::_assert_async",
    "aten::_assert_scalar",
    "aten::_assert_tensor_metadata",
    "aten::alias",
    "aten::detach",
    "aten::lift",
    "aten::lift_fresh",
    "aten::lift_fresh_copy",
    "aten::sym_constrain_range",
    "aten::sym_constrain_range_for_size",
}


@dataclass(frozen=True)
class Step:
    """One operation that ran.

    ``frames`` has (file, line) from the outermost to the innermost; for a captured graph those
    that torch recorded. ``nan`` tells whether it made NaN out of numbers, ``random`` whether it
    gives something else each time, ``wrote`` which of the watched tensors it changed.
    """

    op: str
    inputs: int
    outputs: int
    frames: Frames = ()
    module: str = ""
    nan: bool = False
    random: bool = False
    wrote: tuple[str, ...] = ()


@dataclass
class Recording:
    """The steps of one run; ``failure`` is what it ended with, if it did not get through.

    ``stopped`` is the node of a captured graph that it ended at.
    """

    steps: list[Step] = field(default_factory=list)
    failure: str = ""
    stopped: Step | None = None


class _Recorder(Operations):
    """Within it, every operation below autograd is written down."""

    def __init__(
        self,
        root: torch.nn.Module,
        watched: Sequence[tuple[str, torch.Tensor]] = (),
    ) -> None:
        super().__init__()
        self.recording = Recording()
        self.node: Node | None = None
        self._paths = {id(module): path for path, module in root.named_modules()}
        self._watched = [(name, tensor, digest(tensor)) for name, tensor in watched]

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation and keep its digest."""
        name = func._schema.name
        if name in _SILENT:
            return func(*args, **kwargs)
        before = tree_leaves((args, kwargs))
        digest = _digest_all(before)
        clean = not any(_has_nan(leaf) for leaf in before)
        random = _is_random(func, args, kwargs)
        result = func(*args, **kwargs)
        after = tree_leaves(result)
        frames, module = self._place() if self.node is None else _recorded(self.node)
        self.recording.steps.append(
            Step(
                op=str(func),
                inputs=digest,
                # What an empty tensor holds is anything, also from run to run.
                outputs=0 if "empty" in name else _digest_all(after),
                frames=frames,
                module=module,
                nan=clean and any(_has_nan(leaf) for leaf in after),
                random=random,
                wrote=self._writes(),
            )
        )
        return result

    def at_node(self) -> Step | None:
        """The node of a captured graph that runs now."""
        if self.node is None:
            return None
        frames, module = _recorded(self.node)
        return Step(str(self.node.target), inputs=0, outputs=0, frames=frames, module=module)

    def _place(self) -> tuple[Frames, str]:
        frames: list[tuple[str, int]] = []
        module: str | None = None
        for frame in user_code.running(sys._getframe(3), _record.__code__):
            frames.append((frame.f_code.co_filename, frame.f_lineno))
            if module is None:
                module = self._paths.get(id(frame.f_locals.get("self")))
        return tuple(reversed(frames)), module or ""

    def _writes(self) -> tuple[str, ...]:
        now = [(name, tensor, digest(tensor)) for name, tensor, _ in self._watched]
        pairs = zip(self._watched, now, strict=True)
        wrote = tuple(new[0] for old, new in pairs if old[2] != new[2])
        self._watched = now
        return wrote


def _recorded(node: Node) -> tuple[Frames, str]:
    """The frames and the layer that torch recorded with a node."""
    trace = node.meta.get("stack_trace") or ""
    return user_code.frames_in(trace), user_code.of_node(node).module


def _is_random(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation that can be random is so with these arguments: it is run twice more."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False

    def drawn() -> int:
        own = tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        return _digest_all(tree_leaves(func(*own[0], **own[1])))

    return drawn() != drawn()


def digest(leaf: Any) -> int:
    """A checksum of a tensor's dtype, shape and values, or of another argument's text."""
    if not isinstance(leaf, torch.Tensor):
        return zlib.crc32(repr(leaf).encode())
    start = zlib.crc32(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
    if leaf.layout != torch.strided or leaf.is_quantized:
        return start
    plain = leaf.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    values: Any = plain.view(torch.uint8).numpy()
    return zlib.crc32(values, start)


def _digest_all(leaves: Sequence[Any]) -> int:
    return zlib.crc32(b"".join(digest(leaf).to_bytes(4, "little") for leaf in leaves))


def _has_nan(leaf: Any) -> bool:
    floating = isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    return floating and bool(torch.isnan(leaf).any())


class _NodeByNode(Interpreter):
    """Runs a captured graph and tells the recorder which node runs."""

    def __init__(self, module: torch.fx.GraphModule, recorder: _Recorder) -> None:
        super().__init__(module)
        self._recorder = recorder

    def run_node(self, n: Node) -> Any:
        self._recorder.node = n
        return super().run_node(n)


def _record(recorder: _Recorder, call: Callable[[], Any]) -> Recording:
    with recorder, quiet():
        try:
            call()
        except Exception as error:  # noqa: BLE001 (the module is the user's code)
            recorder.recording.failure = f"{type(error).__name__}: {error}"[:300]
            recorder.recording.stopped = recorder.at_node()
    return recorder.recording


def record(
    loaded: LoadedModel,
    tensors: Sequence[torch.Tensor],
    *,
    watched: Sequence[tuple[str, torch.Tensor]] = (),
) -> Recording:
    """The operations of one call of the module, in the state that it is in now.

    ``watched`` are tensors whose changes are to be noted. A module that is a captured graph is
    run node by node, for its recorded source lines.
    """
    inputs = [tensor.clone() for tensor in tensors]
    recorder = _Recorder(loaded.module, watched)
    if isinstance(loaded.module, torch.fx.GraphModule):
        interpreter = _NodeByNode(loaded.module, recorder)
        return _record(recorder, lambda: interpreter.run(*inputs, enable_io_processing=False))
    return _record(recorder, lambda: loaded.flat.call(*inputs))


def record_program(
    program: torch.export.ExportedProgram, tensors: Sequence[torch.Tensor]
) -> Recording:
    """The operations of a captured graph on flat inputs, whatever its guards say of them."""
    module = program.module(check_guards=False)
    inputs = [tensor.clone() for tensor in tensors]
    recorder = _Recorder(module)
    interpreter = _NodeByNode(module, recorder)
    with torch.no_grad():
        return _record(recorder, lambda: interpreter.run(*inputs, enable_io_processing=False))


def departure(
    loaded: LoadedModel, program: torch.export.ExportedProgram, feeds: Mapping[str, np.ndarray]
) -> tuple[Step | None, Step | None] | None:
    """Where a captured graph stops doing what its module does on these inputs; None if nowhere.

    The module's step comes first, the graph's second; None for a side that had ended. A graph that
    does not get through, where the module does, departs at the node that it stops at.
    """
    tensors = tensors_of(loaded, feeds)
    with fresh(loaded, "observed") as own:
        mine = record(own, tensors)
    graphs = record_program(program, tensors)
    if graphs.stopped is not None and not mine.failure:
        return None, graphs.stopped
    return first_difference(mine, graphs)


def first_difference(one: Recording, other: Recording) -> tuple[Step | None, Step | None] | None:
    """The first step that is not the same in both, from each side; None where all are.

    A side is None where that run had ended already.
    """
    for mine, yours in _pairs(one.steps, other.steps):
        if mine is None or yours is None:
            return mine, yours
        if (mine.op, mine.outputs) != (yours.op, yours.outputs):
            return mine, yours
    return None


def _pairs(one: Sequence[Step], other: Sequence[Step]) -> Iterator[tuple[Step | None, Step | None]]:
    yield from zip(one, other, strict=False)
    for number in range(min(len(one), len(other)), max(len(one), len(other))):
        yield (
            one[number] if number < len(one) else None,
            other[number] if number < len(other) else None,
        )
