"""Between the gate and a runtime: the contract's names, dtypes and layout on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import cast

import numpy as np

from torch2mobile.errors import ProbeRefusedError
from torch2mobile.interfaces import LayeredRunner, Runner
from torch2mobile.records import ArtifactEntry, InputSpec, Layer, OutputSpec

_LAST = (0, 2, 3, 1)
_FIRST = (0, 3, 1, 2)


class BoundRunner:
    """A runner as the contract has it: what its variant says of the runtime is undone here.

    Names are the contract's: by the artefact's own table, by equal names, or by position where the
    variant says that the runtime has names of its own. An output without a dtype in the contract is
    taken for what the variant replaces, but floats are no truth values then. Where a runtime
    without a batch has one dimension fewer, the first one is left out and put back. Raises
    ProbeRefusedError from :meth:`run` for a probe that the variant cannot take.
    """

    def __init__(
        self,
        runner: Runner,
        entry: ArtifactEntry,
        inputs: Sequence[InputSpec],
        outputs: Sequence[OutputSpec],
    ) -> None:
        self._runner, self._entry = runner, entry
        self._variant = entry.variant
        self._in = {spec.name: spec for spec in inputs}
        self._out = {spec.name: spec for spec in outputs}

    @cached_property
    def _inputs(self) -> tuple[OutputSpec, ...]:
        return self._runner.inputs()

    @cached_property
    def _input_names(self) -> Mapping[str, str]:
        return self._names(list(self._in), [spec.name for spec in self._inputs])

    @cached_property
    def _output_names(self) -> Mapping[str, str]:
        return self._names(list(self._out), [spec.name for spec in self._runner.outputs()])

    def _names(self, wanted: Sequence[str], found: Sequence[str]) -> Mapping[str, str]:
        """The contract's name by the runtime's, for those that are another."""
        table = self._entry.names
        if table:
            return {table[name]: name for name in wanted if name in table}
        if not self._variant.own_names or len(found) != len(wanted) or set(found) == set(wanted):
            return {}
        return dict(zip(found, wanted, strict=True))

    @cached_property
    def _single(self) -> frozenset[str]:
        """The inputs of which the runtime knows no first dimension: it would be 1."""
        if self._variant.batch:
            return frozenset()
        found = {self._input_names.get(s.name, s.name): len(s.dims) for s in self._inputs}
        return frozenset(
            name
            for name, spec in self._in.items()
            # A runtime that tells no sizes leaves it out wherever there is a batch.
            if len(spec.dims) > 1
            and len(spec.dims) - 1 == (found.get(name) or len(spec.dims) - 1)
            and spec.dims[0].size in {None, 1}
        )

    def inputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the inputs, in the contract's terms."""
        wanted = {
            spec.name: OutputSpec(spec.name, spec.dtype, tuple(dim.label for dim in spec.dims))
            for spec in self._in.values()
        }
        return self._translated(self._inputs, self._input_names, wanted)

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the outputs, in the contract's terms."""
        return self._translated(self._runner.outputs(), self._output_names, self._out)

    def _translated(
        self,
        found: Sequence[OutputSpec],
        names: Mapping[str, str],
        wanted: Mapping[str, OutputSpec],
    ) -> tuple[OutputSpec, ...]:
        specs = []
        for spec in found:
            name = names.get(spec.name, spec.name)
            asked = wanted.get(name, spec)
            # A runtime with names of its own often tells no sizes at all, or only how many.
            untold = self._variant.own_names and set(spec.dims) <= {"?"}
            dims = asked.dims if untold else spec.dims
            if self._variant.layout == "NHWC" and len(spec.dims) == 4:
                dims = tuple(dims[axis] for axis in _FIRST)
            same = self._variant.dtypes.get(asked.dtype) == spec.dtype
            dtype = asked.dtype if same or not spec.dtype else spec.dtype
            specs.append(OutputSpec(name, dtype, dims))
        # An order of its own is no more of the app's concern than a name.
        order = list(wanted) if names or self._variant.own_names else []
        return tuple(sorted(specs, key=lambda s: order.index(s.name) if s.name in order else 0))

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs under the contract's names, in its order where the runtime has its own."""
        given = self._given(feeds)
        names = self._output_names
        answers = [
            (names.get(name, name), self._read(names.get(name, name), array))
            for name, array in self._runner.run(given)
        ]
        if not names and not self._variant.own_names:
            return answers
        found = dict(answers)
        named = [(name, found[name]) for name in self._out if name in found]
        return named + [pair for pair in answers if pair[0] not in self._out]

    def values(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Inner values as the runtime has them, by its own names, for inputs of the contract."""
        shown: dict[str, np.ndarray] = cast("LayeredRunner", self._runner).values(
            self._given(feeds), names
        )
        return shown

    def layers(self) -> tuple[Layer, ...]:
        """The runtime's own layers; none where it shows nothing of its inside."""
        return cast("LayeredRunner", self._runner).layers()

    def _given(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The contract's inputs as the runtime takes them; ProbeRefusedError where it does not."""
        self._refuse(feeds)
        own = {name: runtime for runtime, name in self._input_names.items()}
        return {own.get(name, name): self._fed(name, array) for name, array in feeds.items()}

    def _fed(self, name: str, array: np.ndarray) -> np.ndarray:
        if name in self._single:
            array = array[0]
        if self._variant.layout == "NHWC" and array.ndim == 4:
            array = np.ascontiguousarray(array.transpose(_LAST))
        dtype = self._variant.dtypes.get(str(array.dtype))
        if dtype is None:
            return array
        with np.errstate(over="ignore"):
            cast = array.astype(dtype)
        if array.dtype.kind in "iu" and not np.array_equal(cast, array):
            raise ProbeRefusedError(f"its values do not fit into {dtype}")
        return cast

    def _read(self, name: str, array: np.ndarray) -> np.ndarray:
        spec = self._out.get(name)
        rank = len(spec.dims) if spec is not None and spec.dtype else array.ndim + 1
        if self._single and array.ndim + 1 == rank:
            array = array[None]
        if self._variant.layout == "NHWC" and array.ndim == 4:
            array = array.transpose(_FIRST)
        known = self._out[name].dtype if name in self._out else ""
        given = str(array.dtype)
        wanted = [
            dtype
            for dtype, own in self._variant.dtypes.items()
            if own == given
            and (known == dtype or (not known and (dtype != "bool" or array.dtype.kind in "iu")))
        ]
        if len(wanted) != 1:
            return array
        cast = array.astype(wanted[0])
        # A 2 where the contract has a truth value is an error, which the dtype then tells.
        return cast if np.array_equal(cast, array, equal_nan=True) else array

    def _refuse(self, feeds: Mapping[str, np.ndarray]) -> None:
        """ProbeRefusedError for sizes that the variant cannot take."""
        for name, array in feeds.items():
            spec = self._in.get(name)
            batch = spec is not None and spec.dims and spec.dims[0].symbol is not None
            if batch and not self._variant.batch and array.shape[0] != 1:
                raise ProbeRefusedError("it takes no batch")
            fixed = self._fixed.get(name)
            if fixed is not None and fixed != array.shape:
                sizes = "x".join(map(str, fixed))
                raise ProbeRefusedError(f"its sizes are fixed, {name} to {sizes}")

    @cached_property
    def _fixed(self) -> Mapping[str, tuple[int, ...]]:
        """The sizes that are fixed in the file, as recorded, or as the runtime has them."""
        if not self._variant.static:
            return {}
        found = {}
        for spec in self.inputs():
            dims = tuple(dim for dim in spec.dims if isinstance(dim, int))
            if len(dims) == len(spec.dims):
                found[spec.name] = dims
        return {**found, **self._entry.shapes}
