"""The module in float64, where that is possible and the same function, and else why not."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch2mobile.copies import CopyError, first_line, fresh
from torch2mobile.records import LoadedModel

if TYPE_CHECKING:
    import numpy as np
    import torch

# A float64 copy of the weights must fit beside everything else.
TRUTH_WEIGHT_BYTES = 4 << 30


@dataclass(frozen=True)
class Lack:
    """Why there is no float64 truth; ``error`` is the module's own, with its traceback.

    ``narrow`` is the dtype below float32 that the module computes in, if that is why.
    """

    reason: str
    error: BaseException | None = None
    narrow: str = ""


class Truth:
    """The same module with the same weights in float64; ``lack`` says why there is none.

    It is left out once it has failed: a dtype hard-coded in forward fails everywhere.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.lack: Lack | None = None
        self._loaded = loaded
        self._known = False
        flat: Any = loaded.flat
        if loaded.program is not None:
            self.lack = Lack("a saved program has its dtypes fixed")
        elif sum(tensor.nbytes for tensor in flat.state_dict().values()) > TRUTH_WEIGHT_BYTES:
            self.lack = Lack(f"its weights are above {TRUTH_WEIGHT_BYTES >> 30} GB")
        elif _is_double(flat, loaded.tensors):
            self.lack = Lack("it computes in float64 itself")

    def __call__(
        self, tensors: Sequence[torch.Tensor], arrays: Sequence[np.ndarray], run: Any
    ) -> list[np.ndarray] | None:
        """The outputs in float64; ``run`` calls a module, ``arrays`` are the module's own outputs.

        None where the module refuses float64, or gives other shapes with it.
        """
        if self.lack is not None:
            return None
        wide = [_widened(tensor) for tensor in tensors]
        try:
            # Each probe meets a fresh module, in float64 as in float32.
            with fresh(self._loaded, "float64") as own, self._watched() as narrow:
                found: list[np.ndarray] = run(own.flat, wide)
        except CopyError as error:
            self._fail("it cannot be copied to float64", error)
            return None
        except Exception as error:  # noqa: BLE001 (for example a dtype hard-coded in forward)
            self._fail("it does not run in float64", error)
            return None
        if narrow:
            # What is rounded to float16 there is rounded alike in both: its noise would not show.
            dtype = narrow.pop()
            self.lack = Lack(f"it computes in {dtype} within", narrow=dtype)
            return None
        if [t.shape for t in found] != [a.shape for a in arrays]:
            self._fail("its outputs have other shapes in float64", None)
            return None
        return found

    @contextlib.contextmanager
    def _watched(self) -> Iterator[set[str]]:
        """The dtypes narrower than float32 that the first run meets."""
        from torch2mobile.validators.parity.compensated import narrow_results

        found: set[str] = set()
        with contextlib.nullcontext() if self._known else narrow_results(found):
            yield found
        self._known = True

    def _fail(self, reason: str, error: BaseException | None) -> None:
        if error is not None:
            # Only the lines are of interest, and the frames hold whole feature maps.
            traceback.clear_frames(error.__traceback__)
            reason = f"{reason} ({type(error).__name__}: {first_line(error)})"
        self.lack = Lack(reason, error)


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _is_double(flat: Any, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether all there is to compute with is float64 already."""
    import torch

    every = [*flat.state_dict().values(), *tensors]
    floats = [t for t in every if isinstance(t, torch.Tensor) and t.is_floating_point()]
    return bool(floats) and all(t.dtype == torch.float64 for t in floats)
