"""What the validators' tests share: modules exported once, and judged as often as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from torch2mobile.records import Capture, LoadedModel, OnnxModel, ParityOptions, Request


@pytest.fixture(scope="session")
def load() -> Callable[..., LoadedModel]:
    """A module with its inputs in the command line's grammar, ready to be evaluated."""

    def make(module: Any, *inputs: str, values: Sequence[str] = ()) -> LoadedModel:
        from torch2mobile.exporter.loading import source

        name = type(module).__name__
        return source.from_specs(name, module, inputs, values, Request(source=""), ())

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """The models are tiny, and threads that wait for work take it from other tests."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class OneThread:
    """A file in ONNX Runtime, in this process and thread."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)

    def run(self, feeds: Mapping[str, Any]) -> list[tuple[str, Any]]:
        names = [output.name for output in self.session.get_outputs()]
        return list(zip(names, self.session.run(None, dict(feeds)), strict=True))


@dataclass(frozen=True)
class Artefact:
    """An exported module, and its file loaded in ONNX Runtime in this process."""

    loaded: LoadedModel
    capture: Capture
    model: OnnxModel
    runner: Any

    def expected(self, against: LoadedModel | None = None, **options: Any) -> list[Any]:
        """What the module (or another of the same interface) gives on the probes."""
        from torch2mobile.validators.parity import probes, reference

        given = against or self.loaded
        example = reference.example_of(self.loaded)
        built = probes.build(self.capture.inputs, example, ParityOptions(**options))
        found = reference.evaluate(given, self.capture.outputs, built)
        return reference.accepted(found)

    def judged(
        self, against: LoadedModel | None = None, *, sure: bool = False, **options: Any
    ) -> list[Any]:
        """Every output on every probe; a structural difference fails at once.

        With ``sure`` by the truth of each probe, also where it is not needed.
        """
        from torch2mobile.validators.parity import gate
        from torch2mobile.validators.parity.answers import run_probes
        from torch2mobile.validators.parity.expected import typical_of

        cases = self.expected(against, **options)
        cases = [case.sure() for case in cases] if sure else cases
        usual = typical_of(cases)
        judged = []
        for case, answer in zip(cases, run_probes(self.runner, cases), strict=True):
            found, wrong = gate.judge_probe(case, answer, usual, {})
            assert found, wrong
            judged += found
        return judged


@pytest.fixture(scope="session")
def export(
    tmp_path_factory: pytest.TempPathFactory,
    load: Callable[..., LoadedModel],
) -> Callable[..., Artefact]:
    """Capture and translate a module, and load the file."""

    def make(module: Any, *inputs: str, **options: Any) -> Artefact:
        from torch2mobile.exporter import capture, translate

        loaded = load(module, *inputs, **options)
        captured = capture.capture(loaded)
        path: Path = tmp_path_factory.mktemp("artefact") / "model.onnx"
        model = translate.translation(captured, path).model
        return Artefact(loaded, captured, model, OneThread(path))

    return make
