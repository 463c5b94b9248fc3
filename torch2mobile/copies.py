"""Copies of a module, so that no call of ours meets what an earlier one has changed.

The module that was passed in is never called. All that runs, runs on copies: the reference on
copies that nothing but plain calls has touched, what observes or captures on others. A copy that
a call has left as it was is used again; any other is thrown away.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from torch2mobile.copying import CopyError, Original, first_line
from torch2mobile.errors import InputError
from torch2mobile.records import LoadedModel
from torch2mobile.snapshot import Snapshot, same_tensor
from torch2mobile.tensors import quiet

# Plain calls; what watches calls; the module in float64; and what may leave anything behind.
Use = Literal["reference", "observed", "float64", "scratch"]

# Above it, a second set of weights is too much memory.
PRIVATE_WEIGHT_BYTES = 4 << 30

__all__ = ["Copies", "CopyError", "built", "calm", "first_line", "fresh", "to_eval"]


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Without gradients; random states, grad mode and default dtype are put back afterwards."""
    dtype = torch.get_default_dtype()
    seeds = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    with torch.no_grad():
        try:
            yield
        finally:
            random.setstate(seeds[0])
            np.random.set_state(seeds[1])
            torch.random.set_rng_state(seeds[2])
            torch.set_default_dtype(dtype)


@contextlib.contextmanager
def fresh(loaded: LoadedModel, use: Use = "reference") -> Iterator[LoadedModel]:
    """The model on a copy in a fresh state, in eval mode and without gradients."""
    with calm(), loaded.copies.lend(use) as flat:
        yield replace(loaded, flat=flat, module=flat.inner)


def to_eval(module: torch.nn.Module) -> None:
    """The mode in which models are used."""
    # An ExportedProgram's module refuses eval(); it has no mode to change.
    with contextlib.suppress(NotImplementedError):
        if any(child.training for child in module.modules()):
            module.eval()


def built(flat: Any, example: Sequence[torch.Tensor]) -> Any:
    """A copy of a module with lazy layers, whose weights one call on the example has drawn.

    The module itself where it cannot be copied or refuses the example.
    """
    try:
        made = Original(flat).copy({})
        with quiet(), calm():
            torch.default_generator.manual_seed(0)
            to_eval(made)
            made(*(tensor.clone() for tensor in example))
    except Exception:  # noqa: BLE001 (what is lazy still is refused later)
        return flat
    for own, child in zip(flat.modules(), made.modules(), strict=True):
        child.training = own.training
    return made


def _refuse_lazy(module: torch.nn.Module) -> None:
    weights: list[tuple[str, Any]] = [*module.named_parameters(), *module.named_buffers()]
    for name, value in weights:
        if is_lazy(value):
            raise InputError(
                f"the module's {name.removeprefix('inner.')} has no values yet: its layer is lazy "
                "and never ran, and there is no copy of it to run",
                "Run the module once on an example where you build it, or give --weights.",
            )


@dataclass
class _Lent:
    """What runs, and what it held before."""

    flat: Any
    before: Snapshot


class Copies:
    """A flat module that is never called, and copies of it that are.

    ``again`` loads it anew, for a module that cannot be copied. ``lack`` says why the module itself
    has to run, after all; its state is then put back after each call. ``changing`` tells that a
    plain call has left a copy changed, and ``notes`` what a verdict has to say of all this.
    """

    def __init__(self, flat: Any, *, again: Callable[[], Any] | None = None) -> None:
        self._flat, self._again = flat, again
        self.lack = ""
        self.changing = False
        self.notes: list[str] = []
        self._original: Original | None = None
        self._memory: dict[int, torch.Tensor] = {}
        self._looked = self._writes = False
        self._idle: dict[str, list[_Lent]] = {"reference": [], "observed": [], "float64": []}

    def anew(self) -> Copies:
        """Copies of the module as it is now, with none made yet."""
        made = Copies(self._flat, again=self._again)
        made.notes += self.notes
        return made

    def without_float64(self) -> None:
        """Give back the memory of a copy in float64, which is made again once it is asked for."""
        self._idle["float64"].clear()

    def _new(self) -> Any:
        """A copy that was never called; CopyError where there is none."""
        if self._original is None:
            self._original = Original(self._flat)
            self._memory = self._private_weights()
        if self.lack:
            raise CopyError(self.lack)
        memory = self._clones() if self._writes else self._memory
        return self._original.copy(memory)

    def _private_weights(self) -> dict[int, torch.Tensor]:
        weights = self._drawn()
        if sum(weight.nbytes for weight in weights) > PRIVATE_WEIGHT_BYTES:
            return {}
        return self._clones()

    def _clones(self) -> dict[int, torch.Tensor]:
        return {id(weight): weight.detach().clone() for weight in self._drawn()}

    def _drawn(self) -> list[torch.Tensor]:
        """The weights but those that a lazy layer has not drawn yet."""
        return [w for w in self._flat.parameters() if not is_lazy(w)]

    @contextlib.contextmanager
    def lend(self, use: Use) -> Iterator[Any]:
        """What to call for a while, in a fresh state; see :func:`fresh`.

        Raises CopyError where there is nothing to make one of in float64.
        """
        idle = self._idle.get(use, [])
        lent = idle.pop() if idle else self._start(use)
        try:
            yield lent.flat
        finally:
            if use != "float64":
                self._weights_back(lent)
            changed = use != "scratch" and (self._writes or lent.before.changed())
            self.changing |= changed and use == "reference"
            if lent.flat is self._flat:
                lent.before.put_back()
            elif use != "scratch" and lent.before.seeing and not changed:
                self._idle[use].append(lent)

    def _start(self, use: Use) -> _Lent:
        made = self._made()
        itself = made is self._flat
        if use == "float64":
            if itself:
                raise CopyError(self.lack)
            made.double()
        if not itself:
            to_eval(made)
        lent = _Lent(made, Snapshot(made))
        if itself:  # its own mode is put back
            to_eval(made)
        return lent

    def _made(self) -> Any:
        """A copy, or the module loaded anew; where neither can be had, the module itself."""
        try:
            return self._new()
        except CopyError as error:
            made = self._again() if self._again is not None else None
            if made is not None:
                return made
            self._again = None
            _refuse_lazy(self._flat)
            if not self.lack:
                self.lack = str(error)
                self.notes.append(
                    f"weaker: the module cannot be copied ({self.lack}), so it ran itself; what a "
                    "call changes was put back as far as it can be seen"
                )
            return self._flat

    def _weights_back(self, lent: _Lent) -> None:
        """Weights as they were, where a call wrote to them; from then on each copy has its own.

        The version counters miss what goes through ``.data`` or numpy, so that after the first
        call the values are compared.
        """
        itself = lent.flat is self._flat
        wrote = itself if self._writes else lent.before.wrote_weights()
        if not wrote and (self._looked or self._writes or not self._memory):
            return
        self._looked = True
        if not self._memory:
            raise InputError(
                "forward writes to its weights, and there is no second copy of them",
                "Let forward leave its parameters alone: register what changes as a buffer.",
            )
        for weight in self._drawn():
            private = self._memory[id(weight)]
            if not same_tensor(private, weight):
                self._writes = True
                to, source = (weight, private) if itself else (private, weight)
                with torch.no_grad():
                    to.detach().copy_(source)
