"""What differs between two manifests and this machine."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from torch2mobile.pipeline.baseline import changes
from torch2mobile.pipeline.baseline.changes import Here
from torch2mobile.pipeline.installed_tools import CPU_FEATURES, machine
from torch2mobile.records import Fingerprint, Manifest, ParityOptions, Request

VERSIONS = {"python": "3.11", "torch": "2.13.0", "onnxruntime": "1.32.0", "onnxsim": "0.8.1"}
MACHINE = {"system": "Linux", "architecture": "x86_64", "instructions": "avx avx2"}
SAME = Manifest(
    name="net",
    source="net.py:Net",
    strategy="non-strict",
    opset=20,
    simplified=True,
    seed=0,
    inputs=(),
    outputs=(),
    targets={},
    golden=(),
    versions=VERSIONS,
    files={},
    request=Request("net.py:Net"),
    weights=Fingerprint("w", {"a": "1", "b": "2"}),
    sources=Fingerprint("s", {"net.py": "1", "blocks.py": "2"}),
    machine=MACHINE,
)
HERE = Here(VERSIONS, MACHINE)


def between(here: Here = HERE, **then: Any) -> list[tuple[str, str]]:
    found = changes.changes_between(replace(SAME, **then), SAME, here).found
    return [(change.kind, str(change)) for change in found]


def test_nothing() -> None:
    assert between() == []


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ({"versions": {**VERSIONS, "torch": "2.12.0"}}, [("torch", "torch 2.12.0 -> 2.13.0")]),
        ({"versions": {**VERSIONS, "onnxsim": "0.7"}}, [("tool", "onnxsim 0.7 -> 0.8.1")]),
        (
            {"versions": {**VERSIONS, "onnxruntime": "1.30.0"}},
            [("runtime", "onnxruntime 1.30.0 -> 1.32.0")] * 1
            + [("tool", "onnxruntime 1.30.0 -> 1.32.0")],
        ),
        ({"opset": 18}, [("tool", "opset 18 -> 20")]),
        ({"simplified": False}, [("tool", "simplified no -> yes")]),
        (
            {"weights": Fingerprint("v", {"a": "1", "b": "3", "c": "4"})},
            [("weights", "2 of 3 weights (b, c)")],
        ),
        (
            {"weights": Fingerprint("v", dict.fromkeys("abcdef", "0"))},
            [("weights", "6 of 6 weights (a, b, c and 3 more)")],
        ),
        (
            {"source": "net.py:make"},
            [("source", "the attribute (make -> Net)")],
        ),
        ({"source": "other.py:Net"}, []),
        ({"source": "Net"}, []),
        (
            {"sources": Fingerprint("t", {"net.py": "0", "blocks.py": "2", "old.py": "3"})},
            [("source", "source of net.py, old.py")],
        ),
        # A file that only has another name has not changed.
        ({"sources": Fingerprint("s", {"net.py": "1", "src/blocks.py": "2"})}, []),
        (
            {"request": Request("net.py:Net", opset=18, inputs=("x:float32[2]",))},
            [
                ("request", "request: inputs x:float32[2] -> none"),
                ("request", "request: opset 18 -> default"),
            ],
        ),
        (
            {"request": Request("net.py:Net", rewrites=("T2M401",))},
            [("request", "request: rewrites T2M401 -> none")],
        ),
        (
            {"request": Request("net.py:Net", parity=ParityOptions(seed=7))},
            [("request", "request: seed 7 -> 0")],
        ),
        # What only names the same thing in another way is no change.
        ({"request": Request("other.py:Net", weights="copy.pt")}, []),
        (
            {"machine": {**MACHINE, "instructions": ""}},
            [("runtime", "the machine (instructions none -> avx avx2)")],
        ),
    ],
)
def test_each_kind(then: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert between(**then) == expected


def test_every_field_of_a_request_counts_unless_it_is_said_not_to() -> None:
    """A field that is new in a request is a change, not overlooked."""
    names = {field.name for field in fields(Request)}
    assert set(changes._NO_MATTER) < names
    assert {"inputs", "opset", "simplify", "targets", "rewrites"} <= names - set(changes._NO_MATTER)


def test_what_was_not_recorded_is_unknown() -> None:
    old = {"weights": Fingerprint(), "sources": Fingerprint(), "machine": {}, "request": None}
    found = changes.changes_between(replace(SAME, **old), SAME, HERE)  # type: ignore[arg-type]
    assert [c.what for c in found.found if not c.known] == [
        "machine",
        "weights",
        "source",
        "request",
    ]
    assert changes.named(found) == ""


def test_another_runtime_here_than_where_the_bundle_was_made() -> None:
    here = Here({**VERSIONS, "onnxruntime": "1.33.0"}, MACHINE)
    assert between(here) == [("runtime", "onnxruntime 1.32.0 -> 1.33.0")]


def test_with_the_module_it_is_todays_weights_and_torch_that_count() -> None:
    here = Here(
        {**VERSIONS, "torch": "2.14.0"}, MACHINE, Fingerprint("v", {"a": "0", "b": "2"}), None
    )
    assert between(here) == [
        ("torch", "torch 2.13.0 -> 2.14.0"),
        ("weights", "1 of 2 weights (a)"),
    ]


def test_the_attribute_that_is_named_today_counts() -> None:
    here = Here(VERSIONS, MACHINE, SAME.weights, SAME.sources, "src/net.py:Other")
    assert between(here) == [("source", "the attribute (Net -> Other)")]


def test_the_table_has_each_thing_once() -> None:
    then = replace(SAME, versions={**VERSIONS, "onnxruntime": "1.30.0"})
    found = changes.changes_between(then, SAME, HERE)
    assert changes.named(found) == "onnxruntime or machine"
    table = changes.table_of(found)
    assert table.rows == (("onnxruntime", "1.30.0", "1.32.0", "1.32.0"),)


def test_the_machine_is_described_without_a_name() -> None:
    found = machine()
    assert set(found) <= {"system", "architecture", "instructions"}
    assert set(found.get("instructions", "").split()) <= set(CPU_FEATURES)
