"""The documentation says what is so: its commands run, its tables are whole, its links resolve.

Blocks are marked by a comment right above them:

``<!-- run -->``
    A ``console`` block: each ``$ `` line is run (``> `` continues it), what it prints on both
    streams is compared with the lines below it. A ``python`` block: run as a script.
``<!-- output -->``
    What the Python block before it prints.
``<!-- file: NAME -->``
    Written to NAME before the blocks after it run.

The blocks of one page run in order in one folder. In what they print, ``...`` stands for any
text, and numbers that depend on the machine (fractions, sizes in bytes) for any number.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import torch2mobile
from torch2mobile import records, sampling
from torch2mobile.cli import cli
from torch2mobile.errors import ExitCode, InputError
from torch2mobile.exporter.loading import inputs
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.sample_models import SAMPLES
from torch2mobile.validators.parity import channels, probes, tolerance

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>run|output|file: (?P<name>\S+)) -->\n)?"
    r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
SEPARATOR = "--- torch2mobile docs ---"


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```[ \t]*$", "", text, flags=re.MULTILINE | re.DOTALL)


def sections(text: str, level: int = 2) -> dict[str, str]:
    """The text under each heading of a level, by the heading's text without backticks."""
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return {
        heading.replace("`", "").strip(): body
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows, without headers; a cell may hold an escaped bar."""
    found: list[list[str]] = []
    header = False
    for line in text.splitlines():
        if not line.startswith("|"):
            header = False
        elif re.fullmatch(r"\|[\s|:-]+\|", line):
            header = True
        elif header:
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found.append([cell.strip().replace(r"\|", "|") for cell in cells])
    return found


def code(cell: str) -> str:
    """The first piece of code in a cell."""
    match = re.search(r"`([^`]+)`", cell)
    assert match, f"no code in {cell!r}"
    return match[1]


# --- blocks that run --------------------------------------------------------------------------


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, with the output that is shown below it."""
    command: list[str] = []
    shown: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield "\n".join(command), "\n".join(shown)
            command, shown = [line[2:]], []
        elif line.startswith("> ") and not shown:
            command.append(line[2:])
        else:
            shown.append(line)
    if command:
        yield "\n".join(command), "\n".join(shown)


# What the processor has a say in: sizes of files, errors, and where the worst of them stands.
MACHINES = (
    (r"\b\d[\d,]* (KiB|bytes)", r"0 \1"),
    (r"(worst (?:error|difference)|float32 noise) [\d.e+-]+", r"\1 0.0"),
    (r"at \d+ of (\d+)", r"at 0 of \1"),
    (r"at \[\d+(?:, \d+)*\]", "at [0]"),
    (r"-?\b\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)", "0.0"),
)


PROGRESS = re.compile(r"(\[ *\d+ s\] )?[a-z ]+ \.\.\.")


def plain(text: str) -> str:
    """Text in which machine-dependent numbers, white space and progress lines do not differ."""
    kept = [line for line in text.splitlines() if not PROGRESS.fullmatch(line)]
    text = " ".join(" ".join(kept).split())
    for pattern, replacement in MACHINES:
        text = re.sub(pattern, replacement, text)
    return text


def same(shown: str, printed: str) -> bool:
    pieces = [re.escape(piece.strip()) for piece in plain(shown).split("...")]
    return re.fullmatch(r"\s*.*\s*".join(pieces), plain(printed)) is not None


def shims(folder: Path) -> dict[str, str]:
    """An environment in which ``torch2mobile`` and ``python`` are those under test."""
    tools = folder / "bin"
    tools.mkdir()
    for name, words in (("torch2mobile", "-m torch2mobile"), ("python", "")):
        script = tools / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        script.chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "100"}


def run_console(text: str, folder: Path, environment: dict[str, str]) -> list[str]:
    """What each command of a block prints; ``$?`` is the exit code of the one before."""
    script = "status=0\n"
    for command, _ in commands(text):
        script += f"(exit $status)\n{command}\nstatus=$?\necho; echo '{SEPARATOR}'\n"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout.split(SEPARATOR)[:-1]


def run_python(text: str, folder: Path, environment: dict[str, str]) -> str:
    script = folder / "block.py"
    script.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs_time(page: Path) -> bool:
    """Whether a page's blocks load torch."""
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        run = block["mark"] == "run"
        if run and (block["language"] == "python" or re.search("export|against", block["text"])):
            return True
    return False


def runnable() -> list[Any]:
    marked = [page for page in PAGES if "<!-- run -->" in page.read_text(encoding="utf-8")]
    return [
        pytest.param(page, id=page_id(page), marks=[pytest.mark.slow] if needs_time(page) else [])
        for page in marked
    ]


