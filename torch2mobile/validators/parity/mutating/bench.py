"""Variants of one ONNX model side by side in a worker process, which share weights and inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch2mobile.errors import WorkerCallError, WorkerCrashError, WorkerTimeoutError
from torch2mobile.isolation import Process

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from torch2mobile.interfaces import Feeds

_LOADER = "torch2mobile.validators.parity.mutating.bench:Sessions"
# Smaller tensors stay in the model: sizes, axes and the like are needed to infer shapes.
_APART_BYTES = 1 << 13


def split(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model without its large weights, and those by name; the model itself is emptied.

    A variant is then a few kilobytes, whatever the weights are.
    """
    from onnx import TensorProto, numpy_helper

    weights = {}
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > _APART_BYTES and tensor.data_type != TensorProto.STRING:
            weights[tensor.name] = numpy_helper.to_array(tensor)
            bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            bare.data_location = TensorProto.EXTERNAL
            bare.external_data.add(key="location", value="weights")
            tensor.CopyFrom(bare)
    return model, weights


@dataclass(frozen=True)
class Packed:
    """A model as bytes, and which of the shared weights it reads."""

    model: bytes
    apart: tuple[str, ...]


def pack(model: onnx.ModelProto) -> Packed:
    """A model whose large weights were taken out by :func:`split`, ready to be sent."""
    apart = tuple(tensor.name for tensor in model.graph.initializer if tensor.external_data)
    return Packed(model.SerializeToString(), apart)


class Sessions:
    """The worker's side: ONNX Runtime sessions by key, on one thread each."""

    def __init__(self, weights: Feeds, feeds: Sequence[Feeds]) -> None:
        import onnxruntime as ort

        self._values = {
            name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()
        }
        self._feeds = feeds
        self._open: dict[int, Any] = {}

    def open(self, key: int, variant: Packed) -> str:
        """Load a variant; what is wrong with it, or nothing."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        if variant.apart:
            values = [self._values[name] for name in variant.apart]
            options.add_external_initializers(list(variant.apart), values)
        try:
            self._open[key] = ort.InferenceSession(
                variant.model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 (onnxruntime raises many kinds)
            return _first_line(error)
        return ""

    def run(self, key: int, inputs: Sequence[int | Feeds]) -> list[Any]:
        """The outputs on inputs, given by number or as they are; a text in place of an error."""
        session = self._open[key]
        names = [output.name for output in session.get_outputs()]
        found: list[Any] = []
        for item in inputs:
            feeds = self._feeds[item] if isinstance(item, int) else item
            try:
                found.append(list(zip(names, session.run(None, dict(feeds)), strict=True)))
            except Exception as error:  # noqa: BLE001 (onnxruntime raises many kinds)
                found.append(_first_line(error))
        return found

    def first(self, key: int, variant: Packed, inputs: Sequence[int]) -> str | list[Any]:
        """Load a variant and run it: one call for what most variants need."""
        return self.open(key, variant) or self.run(key, inputs)

    def close(self, key: int) -> None:
        """Let a variant go."""
        self._open.pop(key, None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class Bench:
    """The parent's side. After a crash the next call starts a fresh process.

    Every call may take ``timeout`` seconds.
    """

    def __init__(self, weights: Feeds, feeds: Sequence[Feeds], timeout: float) -> None:
        self._arguments = (dict(weights), [dict(each) for each in feeds])
        self._process = Process(["onnxruntime"], timeout)
        self._handle = self._generation = -1
        self._models: dict[int, Packed] = {}

    def _method(self, name: str, *args: Any) -> Any:
        if self._generation != self._process.generation or not self._process.alive:
            self._handle = self._process.call("make", _LOADER, self._arguments)
            self._generation = self._process.generation
            for key, model in self._models.items():
                self._method("open", key, model)
        return self._process.call("method", self._handle, name, args)

    def open(self, key: int, model: Packed) -> None:
        """Load a variant and keep it, also over a crash.

        Raises WorkerCallError where ONNX Runtime does not take it.
        """
        problem = self._method("open", key, model)
        if problem:
            raise WorkerCallError(problem)
        self._models[key] = model

    def run(self, key: int, inputs: Sequence[int | Feeds]) -> list[Any]:
        """The outputs of an open variant on inputs; an error in place of those it did not give."""
        try:
            return [_answer(item) for item in self._method("run", key, list(inputs))]
        except (WorkerCrashError, WorkerTimeoutError) as error:
            return [error for _ in inputs]

    @contextmanager
    def variant(self, key: int, model: Packed, inputs: Sequence[int]) -> Iterator[list[Any]]:
        """Load a variant, run it on inputs, and keep it until the block ends.

        What does not load, crashes or takes too long gives errors.
        """
        try:
            found = self._method("first", key, model, list(inputs))
        except (WorkerCrashError, WorkerTimeoutError) as error:
            yield [error for _ in inputs]
            return
        if isinstance(found, str):
            yield [WorkerCallError(found) for _ in inputs]
            return
        self._models[key] = model
        try:
            yield [_answer(item) for item in found]
        finally:
            del self._models[key]
            if self._process.alive:
                self._method("close", key)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()


def _answer(found: Any) -> Any:
    return WorkerCallError(found) if isinstance(found, str) else found
