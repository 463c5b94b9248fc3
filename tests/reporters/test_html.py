from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

from torch2mobile.records import Check, Location, Report, Status, Table
from torch2mobile.reporters import REPORTERS

CELL = 'style="text-align:left;vertical-align:top;padding:2px 12px 2px 0"'
BELOW = '<div style="margin-left:1em;white-space:pre-wrap">'
RED = '<strong style="color:#d9363e">'

EXPECTED = f"""\
<div class="torch2mobile-report">
<p><strong>export sample:super_resolution</strong></p>
<table>
<thead>
<tr><th {CELL}>status</th><th {CELL}>check</th><th {CELL}>summary</th></tr>
</thead>
<tbody>
<tr><td {CELL}><strong style="color:#2e8b57">PASSED</strong></td><td {CELL}>capture</td>\
<td {CELL}>torch.export, non-strict\
{BELOW}note: the output &#x27;aux&#x27; is None and was dropped</div></td></tr>
<tr><td {CELL}>{RED}FAILED</strong></td><td {CELL}>parity [ort]</td>\
<td {CELL}>2 of 24 outputs differ: the file on the phone is another function than the module\
{BELOW}output image, probe normal (H=65, W=33): values differ
  at [0, 0, 3, 4]: expected 0.5, actual 0.75, allowed 1.2e-06
  would have passed with atol=0.251 or rtol=0.5 on the module&#x27;s own output
output image, probe negative: NaN against a number
  at [0, 0, 0, 0]: expected -0.375, actual nan
  no tolerance lets this pass
output logits: the output is missing
at models/net.py:12  return torch.nn.functional.hardswish(x)
  module encoder.layers.0, op HardSwish, node node_hardswish
at op Relu, node node_relu
hint: Compare the operator below with the one in the module.
  Then export again.</div></td></tr>
<tr><td {CELL}>{RED}ERROR</strong></td><td {CELL}>contract [ort]</td>\
<td {CELL}>the worker process was killed by SIGSEGV\
{BELOW}hint: Run again with --debug.</div></td></tr>
<tr><td {CELL}><strong style="color:#b8860b">SKIPPED</strong></td><td {CELL}>parity [ncnn]</td>\
<td {CELL}>ncnn is not installed{BELOW}hint: pip install ncnn pnnx</div></td></tr>
</tbody>
</table>
<p>{RED}FAILED: 1 failed, 1 error, 1 passed, 1 skipped</strong></p>
</div>
"""


class Tags(HTMLParser):
    """The start tags and attributes of a page; fails where end tags do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert not tags.open
    return tags


def test_exact_output(canned: Report) -> None:
    assert REPORTERS["html"](canned) == EXPECTED
    assert REPORTERS["html"](canned, colour=True) == EXPECTED


def test_nothing_from_a_model_becomes_markup() -> None:
    nasty = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;\x1b[0m"
    check = Check(
        name=nasty,
        status=Status.FAILED,
        summary=nasty,
        target=nasty,
        hint=nasty,
        locations=(Location(nasty, nasty, 1, nasty, nasty, nasty),),
        notes=(nasty,),
    )
    text = REPORTERS["html"](Report(command=nasty, subject=nasty, checks=(check,)))
    tags = parsed(text)
    assert tags.found == {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert tags.attributes == {"class", "style"}
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&gt;&lt;img" in text
    assert "&amp;amp;" in text


def test_the_fragment_is_ascii_so_that_a_page_of_any_encoding_can_hold_it(canned: Report) -> None:
    text = REPORTERS["html"](replace(canned, subject="Größe \udc80 超解像"))
    assert text.isascii()
    assert r"Gr&#246;&#223;e \udc80 &#36229;" in text


def test_tables_are_tables() -> None:
    table = Table("by <output>", ("output", "error"), (("<b>", 0.25), ("a", None)))
    check = Check("parity", Status.PASSED, "good", tables=(table,))
    text = REPORTERS["html"](Report(command="verify", subject="x", checks=(check,)))
    assert parsed(text).open == []
    assert "<caption>by &lt;output&gt;</caption>" in text
    assert f"<tr><td {CELL}>&lt;b&gt;</td><td {CELL}>0.25</td></tr>" in text
    assert f"<tr><td {CELL}>a</td><td {CELL}>-</td></tr>" in text


def test_a_report_without_checks_has_no_table() -> None:
    text = REPORTERS["html"](Report(command="verify", subject="x", checks=()))
    assert "table" not in parsed(text).found
    assert "ERROR: nothing was checked" in text
