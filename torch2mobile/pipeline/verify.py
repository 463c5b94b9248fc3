"""Is it still the same function? A bundle replayed without torch, or a file against its source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.environments import Worker
from torch2mobile.exporter.targets.mlpackage import model_in
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.pipeline import consistency
from torch2mobile.pipeline.replay import verify_bundle
from torch2mobile.pipeline.results import VerifyResult
from torch2mobile.records import Match, Request, Scrutiny

if TYPE_CHECKING:
    from torch2mobile.pipeline.io_binding import Loader


def verify(
    path: Path,
    request: Request,
    *,
    load: Loader | None = None,
    baseline: Path | None = None,
    scrutiny: Scrutiny | None = None,
    observer: Observer | None = None,
    match: Match | None = None,
    worker: Worker | None = None,
) -> VerifyResult:
    """A bundle on its golden data, or a bundle or file beside the module that is named or loaded.

    ``match`` says how the names of a file's inputs and outputs are taken: as part of its contract
    (``"name"``), or for a file from elsewhere by ``"position"``. ``worker`` is a process for the
    golden data, for a caller who has started one ahead of time.
    """
    asked, path = scrutiny or Scrutiny(), model_in(path)
    alone = load is None and not request.source
    consistency.check_verification(path, request, asked, baseline, match, alone=alone)
    if alone:
        return verify_bundle(
            path,
            request=request,
            baseline=baseline,
            observer=observer,
            worker=worker,
        )
    from torch2mobile.pipeline import against

    return against.verify_against(
        path, request, load, baseline, asked, observer or SilentObserver(), match or "name"
    )
