"""The Python API: the command line's verbs as functions on modules in memory.

Nothing is printed, and nothing global is changed: random state, grad mode, default dtype, the
module's mode and its weights are afterwards as they were, also after an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch2mobile.errors import UsageError
from torch2mobile.interfaces import Observer
from torch2mobile.pipeline import check as checking
from torch2mobile.pipeline import check_options, in_memory
from torch2mobile.pipeline import verify as verification
from torch2mobile.pipeline.debugging import debug_against
from torch2mobile.pipeline.export import export_loaded
from torch2mobile.pipeline.results import (
    CheckResult,
    DebugResult,
    ExportResult,
    VerifyResult,
)
from torch2mobile.pipeline.whole_imports import needs_whole_imports
from torch2mobile.records import MIN_CAUGHT, ParityOptions, Request, Scrutiny, Severity
from torch2mobile.validators.coverage.selection import Selection, Suppression

if TYPE_CHECKING:
    import torch


@needs_whole_imports
def export(
    module: torch.nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    *,
    out: str | Path | None = None,
    inputs: Sequence[str] = (),
    values: Sequence[str] = (),
    data: in_memory.Data = (),
    preprocess: str = "",
    tokenizer: str | Path = "",
    opset: int | None = None,
    targets: Sequence[str] = ("ort",),
    devices: Sequence[str] = (),
    strict: bool = False,
    rewrites: Sequence[str] = (),
    mend: bool = True,
    drop_outputs: Sequence[str] = (),
    state: bool = False,
    stop_before: str = "",
    output_of: str = "",
    simplify: bool = True,
    simplify_timeout: float = 120.0,
    external_data: bool = False,
    parity: ParityOptions | None = None,
    observer: Observer | None = None,
) -> ExportResult:
    """Export a module to a bundle at ``out`` (``dist/<class name>``), and prove it equal.

    ``args`` and ``kwargs`` are an example call with tensors in it; ``dynamic_shapes`` is
    torch.export's own form. Instead of both, ``inputs`` takes the command line's grammar
    (``"image:float32[N=1..8,3,H,W]"``). ``data`` are real inputs: arrays by input name, or paths
    as for ``--data``, with ``preprocess`` and ``tokenizer`` as ``--preprocess`` and its like.
    ``devices`` are processors that every artefact is run on besides this one's (``"arm64"``).
    ``strict`` gives the exit code 3 where a target was skipped, as it is not installed.
    ``rewrites`` are codes of rules whose remedy is applied to what is exported. Without ``mend``
    torch.onnx translates every operator, also those that it translates wrongly.
    Without ``drop_outputs``, names of outputs or of what holds them, one that is no tensor fails.
    With ``state`` what the module keeps from call to call is an input and an output of the file.
    ``stop_before`` or ``output_of`` a submodule, method or function ends the model there.

    Raises a Torch2MobileError for a request that cannot be carried out as written; everything
    else, mismatches included, is in the result's report.
    """
    request = Request(
        source="",
        inputs=in_memory.several(inputs),
        values=in_memory.several(values),
        **in_memory.named(data, preprocess, tokenizer),
        opset=opset,
        simplify=simplify,
        simplify_timeout=simplify_timeout,
        external_data=external_data,
        targets=in_memory.several(targets),
        devices=in_memory.several(devices),
        strict=strict,
        rewrites=in_memory.several(rewrites),
        mend=mend,
        drop_outputs=in_memory.several(drop_outputs),
        state=state,
        stop_before=stop_before,
        output_of=output_of,
        parity=parity or ParityOptions(),
    )
    return export_loaded(
        lambda: in_memory.from_memory(module, args, kwargs, dynamic_shapes, request, data),
        request,
        out=Path(out) if out is not None else None,
        observer=observer,
    )


@needs_whole_imports
def verify(
    artifact: str | Path,
    against: torch.nn.Module | str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    *,
    inputs: Sequence[str] = (),
    values: Sequence[str] = (),
    data: in_memory.Data = (),
    preprocess: str = "",
    tokenizer: str | Path = "",
    trust: bool = False,
    download: bool = False,
    drop_outputs: Sequence[str] = (),
    state: bool = False,
    stop_before: str = "",
    output_of: str = "",
    devices: Sequence[str] = (),
    strict: bool = False,
    baseline: str | Path | None = None,
    parity: ParityOptions | None = None,
    mutants: int = 0,
    search: bool | None = None,
    min_caught: float = MIN_CAUGHT,
    match: Literal["name", "position"] | None = None,
    observer: Observer | None = None,
) -> VerifyResult:
    """Verify a bundle, or an .onnx or .ort file against a module.

    ``against`` is a module with its example call, or a source as on the command line. A bundle
    without it is replayed on its golden data, and torch is not imported. ``devices`` and
    ``strict`` are as for :func:`export`. ``baseline`` is an
    earlier bundle, or its manifest.json: what of a bundle has drifted since, and why. ``mutants``
    faults are put into the .onnx, and at least ``min_caught`` of them have to be caught;
    ``search`` looks for inputs that take decisions both ways (None: with mutants). ``trust`` loads
    a .pt2 named by ``against`` also where it holds code, and ``download`` fetches the weights of a
    timm: or hf: model that are not on this machine. The names in a file are part of its
    contract; ``match="position"`` takes those of a file from elsewhere.
    """
    request = Request(
        source=against if isinstance(against, str) else "",
        inputs=in_memory.several(inputs),
        values=in_memory.several(values),
        **in_memory.named(data, preprocess, tokenizer),
        trust=trust,
        download=download,
        drop_outputs=in_memory.several(drop_outputs),
        state=state,
        stop_before=stop_before,
        output_of=output_of,
        parity=parity or ParityOptions(),
    )
    load = in_memory.loader_of(against, args, kwargs, dynamic_shapes, data, request)
    return verification.verify(
        Path(artifact),
        replace(request, devices=in_memory.several(devices), strict=strict),
        load=load,
        baseline=Path(baseline) if baseline is not None else None,
        scrutiny=Scrutiny(mutants, search, min_caught),
        observer=observer,
        match=match,
    )


@needs_whole_imports
def debug(
    artifact: str | Path,
    against: torch.nn.Module | str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    *,
    probe: str = "",
    inputs: Sequence[str] = (),
    values: Sequence[str] = (),
    data: in_memory.Data = (),
    preprocess: str = "",
    tokenizer: str | Path = "",
    trust: bool = False,
    download: bool = False,
    drop_outputs: Sequence[str] = (),
    state: bool = False,
    stop_before: str = "",
    output_of: str = "",
    parity: ParityOptions | None = None,
    observer: Observer | None = None,
) -> DebugResult:
    """Find the first node of a bundle's .onnx, or of an .onnx file, that is not the module's.

    ``against`` is as for :func:`verify`. ``probe`` is the label of the probe to look at; without
    one it is the smallest that fails. ``trust`` and ``download`` are as for :func:`verify`.
    """
    request = Request(
        source=against if isinstance(against, str) else "",
        inputs=in_memory.several(inputs),
        values=in_memory.several(values),
        **in_memory.named(data, preprocess, tokenizer),
        trust=trust,
        download=download,
        drop_outputs=in_memory.several(drop_outputs),
        state=state,
        stop_before=stop_before,
        output_of=output_of,
        parity=parity or ParityOptions(),
    )
    load = in_memory.loader_of(against, args, kwargs, dynamic_shapes, data, request)
    return debug_against(Path(artifact), request, probe=probe, load=load, observer=observer)


@needs_whole_imports
def check(
    source: torch.nn.Module | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    *,
    inputs: Sequence[str] = (),
    values: Sequence[str] = (),
    data: in_memory.Data = (),
    preprocess: str = "",
    tokenizer: str | Path = "",
    trust: bool = False,
    download: bool = False,
    drop_outputs: Sequence[str] = (),
    state: bool = False,
    stop_before: str = "",
    output_of: str = "",
    targets: Sequence[str] = (),
    providers: Sequence[str] = (),
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    suppress: Sequence[Suppression] = (),
    fail_on: Severity | Literal["error", "warning", "info"] = Severity.ERROR,
    ort_version: str | None = None,
    fix_dims: Mapping[str, int] | None = None,
    opset: int | None = None,
    mend: bool = True,
    observer: Observer | None = None,
) -> CheckResult:
    """Say whether a model can be exported, which lines are in the way, and what to write instead.

    ``source`` is a module with its example call, as for :func:`export`, or what the command line
    takes: a source, an .onnx file or a bundle, the latter two without loading torch. Nothing is
    converted or written. ``fix_dims`` gives symbols a size; ``opset`` is that of the ONNX to look
    at, and ``mend``, as for :func:`export`; ``trust`` and ``download`` are as for :func:`verify`.
    No configuration file is read: what it would say is given here.

    Raises a Torch2MobileError for a request that cannot be carried out as written; everything
    else, a module that cannot be captured included, is in the result's report.
    """
    options = check_options.CheckOptions(
        targets=in_memory.several(targets),
        providers=in_memory.several(providers),
        selection=Selection(in_memory.several(select), in_memory.several(ignore), tuple(suppress)),
        fail_on=check_options.severity_of(fail_on),
        ort_version=ort_version,
        fixed=dict(fix_dims or {}),
        opset=opset,
        mend=mend,
    )
    in_file = isinstance(source, str | Path)
    request = Request(
        source=str(source) if in_file else "",
        inputs=in_memory.several(inputs),
        values=in_memory.several(values),
        **in_memory.named(data, preprocess, tokenizer),
        trust=trust,
        download=download,
        drop_outputs=in_memory.several(drop_outputs),
        state=state,
        stop_before=stop_before,
        output_of=output_of,
    )
    if in_file:
        called = not isinstance(args, tuple | list) or bool(args)
        if called or kwargs or in_memory.arrays_of(data) or dynamic_shapes is not None:
            raise UsageError(
                "args, kwargs, dynamic_shapes and arrays in data go with a module in memory",
                "Describe the inputs of a source with inputs= and values=.",
            )
        return checking.check_request(request, options, observer=observer)
    in_memory.refuse_file_options(request)
    return checking.check_loaded(
        lambda: in_memory.from_memory(source, args, kwargs, dynamic_shapes, request, data),
        options,
        observer=observer,
    )
