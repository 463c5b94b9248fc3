"""The ATen level of ``check``: operators of the captured graph without a translation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from torch2mobile import user_code
from torch2mobile.records import Finding, Location
from torch2mobile.validators.coverage.lint_context import (
    OWN_NAMESPACES,
    ModuleSubject,
    Section,
    Subject,
)
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.rules.untranslated import REWRITTEN

if TYPE_CHECKING:
    from torch2mobile.validators.coverage.aten import Missing

_LOST = "without translation to ONNX"


def look(subject: Subject) -> Iterator[Section]:
    """Every operator of a captured module; skipped where there is no captured graph."""
    module = subject.module
    if module is None:
        yield Section("aten", skipped="a file holds no operators of PyTorch any more")
        return
    if module.program is None:
        refused = _refused(module)
        if refused:
            yield Section("aten", refused, summary="a TorchScript trace", failure=_LOST)
        elif module.capture is not None:
            yield Section("aten", summary="a TorchScript trace, which translates")
        else:
            yield Section("aten", skipped="the module could not be captured as a graph")
        return
    from torch2mobile.tensors import quiet
    from torch2mobile.validators.coverage import aten
    from torch2mobile.validators.coverage.translations import key

    # The exporter logs what is not installed while its registry loads.
    with quiet():
        found = aten.survey(module.program, module.mended)
    count = sum(1 for _ in aten.calls(module.program))
    findings = tuple(_finding(item) for item in found.missing)
    if not findings and (found.doubtful or (subject.onnx is None and subject.no_model)):
        findings = _refused(module)
    yield Section(
        "aten",
        findings,
        summary=f"{count} operators",
        failure=_LOST if findings else "",
        metrics={"operators": count, "without translation": len(findings)},
        notes=tuple(
            f"mended {key(target).partition('::')[2]} (torch.onnx: {module.mended[target]})"
            for target in found.mended
        ),
    )


def _refused(module: ModuleSubject) -> tuple[Finding, ...]:
    """What the exporter said if it did not translate the graph, for arguments' sake perhaps."""
    error = module.refusal()
    if error is None:
        return ()
    place = next((p for p in error.locations if isinstance(p, Location)), Location())
    return (RULES["T2M201"].found(place, error.message, remedy=error.remedy),)


def _finding(item: Missing) -> Finding:
    where = replace(
        user_code.of_node(item.node),
        node=item.node.name,
        op=item.overload.removeprefix("torch.ops."),
    )
    name = item.called
    if item.called != item.name:
        name += f" consists of {item.name}, which"
    if item.namespace not in OWN_NAMESPACES:
        call = f"custom_translation_table={{{item.overload}: your_function}}"
        return RULES["T2M202"].found(
            where,
            f"the custom operator {item.name} has no translation to ONNX",
            remedy=f"Write it with PyTorch's own operators, or give torch.onnx.export {call}.",
        )
    if item.complex_input:
        return RULES["T2M203"].found(where, f"{name} has no translation for complex numbers")
    text = REWRITTEN.get(item.name, "")
    remedy = f"Write {text}." if text else ""
    if item.instead:
        remedy = f"Write it with {', '.join(item.instead)}, of which torch itself can make it."
    return RULES["T2M201"].found(where, f"{name} has no translation to ONNX", remedy=remedy)