@pytest.mark.skipif(os.name != "posix", reason="the blocks are for a POSIX shell")
@pytest.mark.parametrize("page", runnable())
def test_blocks_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    environment = shims(tmp_path)
    folder = tmp_path / "work"
    folder.mkdir()
    printed = ""
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        if block["name"]:
            (folder / block["name"]).write_text(block["text"], encoding="utf-8")
        elif block["mark"] == "output":
            assert same(block["text"], printed), printed
        elif block["mark"] == "run" and block["language"] == "python":
            printed = run_python(block["text"], folder, environment)
        elif block["mark"] == "run":
            assert block["language"] == "console", block["text"]
            outputs = run_console(block["text"], folder, environment)
            for (command, shown), output in zip(commands(block["text"]), outputs, strict=True):
                assert same(shown, output), f"$ {command}\n{output}"
    for picture in folder.glob("*.png"):
        check_picture(picture, DOCS / "images" / picture.name)


def check_picture(made: Path, kept: Path) -> None:
    """The picture in the documentation is what its code makes, but for rounding."""
    numpy = pytest.importorskip("numpy")
    image = pytest.importorskip("PIL.Image")
    first, second = (numpy.asarray(image.open(path).convert("RGB"), float) for path in (made, kept))
    assert first.shape == second.shape
    assert abs(first - second).mean() < 1


