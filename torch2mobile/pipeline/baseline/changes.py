"""What differs between two bundles, and from them to this machine: read from their manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from torch2mobile.errors import some_of
from torch2mobile.records import (
    Dim,
    Fingerprint,
    Manifest,
    Request,
    Table,
)
from torch2mobile.validators.parity.attribution import UNKNOWN, Change, Changes, Kind

# Fields of a request that change neither the file nor the inputs on which it was proven. The source
# and the weights' file are only names; what is in them has hashes.
_NO_MATTER = ("source", "weights", "simplify_timeout", "parity")


@dataclass(frozen=True)
class Here:
    """Where both files are run: versions of the tools, the machine, and the module if it is given.

    Without the module, weights, source and torch are those of the bundle that is verified.
    """

    versions: Mapping[str, str]
    machine: Mapping[str, str]
    weights: Fingerprint | None = None
    sources: Fingerprint | None = None
    source: str = ""


def changes_between(earlier: Manifest, bundle: Manifest, here: Here) -> Changes:
    """All that is not as it was when the earlier bundle was made."""
    return Changes(
        (
            *_runtime(earlier, bundle, here),
            *_tools(earlier, bundle, here),
            *_weights(earlier.weights, here.weights or bundle.weights),
            *_sources(earlier.sources, here.sources or bundle.sources),
            *_attribute(earlier.source, here.source or bundle.source),
            *_request(earlier.request, bundle.request),
        )
    )


def _runtime(earlier: Manifest, bundle: Manifest, here: Here) -> Iterator[Change]:
    name = "onnxruntime"
    then, made, now = (each.versions.get(name, UNKNOWN) for each in (earlier, bundle, here))
    if then != now:
        yield Change("runtime", name, then, made, now)
    if not earlier.machine:
        yield Change("runtime", "machine", UNKNOWN, None, " ".join(here.machine.values()))
        return
    for key, value in here.machine.items():
        old = earlier.machine.get(key, UNKNOWN)
        if old != value:
            said = f"the machine ({key} {old or 'none'} -> {value or 'none'})"
            yield Change("runtime", f"machine: {key}", old, None, value, said=said)


def _tools(earlier: Manifest, bundle: Manifest, here: Here) -> Iterator[Change]:
    for name in dict.fromkeys([*earlier.versions, *bundle.versions]):
        then, made = (each.versions.get(name, UNKNOWN) for each in (earlier, bundle))
        is_torch = name == "torch"
        now = here.versions.get(name, UNKNOWN) if is_torch and here.weights else None
        if then != made or (now is not None and then != now):
            yield Change("torch" if is_torch else "tool", name, then, made, now)
    for name in ("opset", "simplified", "strategy"):
        then, made = (_text(getattr(each, name)) for each in (earlier, bundle))
        if then != made:
            yield Change("tool", name, then, made)


def _weights(then: Fingerprint, now: Fingerprint) -> Iterator[Change]:
    if then.sha256 and then.sha256 == now.sha256:
        return
    every = {**then.parts, **now.parts}
    if not then.sha256 or not now.sha256:
        if every:
            yield Change("weights", "weights", UNKNOWN, _short(now))
        return
    changed = [name for name in every if then.parts.get(name) != now.parts.get(name)]
    said = f"{len(changed)} of {len(every)} weights ({some_of(changed)})"
    yield Change("weights", "weights", _short(then), _short(now), said=said)


def _sources(then: Fingerprint, now: Fingerprint) -> Iterator[Change]:
    if then.sha256 == now.sha256 and then.sha256:
        return
    if not then.sha256 or not now.sha256:
        if then.sha256 or now.sha256:
            yield Change("source", "source", UNKNOWN, _short(now))
        return
    old, new = set(then.parts.values()), set(now.parts.values())
    names = [name for name, digest in now.parts.items() if digest not in old]
    names += [n for n, digest in then.parts.items() if digest not in new and n not in names]
    said = f"source of {some_of(names)}"
    yield Change("source", "source", _short(then), _short(now), said=said)


def _attribute(then: str, now: str) -> Iterator[Change]:
    # The file or package before the colon may only have moved: its hash says whether it changed.
    (_, old_colon, old), (_, new_colon, new) = then.rpartition(":"), now.rpartition(":")
    if old_colon and new_colon and old != new:
        yield Change("source", "attribute", old, new, said=f"the attribute ({old} -> {new})")


def _request(then: Request | None, now: Request | None) -> Iterator[Change]:
    if then is None or now is None:
        if then is not now:
            yield Change("request", "request", UNKNOWN, "as in manifest.json")
        return
    for field in fields(Request):
        if field.name not in _NO_MATTER:
            old, new = _text(getattr(then, field.name)), _text(getattr(now, field.name))
            if old != new:
                yield Change("request", f"request: {field.name}", old, new)
    if then.parity.seed != now.parity.seed:
        yield Change("request", "request: seed", str(then.parity.seed), str(now.parity.seed))


def _short(print_: Fingerprint) -> str:
    return print_.sha256[:12] or UNKNOWN


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "default" if value is None else str(value)


def table_of(changes: Changes) -> Table:
    """The changes as a table, each thing once."""
    by_name: dict[str, Change] = {}
    for change in changes.found:
        by_name.setdefault(change.what, change)
    rows = tuple((c.what, c.then, c.bundle, c.here) for c in by_name.values())
    return Table("what changed", ("what", "earlier bundle", "this bundle", "here"), rows)


def named(changes: Changes) -> str:
    """What changed, in a few words for a summary."""
    running = {change.what for change in changes.of("runtime")}
    twice = [change for change in changes.of("tool") if change.what in running]
    groups: dict[Kind, str] = {
        "runtime": "onnxruntime or machine",
        "torch": "torch",
        "tool": "other tools",
        "weights": "weights",
        "source": "source",
        "request": "request",
    }
    known = {change.kind for change in changes.found if change.known and change not in twice}
    return ", ".join(text for kind, text in groups.items() if kind in known)


def interface_of(manifest: Manifest) -> dict[str, str]:
    """By input and output, in order, what an app has to know of it."""
    inputs = {f"input {s.name}": (s.dtype, [_range(d) for d in s.dims]) for s in manifest.inputs}
    outputs = {f"output {s.name}": (s.dtype, list(s.dims)) for s in manifest.outputs}
    return {name: f"{dtype} {dims}" for name, (dtype, dims) in {**inputs, **outputs}.items()}


def _range(dim: Dim) -> int | str:
    """A dimension with the sizes that were proven: a narrower range is another promise."""
    if dim.symbol is None or dim.others or (dim.least is None and dim.greatest is None):
        return dim.label
    ends = ("" if end is None else str(end) for end in (dim.least, dim.greatest))
    return f"{dim.label}={'..'.join(ends)}"
