"""Real inputs, ``--data``: arrays, images and text, as cases with an array for every input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile import limits, sampling, sizing
from torch2mobile.errors import InputError, ModelFileError, UsageError, near_path, reason_of
from torch2mobile.exporter.loading import images, npz, preprocessing, text
from torch2mobile.exporter.loading.fitting import grouped, spread
from torch2mobile.exporter.loading.preprocessing import Preprocessing
from torch2mobile.records import InputSpec, RealCase, Request

if TYPE_CHECKING:
    import torch

Case = Mapping[str, np.ndarray]
Given = Sequence[Case | str | Path]
# So many cases are made of one folder or file: each of them is run many times.
_MOST = 64
# So many of the files that are left out are named.
_SHOWN = 3


@dataclass(frozen=True)
class Own:
    """What a model says itself of images and text: the text of ``--preprocess``, a tokenizer.

    None is something else of that name, such as a function.
    """

    preprocess: str | None = ""
    tokenizer: str | None = ""


@dataclass(frozen=True)
class Real:
    """Cases of real inputs, and what they were made of."""

    cases: tuple[Case, ...] = ()
    notes: tuple[str, ...] = ()


def read(
    request: Request,
    module: torch.nn.Module,
    specs: Sequence[InputSpec],
    own: Own | None = None,
    given: Given = (),
) -> Real:
    """What ``--data`` names, all within one budget, as cases for these inputs.

    Of a folder each ``.npz`` is a case, all ``.npy`` together are one, and each image is one.
    ``given`` are paths and arrays in place of the request's. Raises UsageError for what cannot be
    read, fits no input, or is said of no data at all.
    """
    items = given or request.data
    _refuse_unused(request, items)
    reader = _Reader(request, module, specs, own or Own())
    cases: list[Case] = []
    for item in items:
        cases += reader.cases(_found(item)) if isinstance(item, str | Path) else [item]
    for option, asked, used in (
        ("preprocess", request.preprocess, reader.seen),
        ("tokenizer", request.tokenizer, reader.read),
    ):
        if asked and not used:
            kind = "images" if option == "preprocess" else "text"
            reader.notes.append(f"--{option} is for {kind}, and --data has none")
    return Real(tuple(cases), tuple(reader.notes))


def _refuse_unused(request: Request, items: Given) -> None:
    """UsageError for what is said of images or text and cannot be read, or with no path of any."""
    if request.preprocess:
        preprocessing.parse(request.preprocess)
    if request.tokenizer and not _exists(request.tokenizer, "--tokenizer"):
        raise UsageError(
            f"there is no file {request.tokenizer}",
            near_path(Path(request.tokenizer), "Check the path given to --tokenizer."),
        )
    if any(isinstance(item, str | Path) for item in items):
        return
    for option in ("preprocess", "tokenizer"):
        if getattr(request, option):
            kind = "images" if option == "preprocess" else "text"
            raise UsageError(
                f"--{option} is for {kind}, and --data names none", f"Name {kind}, or leave it out."
            )


def _found(given: str | Path) -> Path:
    """A path of ``--data``; UsageError where there is nothing."""
    if not str(given):
        raise UsageError("--data names an empty path", "Name a file or a folder.")
    if not _exists(given, "--data"):
        remedy = near_path(Path(given), "Check the path given to --data.")
        raise ModelFileError(f"there is no file {given}", remedy)
    return Path(given)


def _exists(given: str | Path, flag: str) -> bool:
    """Whether a file or a folder is there; UsageError for what cannot be a path, or not be seen."""
    try:
        Path(given).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{flag} {str(given)[:40]!r} cannot be opened: {reason_of(error)}", "Check the path."
        ) from error
    return True


class _Reader:
    """Reads paths one by one, and notes what it made of them."""

    def __init__(
        self, request: Request, module: torch.nn.Module, specs: Sequence[InputSpec], own: Own
    ) -> None:
        self._module, self._specs, self._own = module, specs, own
        self._preprocess, self._tokenizer = request.preprocess, request.tokenizer
        self._budget = limits.Budget()
        self._rng = np.random.default_rng([request.parity.seed, 7])
        self.notes: list[str] = []
        self.seen = self.read = False

    def cases(self, path: Path) -> list[Case]:
        """The cases of one file or folder."""
        if not path.is_dir():
            kind = path.suffix.lower()
            if kind == text.SUFFIX:
                return self._texts(path)
            if kind in images.SUFFIXES:
                return self._images(path, [path])
            return [npz.load_npz(path, self._budget)]
        return self._folder(path)

    def _folder(self, path: Path) -> list[Case]:
        """The cases of a folder's files, and a note of what else is in it."""
        try:
            there = [entry for entry in sorted(path.iterdir()) if entry.name[0] != "."]
        except OSError as error:
            raise UsageError(
                f"the folder {path} cannot be read: {error.strerror}", "Check its permissions."
            ) from error
        kinds: dict[str, list[Path]] = {"npz": [], "npy": [], "images": [], "other": []}
        for entry in there:
            kinds[_kind(entry)].append(entry)
        archives, pictures = kinds["npz"], kinds["images"]
        chosen = spread(archives, _MOST // 2 if pictures else _MOST)
        found: list[Case] = [*npz.of_files([*chosen, *kinds["npy"]], self._budget)]
        if len(chosen) < len(archives):
            self._note(f"real inputs: {len(chosen)} of {len(archives):,} .npz files of {path}")
        if pictures:
            found += self._images(path, pictures, _MOST - len(found))
        if not found:
            raise ModelFileError(
                f"the folder {path} holds neither images nor .npz or .npy files",
                "Put images into it, an .npz for each example, or one .npy for each input. Folders "
                "in it are not looked into, and a .txt is named itself.",
            )
        if kinds["other"]:
            self._note(f"left out of {path}: {_named(kinds['other'])}")
        return found

    def _images(self, path: Path, files: Sequence[Path], most: int = 1) -> list[Case]:
        """A case for each image, or for as many as the least batch has."""
        self.seen = True
        said, flag = self._preprocess, "--preprocess"
        if not said:
            said, flag = self._own.preprocess or "", "the model's own preprocessing"
            if self._own.preprocess is None:
                self._note("PREPROCESS beside the model is no text of --preprocess: left out")
        how = preprocessing.parse(said, flag) if said else Preprocessing()
        spec, layout = images.place(self._specs, how.input, str(path))
        batched = len(spec.dims) == 4
        count = max(1, spec.dims[0].ends[0]) if batched else 1
        chosen = spread(files, most * count)
        pixels = [images.read(file, spec, layout, how, self._budget) for file in chosen]
        sizes = sorted({each.shape[layout.rows - batched :][:2] for each in pixels})
        cases = []
        for number, group in enumerate(grouped(pixels, count)):
            if len({each.shape for each in group}) > 1:
                raise InputError(
                    f"the images of {path} have several sizes, and {count} of them are one batch",
                    "Give them one size: --preprocess 'resize=224x224'.",
                )
            array = np.stack(group) if batched else group[0]
            origin = chosen[number * count].name
            cases.append(self._completed({spec.name: array}, path, origin))
        whose = "the model's own " if said and said == self._own.preprocess else ""
        if spec.dtype != "uint8":
            how = replace(how, scale=how.scale or (0, 1))
        shown = " to ".join(f"{h} x {w}" for h, w in dict.fromkeys((sizes[0], sizes[-1])))
        self.notes.append(
            f"real inputs: {_counted(chosen, files, path)} as {spec.name}, {shown}: {whose}{how}"
        )
        return cases

    def _texts(self, path: Path) -> list[Case]:
        """A case for each batch of lines."""
        self.read = True
        file = self._tokenizer or self._own.tokenizer
        if not file:
            raise InputError(
                f"{path} is text, and nothing says how it becomes numbers",
                "Give the model's tokenizer: --tokenizer tokenizer.json."
                + (" TOKENIZER beside it is no path." if self._own.tokenizer is None else ""),
            )
        roles = text.roles(self._specs, str(path))
        tokens = text.Tokens(Path(file))
        cases, what = text.batches(path, roles, tokens, self._module, _MOST, self._budget)
        whose = "" if self._tokenizer else "the model's own "
        names = ", ".join(cases[0])
        self.notes.append(f"real inputs: {what} as {names}, by {whose}{Path(file).name}")
        return [self._completed(case, path, case.origin) for case in cases]

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _completed(self, case: Case, path: Path, origin: str) -> Case:
        """The case with values drawn for the inputs that it lacks, where they are declared."""
        known = [spec for spec in self._specs if spec.name in case]
        found = sizing.sizes_of(known, {name: array.shape for name, array in case.items()})
        sizes = {**sizing.example_sizes(self._specs), **found}
        drawn = {}
        for spec in self._specs:
            if spec.name in case:
                continue
            empty = any(dim.at(sizes) == 0 for dim in spec.dims)
            if spec.values is None and not empty:
                raise InputError(
                    f"{path} gives {', '.join(case)}, and nothing for the input {spec.name!r}",
                    f"Declare what it can be, e.g. --values '{spec.name}=0..1', or give all inputs "
                    "in an .npz.",
                )
            drawn[spec.name] = sampling.draw(spec, sizes, "example", self._rng)
        return RealCase({**case, **drawn}, origin)


def _kind(entry: Path) -> str:
    """What a file of a folder is read as."""
    kind = entry.suffix.lower()
    if not entry.is_file():
        return "other"
    return (
        "images" if kind in images.SUFFIXES else {".npz": "npz", ".npy": "npy"}.get(kind, "other")
    )


def _named(entries: Sequence[Path]) -> str:
    """The first of what is in a folder, and how many there are besides."""
    names = [entry.name + "/" * entry.is_dir() for entry in entries[:_SHOWN]]
    more = len(entries) - _SHOWN
    return ", ".join(names) + (f" and {more:,} more" if more > 0 else "")


def _counted(chosen: Sequence[Path], files: Sequence[Path], path: Path) -> str:
    if files == [path]:
        return str(path)
    some = f"{len(chosen)} of " if len(chosen) < len(files) else ""
    return f"{some}{len(files):,} image{'s' * (len(files) > 1)} of {path}"
