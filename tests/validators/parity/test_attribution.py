"""What is blamed for a drift: what was measured and what changed, and never more."""

from __future__ import annotations

import pytest

from torch2mobile.validators.parity.attribution import (
    UNKNOWN,
    Change,
    Changes,
    Moved,
    cause_of,
    hint_of,
)

RUNTIME = Change("runtime", "onnxruntime", "1.30.0", "1.32.0", "1.32.0")
TORCH = Change("torch", "torch", "2.12.0", "2.13.0")
TOOL = Change("tool", "onnxscript", "0.7.1", "0.7.2")
WEIGHTS = Change("weights", "weights", "12ab", "34cd", said="4 of 12 weights")
SOURCE = Change("source", "source", "12ab", "34cd", said="source of net.py")
OPSET = Change("request", "request: opset", "18", "20")
LOST = Change("weights", "weights", UNKNOWN, "34cd")
ALL = (RUNTIME, TORCH, TOOL, WEIGHTS, SOURCE, OPSET)


@pytest.mark.parametrize(
    ("moved", "changed", "word", "sentence"),
    [
        (
            Moved(before=True, files=False, modules=False),
            ALL,
            "runtime",
            "onnxruntime 1.30.0 -> 1.32.0, not your commit",
        ),
        (
            # The file is the same function as the earlier one, whatever the module now gives.
            Moved(before=True, files=False, modules=True),
            ALL,
            "runtime",
            "onnxruntime 1.30.0 -> 1.32.0, not your commit",
        ),
        (
            Moved(before=True, files=False, modules=None),
            (WEIGHTS,),
            "runtime",
            "onnxruntime and the machine are as recorded, not your commit",
        ),
        (
            Moved(before=False, files=True, modules=True),
            (RUNTIME, TOOL, WEIGHTS, SOURCE),
            "commit",
            "your commit: 4 of 12 weights and source of net.py changed",
        ),
        (
            Moved(before=False, files=True, modules=True),
            ALL,
            "commit or torch",
            "your commit: 4 of 12 weights and source of net.py changed, or torch 2.12.0 -> 2.13.0",
        ),
        (
            Moved(before=False, files=True, modules=True),
            (TORCH, TOOL),
            "torch",
            (
                "torch 2.12.0 -> 2.13.0: the module gives other results with the same weights and "
                "source"
            ),
        ),
        (
            Moved(before=False, files=True, modules=True),
            (TOOL,),
            "module",
            (
                "the module gives other results, though its weights, its source and torch are as "
                "recorded"
            ),
        ),
        (
            Moved(before=False, files=True, modules=True),
            (LOST,),
            "module",
            "the module gives other results: weights (not recorded then)",
        ),
        (
            Moved(before=False, files=True, modules=False),
            (RUNTIME, TOOL, OPSET, SOURCE),
            "conversion",
            (
                "the conversion, since the module itself has not moved: onnxscript 0.7.1 -> "
                "0.7.2 or request: opset 18 -> 20"
            ),
        ),
        (
            Moved(before=False, files=True, modules=False),
            (),
            "conversion",
            "the conversion, since the module itself has not moved: all is as recorded",
        ),
        (
            Moved(before=False, files=True, modules=None),
            (RUNTIME, TOOL, SOURCE),
            "file",
            "another file; changed: onnxscript 0.7.1 -> 0.7.2, source of net.py",
        ),
        (
            Moved(before=True, files=True, modules=True),
            (RUNTIME, SOURCE),
            "runtime, commit",
            "onnxruntime 1.30.0 -> 1.32.0, and your commit: source of net.py changed",
        ),
        (
            Moved(before=False, files=False, modules=False),
            (RUNTIME, TOOL),
            "runtime, conversion",
            (
                "neither alone, but together: onnxruntime 1.30.0 -> 1.32.0, and the "
                "conversion, since the module itself has not moved: onnxscript 0.7.1 -> 0.7.2"
            ),
        ),
        (
            Moved(before=None, files=None, modules=True),
            (SOURCE,),
            "unknown",
            "not told apart, since the earlier file was not run; changed: source of net.py",
        ),
    ],
)
def test_causes(moved: Moved, changed: tuple[Change, ...], word: str, sentence: str) -> None:
    cause = cause_of(moved, Changes(changed))
    assert (cause.word, cause.sentence) == (word, sentence)


def test_only_what_the_runtime_did_is_not_the_commit() -> None:
    for before in (True, False):
        for modules in (True, False, None):
            for files in (True, False):
                cause = cause_of(Moved(before, files, modules), Changes(ALL))
                assert ("not your commit" in cause.sentence) == (before and not files)


def test_hints() -> None:
    runtime = Moved(before=True, files=False, modules=False)
    commit = Moved(before=False, files=True, modules=True)
    assert "Pin what changed" in hint_of([runtime], Changes(ALL))
    assert "with this torch" in hint_of([runtime, commit], Changes(ALL))
    assert hint_of([commit], Changes((SOURCE,))).startswith("If the change is meant")