def test_the_blocks_of_all_pages_are_well_formed() -> None:
    """A mark that is misspelt, or not right above its block, would silently run nothing."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        marks = re.findall(r"<!--.*?-->", text, re.DOTALL)
        used = [block["mark"] for block in FENCE.finditer(text) if block["mark"]]
        assert len(marks) == len(used), page
        assert text.count("\n```") % 2 == 0, page


def test_shown_output_may_differ_only_where_it_says_so() -> None:
    shown = "18 probes, worst error 8.3e-09\n... (12 files, 9 KiB)"
    assert same(shown, "18 probes, worst error 0 (12 files, 12 KiB)")
    assert not same(shown, "18 probes, worst error 0 (11 files, 9 KiB)")
    assert not same("18 probes", "17 probes")
    assert not same("PASSED", "FAILED")
    assert list(commands("$ a \\\n> b\nx\ny\n$ c\n")) == [("a \\\nb", "x\ny"), ("c", "")]


# --- links, paths, pictures -------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_pages_name_no_folder_of_a_build_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(work|home|root|tmp|Users)/", text)


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in seen:
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#:]+\.md)(?:#[^)]*)?\)", page.read_text("utf-8"))
        queue += [(page.parent / link).resolve() for link in links]
    assert not set(PAGES) - seen


def test_pictures_are_small() -> None:
    for picture in (DOCS / "images").iterdir():
        assert picture.stat().st_size < 150_000, picture


# --- reference --------------------------------------------------------------------------------


def flags_of(row: list[str]) -> set[str]:
    """The flags, or the argument, that a row of an options table is about."""
    return set(re.findall(r"`([^`\s]+)[^`]*`", row[0]))


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_and_option_is_in_the_cli_reference(name: str) -> None:
    section, command = sections(read("reference/cli.md"))[name], cli.commands[name]
    context = click.Context(command)
    table = rows(section)
    wanted: set[str] = set()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            flags = {*parameter.opts, *parameter.secondary_opts}
            check_option(parameter, next(row for row in table if flags_of(row) == flags))
            wanted |= flags
        else:
            wanted.add(parameter.make_metavar(context))
    assert set().union(*map(flags_of, table)) == wanted
    assert f"torch2mobile {name} {' '.join(command.collect_usage_pieces(context))}\n" in section


def check_option(option: click.Option, row: list[str]) -> None:
    """The metavar or choices, the default, and whether it may be repeated."""
    meaning = row[1]
    if isinstance(option.type, click.Choice):
        assert all(f"`{choice}`" in meaning for choice in option.type.choices), option
    elif option.metavar:
        assert option.metavar in row[0], option
    default = option.default
    if option.show_default:
        (shown,) = default if option.multiple else [default]
        shown = f"{shown:g}" if isinstance(shown, float) else str(shown)
        assert f"Default `{shown}`" in meaning, option
    assert ("Repeatable" in meaning) == option.multiple, option


def test_the_cli_reference_lists_no_other_commands() -> None:
    assert set(sections(read("reference/cli.md"))) - set(cli.commands) <= {
        "Common options",
        "Shell completion",
        "Environment",
    }


def test_exit_codes() -> None:
    assert [int(row[0]) for row in rows(read("reference/exit-codes.md"))] == list(ExitCode)
    readme = sections((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [int(row[0]) for row in rows(readme["Exit codes"])] == list(ExitCode)


def test_samples() -> None:
    found = {code(row[0]): row for row in rows(read("reference/samples.md"))}
    assert list(found) == [f"sample:{name}" for name in SAMPLES]
    for name, sample in SAMPLES.items():
        row = found[f"sample:{name}"]
        assert row[1] == str(sample.expect_exit), name
        assert row[2].startswith(sample.title.removeprefix("Awkward: ").split(",")[0][:12]), name
        assert not sample.expect_line or sample.expect_line in row[3], name


def test_targets() -> None:
    text = read("reference/targets.md")
    variants, _, limits = text.partition("\ntarget  ")
    listed = re.findall(r"^([a-z\d-]+) {2,}.* float(?:16|32)  ", variants, re.MULTILINE)
    assert listed == [variant.label for target in TARGETS.values() for variant in target.variants]
    listed = re.findall(r"^([a-z]+) {2,}", limits.partition("```")[0], re.MULTILINE)
    assert listed == list(TARGETS)
    table = rows(sections(text)["The targets"])
    assert [(code(row[0]), row[1]) for row in table] == [(n, t.title) for n, t in TARGETS.items()]


def fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        *(
            ("report", kind)
            for kind in (
                records.Report,
                records.Check,
                records.Mismatch,
                records.Table,
                records.Location,
                records.Request,
                records.ParityOptions,
                records.Tolerance,
            )
        ),
        *(
            ("bundle", kind)
            for kind in (
                records.Manifest,
                records.InputSpec,
                records.Dim,
                records.Values,
                records.OutputSpec,
                records.GoldenCase,
                records.StateEntry,
                records.Fingerprint,
                records.FileEntry,
            )
        ),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_field_of_the_json_is_in_the_reference(page: str, kind: Any) -> None:
    table = rows(sections(read(f"reference/{page}.md"), level=3)[kind.__name__])
    assert [code(row[0]) for row in table] == fields(kind)


def test_statuses() -> None:
    table = rows(sections(read("reference/report.md"))["Statuses"])
    assert [code(row[0]) for row in table] == [status.value for status in records.Status]


def test_every_function_of_the_api_is_in_the_reference() -> None:
    text = sections(read("reference/api.md"))
    for name in torch2mobile.__all__:
        assert name in text
        member = getattr(torch2mobile, name)
        if not inspect.isclass(member):
            for parameter in inspect.signature(member).parameters:
                assert re.search(rf"`[^`]*\b{parameter}\b[^`]*`", text[name]), (name, parameter)
        else:
            for field in fields(member):
                assert f"`{field}`" in text[name], (name, field)


# --- the grammar ------------------------------------------------------------------------------


def grammar(heading: str) -> list[list[str]]:
    return rows(sections(read("reference/input-grammar.md"))[heading])


def test_the_grammars_examples_are_read() -> None:
    for row in grammar("Examples of inputs"):
        inputs.parse_input(code(row[0]))
    for row in grammar("Examples of values"):
        inputs.parse_values(code(row[0]))


def test_the_grammars_errors_are_raised() -> None:
    table = grammar("Errors")
    assert len(table) > 8
    for row in table:
        flag, *texts = re.findall(r"'([^']+)'", code(row[0])) or [""]
        specs = [flag, *texts]
        values = [
            text
            for text in specs
            if re.match(r"\w+=(?:[\d.]+\.\.|uniform|normal|padd|lengths)", text)
        ]
        with pytest.raises(InputError) as caught:
            inputs.resolve([text for text in specs if text not in values], values)
        assert code(row[1]) in caught.value.message, row


def test_the_dtypes_of_the_grammar() -> None:
    with pytest.raises(InputError) as caught:
        inputs.parse_input("x:nonsense[1]")
    known = re.search(r"There is: (.*)\.", caught.value.remedy)
    assert known
    listed = [name for row in grammar("Dtypes") for name in re.findall(r"`([^`]+)`", " ".join(row))]
    assert set(listed) == set(known[1].split(", "))


# --- explanation and decisions ----------------------------------------------------------------


def test_the_parity_page_gives_the_numbers_of_the_code() -> None:
    text = read("explanation/parity.md")
    assert f"{tolerance.FACTOR:g} * noise" in text
    assert f"{channels.SCALE_STEP:g} times" in text
    assert f"fewer than {tolerance.FEW} values" in text
    usual = {code(row[0]): row[1:] for row in rows(sections(text)["Without a truth"])}
    assert usual == {
        name: [f"{allowed.rtol:g}", f"{allowed.atol:g}"]
        for name, allowed in tolerance.USUAL.items()
    }
    kinds = [code(row[0]) for row in rows(sections(text)["The probes"])]
    assert kinds == list(sampling.VALUE_KINDS)
    assert f"{probes.ELEMENT_BUDGET:,} elements" in text


def decisions() -> list[Path]:
    return sorted((DOCS / "decisions").glob("[0-9]*.md"))


def test_decisions_are_numbered_short_and_of_one_form() -> None:
    numbers = [int(path.name[:4]) for path in decisions()]
    assert numbers == sorted(set(numbers))
    for path in decisions():
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]}. "), path
        assert list(sections(text)) == ["Context", "Decision", "Consequences"], path
        assert len(text.splitlines()) < (40 if path.name.startswith("0001") else 25), path


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    needed = [*project["dependencies"], *(line for extra in extras for line in extra)]
    names = {re.split(r"[<>=!~;\[ ]", text)[0] for text in needed}
    table = rows(decisions()[0].read_text(encoding="utf-8"))
    assert {name for row in table for name in re.findall(r"`([^`]+)`", row[0])} == names


def test_the_changelog_has_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{torch2mobile.__version__}]" in changelog
