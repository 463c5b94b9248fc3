"""The ONNX Runtime level of ``check``: nodes that the runtime would not load, and its version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch2mobile.records import Finding, Location, Severity, Table
from torch2mobile.validators.coverage import kernels, releases, runtime, validity
from torch2mobile.validators.coverage.lint_context import OnnxSubject, Section, Subject
from torch2mobile.validators.coverage.releases import Release
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.runtime import Outcome, Verdict

if TYPE_CHECKING:
    from torch2mobile.validators.coverage.graph import Model

_CODES = {
    Outcome.NO_OPERATOR: "T2M301",
    Outcome.DEPRECATED: "T2M302",
    Outcome.NO_KERNEL: "T2M302",
    Outcome.NO_TYPE_KERNEL: "T2M303",
    Outcome.BAD_TYPE: "T2M304",
    Outcome.BAD_ATTRIBUTE: "T2M305",
    Outcome.UNKNOWN: "T2M306",
    Outcome.INVALID: "T2M309",
    Outcome.CASTS: "T2M308",
}


def look(subject: Subject) -> Iterator[Section]:
    """Every node against the installed runtime, and the whole against an older one if asked."""
    release = releases.find(subject.ort_version) if subject.ort_version else None
    onnx = subject.onnx
    if onnx is None:
        why = subject.no_model or "name a --target (ort, say) to look at the ONNX that it becomes"
        yield Section("onnxruntime", skipped=why)
        return
    import onnxruntime

    model = onnx.graph
    verdicts = runtime.verdicts(model)
    installed = releases.installed()
    found = [*_limits(model, installed, onnx), *_names(model, onnx)]
    found += _findings(verdicts, onnx)
    bad = sum(verdict.outcome.supported is False for verdict in verdicts)
    yield Section(
        "onnxruntime",
        tuple(found),
        summary=f"{len(verdicts) - bad} of {len(verdicts)} nodes run in {onnxruntime.__version__}",
        target="ort",
        metrics={"nodes": len(verdicts), "without kernel": bad},
        tables=_table(verdicts),
    )
    if release is not None:
        yield _older(model, release, onnx)


def _names(model: Model, onnx: OnnxSubject) -> Iterator[Finding]:
    for node, text in validity.of_names(model):
        where = Location() if node is None else onnx.place_of(node)
        yield RULES["T2M309"].found(where, text, target="ort")


def _findings(verdicts: list[Verdict], onnx: OnnxSubject) -> Iterator[Finding]:
    for verdict in verdicts:
        where = onnx.place_of(verdict.node)
        code = _CODES.get(verdict.outcome)
        if code:
            yield RULES[code].found(where, verdict.reason, target="ort")
        if verdict.node.domain.startswith("com.microsoft"):
            message = f"{verdict.node.op} is an operator of ONNX Runtime's own"
            yield RULES["T2M307"].found(where, message, target="ort")


def _table(verdicts: list[Verdict]) -> tuple[Table, ...]:
    """What the runtime does beyond running a kernel, by operator."""
    counted: dict[tuple[str, str], int] = {}
    for verdict in verdicts:
        if verdict.outcome is not Outcome.KERNEL:
            row = (verdict.node.op, verdict.outcome.value)
            counted[row] = counted.get(row, 0) + 1
    rows = tuple((op, count, what) for (op, what), count in counted.items())
    columns = ("operator", "nodes", "what ONNX Runtime does")
    return (Table("without a kernel of their own", columns, rows),) if rows else ()


def _older(model: Model, release: Release, onnx: OnnxSubject) -> Section:
    """The limits of an older release; its kernels are not known, and the notes say so."""
    findings = tuple(_limits(model, release, onnx))
    kernels_unknown = (
        f"the kernels of {release.version} are in no table: a type without a kernel there is found "
        "only by loading the model"
    )
    more = (
        f"what {release.version} takes beyond opset {release.opset} is not in ONNX Runtime's "
        "table, and may be more"
    )
    notes = (kernels_unknown,) if release.exact else (kernels_unknown, more)
    return Section(
        f"onnxruntime {release.version}",
        findings,
        summary=f"opset {release.opset} and IR version {release.ir} at most",
        target="ort",
        metrics={"opset": release.opset, "ir_version": release.ir},
        notes=notes,
    )


def _limits(model: Model, release: Release, onnx: OnnxSubject) -> Iterator[Finding]:
    severity = None if release.exact else Severity.WARNING
    whole = Location()
    for domain, most in (("", release.opset), ("ai.onnx.ml", release.ml_opset)):
        found = model.opsets.get(domain, 0)
        if found > most:
            text = f"opset {found} of {domain or 'ai.onnx'}, and {release.version} takes {most}"
            remedy = f"Export with --opset {most}." if not domain else ""
            yield RULES["T2M311"].found(whole, text, severity=severity, remedy=remedy, target="ort")
    for node in model.every_node:
        most = {"": release.opset, "ai.onnx.ml": release.ml_opset}.get(node.domain, 2**31)
        schema = kernels.schema(node.domain, node.proto.op_type, node.opset)
        if schema is not None and schema.since > most:
            yield RULES["T2M312"].found(
                onnx.place_of(node),
                f"{node.op} is that of opset {schema.since}, and {release.version} takes {most}",
                severity=severity,
                target="ort",
            )
    if model.proto.ir_version > release.ir:
        text = f"IR version {model.proto.ir_version}, and {release.version} reads {release.ir}"
        remedy = f"Set model.ir_version = {release.ir}, and load the file there once."
        yield RULES["T2M313"].found(whole, text, severity=severity, remedy=remedy, target="ort")
    if release.ort_format < releases.WRITTEN_ORT_FORMAT:
        text = (
            f".ort files are of format {releases.WRITTEN_ORT_FORMAT}, and {release.version} reads "
            f"{release.ort_format}"
        )
        yield RULES["T2M314"].found(whole, text, target="ort")
