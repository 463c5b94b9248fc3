"""A file of ONNX Runtime's in a process of its own, on any device, which shows its inside."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.isolation import IsolatedRunner

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.exporter.targets.ort_inside import Inside
    from torch2mobile.records import Layer


class OpenedRunner(IsolatedRunner):
    """An :class:`torch2mobile.isolation.IsolatedRunner` whose file is made again with all values.

    The copy is run in the same environment, and by the same loader, as the file is.
    """

    @property
    def _path(self) -> Path:
        return next(each for each in self._args if isinstance(each, Path))

    @cached_property
    def _inside(self) -> Inside:
        from torch2mobile.exporter.targets.ort_inside import inside

        return inside(self._path)

    def layers(self) -> tuple[Layer, ...]:
        """The inputs and nodes that lead to the outputs, in the file's order."""
        return self._inside.layers

    def values(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Inner values by their names."""
        with tempfile.TemporaryDirectory(prefix="torch2mobile-") as folder:
            copy = Path(folder) / self._path.name
            copy.write_bytes(self._inside.data)
            args = [copy if each == self._path else each for each in self._args]
            other = IsolatedRunner(
                self._loader, *args, timeout=self._timeout, environment=self._environment
            )
            with other:
                found = {**feeds, **dict(other.run(feeds))}
        return {name: found[name] for name in names}
