"""The report as a page: what it says, that it is safe to open whatever a trainer prints, and where it comes from."""

import base64
import hashlib
import json
from html.parser import HTMLParser
from importlib.resources import files

import jsonschema
import pytest

from pytest_trainguard.memory.answers import timeline
from pytest_trainguard.memory.answers.verdict import judge_trace
from pytest_trainguard.memory.replay.budget import parse_budget, resolve_budget
from pytest_trainguard.memory.replay.sizes import GIB
from pytest_trainguard.report import cleaning, page, pictures
from pytest_trainguard.report.__main__ import main
from tests import reports
from tests.memory.traces import small_program
from tests.projects import Project

VOID = {"meta", "line", "polyline", "br"}
TITLE = '"><img src=x onerror=alert(1)>'

TRAINER = r"""
from pytest_trainguard import Trainer


class Loud(Trainer):
    sample = "train.jsonl"

    def train(self, run):
        import torch

        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(run.max_steps):
            model(torch.ones(1, 1)).sum().backward()
            optimizer.step()
        print("\x1b[31m<script>alert(1)</script>\x1b[0m \x1b]0;title\x07\x08</pre>&amp; \u202eover")
        print("x" * 100_000)
"""

CASES = f"""
import shutil
from pathlib import Path

from pytest_trainguard import CannotJudge, Finding, NotApplicable, edge_case


def case(number, title, **more):
    told = {{"category": "code", "severity": "loses", "verdict": "survives", "brought_about": "-"}}
    return edge_case(f"own-{{number}}", number=number, title=title, **{{**told, "expects": "keeps quiet", **more}})


@case(1001, {TITLE!r})
def test_own_1001(guard):
    outcome = guard.run("asked it to train", steps=1)
    raise Finding(outcome.did, "it printed <b>much</b>", outcome.output)


@case(1002, "has what it lacks", category="data")
def test_own_1002(trainer):
    raise NotApplicable("no spoon: give it one, spoon = True")


@case(1003, "is too dark", category="model")
def test_own_1003(trainer):
    raise CannotJudge("the lamp is broken", "no light")


@case(1004, "is quiet", category="process")
def test_own_1004(trainer):
    gone = Path(__file__).parent / "gone"
    if gone.is_dir():
        shutil.rmtree(gone)
        gone.write_text("a file now")


@case(1005, "is quiet too", category="process")
def test_own_1005(trainer):
    pass


@case(1006, "lacks a spoon as well", category="data", severity="unclear")
def test_own_1006(trainer):
    raise NotApplicable("no spoon: give it one, spoon = True")
"""


class Page(HTMLParser):
    """A page as a browser would take it: its tags, each text with the tags around it, anchors and links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.ids, self.links, self.attributes = [], [], [], [], [], []
        self.scripts = []
        self.feed(text)
        assert self.open == [], "tags that are never closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name == "href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif data.strip() and self.open[-1] != "style":
            self.texts.append((self.open[-1], " ".join(data.split())))

    @property
    def text(self):
        return " ".join(text for _, text in self.texts)

    def of(self, tag):
        return [text for where, text in self.texts if where == tag]


def schema():
    return json.loads(files("pytest_trainguard.report").joinpath("schema.json").read_text())


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A real preflight that wrote both reports: its result, the page's text, and its folder."""
    project = Project(tmp_path_factory.mktemp("project"), ["loud:Loud"])
    project.write("loud.py", TRAINER)
    project.write("test_own.py", CASES)
    result = project.pytest(
        "-m", "preflight", "--edge-case=1001-1006", "--preflight-report=page.html", "-p", "no:cacheprovider"
    )
    return result, (project.folder / "page.html").read_text(), project.folder


@pytest.fixture(scope="module")
def shown(ran):
    return Page(ran[1])


def test_one_run_writes_both(ran, shown):
    result, _, _ = ran
    assert result.code == 1
    assert result.verdicts("Loud") == {
        1001: "failed", 1002: "not_applicable", 1003: "error", 1004: "passed", 1005: "passed", 1006: "not_applicable",
    }  # fmt: skip
    jsonschema.validate(result.report, schema())
    assert shown.of("h1") == ["NO-GO"]
    assert shown.of("title") == ["NO-GO: preflight of Loud"]
    left = "(of 6 of 86 cases: --edge-case left the others out)"
    assert f"2 passed, 1 failed, 2 not applicable, 1 not judged {left}" in shown.of("p")
    assert result.report["why"] in shown.of("p")
    assert "NO-GO: " + result.report["why"] in result.output


def test_a_failed_case_is_told_whole(shown):
    assert shown.of("h3")[0] == TITLE
    assert f"1001 {TITLE}" in shown.of("h4")
    for label in ("done", "expected", "happened", "output", "reproduce"):
        assert label in shown.of("dt"), label
    assert "asked it to train" in shown.of("dd")
    assert "keeps quiet" in shown.of("dd")
    assert "it printed <b>much</b>" in shown.of("dd")
    assert "pytest -m preflight --trainer Loud --edge-case 1001" in shown.of("pre")
    assert "NO-GO for 1 cause" in shown.of("h2")


def test_what_a_trainer_prints_stays_text(ran, shown):
    words = next(text for text in shown.of("pre") if "alert(1)" in text)
    assert words.startswith("<script>alert(1)</script> </pre>&amp; over")
    assert not {"img", "b", "iframe", "link", "object"} & set(shown.tags)
    assert shown.tags.count("script") == 1
    assert "<b>much" not in ran[1]
    assert not set(ran[1]) & {chr(code) for code in (*range(9), *range(11, 32), 0x7F, 0x202E)}
    assert not [name for name, _ in shown.attributes if name.startswith("on")]


def test_a_flood_of_words_is_cut(ran, shown):
    words = next(text for text in shown.of("pre") if "alert(1)" in text)
    assert " characters left out " in words
    assert len(words) < cleaning.LONGEST + 100
    assert len(ran[1]) < 60_000


def test_it_needs_nothing_beside_itself(ran, shown):
    assert "http" not in ran[1].replace('http-equiv="Content-Security-Policy"', "")
    assert "url(" not in ran[1]
    assert "@import" not in ran[1]
    (script,) = shown.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert ("content", allowed) in shown.attributes
    assert not {"src", "srcset", "data"} & {name for name, _ in shown.attributes}


def test_every_link_leads_somewhere(shown):
    assert shown.links
    assert all(link.startswith("#") for link in shown.links)
    assert {link[1:] for link in shown.links} <= set(shown.ids)
    assert len(shown.ids) == len(set(shown.ids))
    assert len([name for name in shown.ids if name.startswith("case-")]) == 6


def test_the_grid_counts_and_leads_to_the_cases(ran, shown):
    cells = [text for tag, text in shown.texts if tag == "a"]
    assert "2/2" in cells  # process
    assert "0/1" in cells  # code
    assert "2/3 !" in cells  # all, and one that was not judged
    titles = [value for name, value in shown.attributes if name == "title"]
    assert "data: 0 passed, 0 failed, 2 not applicable, 0 not judged" in titles
    assert "model: 0 passed, 0 failed, 0 not applicable, 1 not judged" in titles


def test_what_was_not_judged_and_what_to_add(shown):
    assert "the lamp is broken" in shown.of("dd")
    assert "no light" in shown.of("pre")
    assert shown.of("dt").count("no spoon: give it one, spoon = True") == 1  # both cases under it
    assert {"1002 has what it lacks", "1006 lacks a spoon as well"} <= set(shown.of("span"))


def test_seconds_and_the_five_slowest(ran, shown):
    result, _, _ = ran
    assert len([text for text in shown.of("a") if text.startswith("100") and " " in text]) == 5
    line = next(line for line in result.output.splitlines() if line.startswith("slowest: "))
    assert line.startswith(f"slowest: 1001 {TITLE} ")
    seconds = result.case("Loud", 1001)["seconds"]
    assert f"code, {seconds:.1f} s" in shown.of("span")  # beside the case itself
    assert f"{seconds:.1f} s" in shown.of("td")


def test_the_environment(ran, shown):
    environment = ran[0].report["environment"]
    assert environment["command"].startswith("pytest --basetemp")
    assert environment["seconds"] > 0
    assert environment["command"] in shown.text
    assert environment["platform"] in shown.text
    assert environment["date"].replace("T", " ") in shown.text


def test_the_page_can_be_made_later(ran, tmp_path, capsys):
    _, text, folder = ran
    assert main([str(folder / "report.json"), str(tmp_path / "later.html")]) == 0
    assert (tmp_path / "later.html").read_text() == text
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kept", "out", "said"),
    [
        (None, "page.html", "report.json: No such file or directory"),
        ("{", "page.html", "report.json: no JSON: "),
        ("[1]", "page.html", "report.json: no preflight report"),
        ('{"clearance": "GO", "version": 1}', "page.html", "its version is 1, this program reads 2"),
        ('{"clearance": "GO", "version": 2}', "page.html", "it is not as schema.json says: KeyError: 'cases'"),
        ('{"clearance": "GO", "version": 2}', "page.pdf", "page.pdf: the suffix says what is written: .html"),
    ],
)
def test_bad_input_is_told_in_one_line(tmp_path, capsys, kept, out, said):
    if kept is not None:
        (tmp_path / "report.json").write_text(kept)
    assert main([str(tmp_path / "report.json"), str(tmp_path / out)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1
    assert not (tmp_path / out).exists()


def test_a_report_of_an_earlier_version_of_the_package(ran):
    report = json.loads(json.dumps(ran[0].report))
    del report["why"], report["left_out"], report["notes"]
    for name in ("date", "command", "seconds"):
        del report["environment"][name]
    for case in report["cases"]:
        del case["expects"], case["evidence"], case["framework"]
    jsonschema.validate(report, schema())
    assert "2 passed, 1 failed, 2 not applicable" in Page(page.render_page(report)).of("p")


def test_one_that_cannot_be_written_takes_no_other_with_it(pytester):
    project = Project(pytester.path, ["loud:Loud"])
    project.write("loud.py", TRAINER)
    project.write("test_own.py", CASES)
    (pytester.path / "gone").mkdir()
    result = pytester.runpytest_inprocess(
        "-m", "preflight", "--edge-case=1004,1005", "--preflight-report=gone/page.html", "--preflight-report=kept.html"
    )
    assert result.ret == 4
    result.stdout.fnmatch_lines("ERROR: --preflight-report gone/page.html: *")
    assert Page((pytester.path / "kept.html").read_text()).of("h1") == ["GO"]
    assert sorted(path.name for path in pytester.path.glob("*.html")) == ["kept.html"]


UNNUMBERED = """
from pytest_trainguard import Finding, edge_case

@edge_case("spoons", title="spoons", verdict="survives", severity="unclear", brought_about="-", expects="bends none")
def test_spoons(trainer):
    raise Finding("gave it a spoon", "it bent it")
"""


def test_a_case_without_a_number(pytester):
    project = Project(pytester.path, ["loud:Loud"])
    project.write("loud.py", TRAINER)
    project.write("test_own.py", UNNUMBERED)
    options = ("-v", "--edge-case=spoons", "--preflight-report=page.html", "--preflight-report=report.json")
    result = pytester.runpytest_inprocess("-m", "preflight", *options)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["spoons (own, misleads): Loud", "  reproduce   pytest -m preflight * --edge-case spoons"]
    )
    result.stdout.fnmatch_lines([" *code *own *", "Loud * 0/1 *", "misleads  spoons (case spoons)"])
    report = json.loads((pytester.path / "report.json").read_text())
    jsonschema.validate(report, schema())
    (case,) = report["cases"]
    assert (case["slug"], case["number"], case["category"]) == ("spoons", None, "own")
    shown = Page((pytester.path / "page.html").read_text())
    assert shown.of("h3") == shown.of("h4") == ["spoons"]
    assert "None" not in shown.text
    assert "own" in shown.of("th")


@pytest.mark.parametrize("named", [[], ["-o", "trainguard_trainers=loud:Loud"]], ids=["in its ini file", "by option"])
def test_where_pytest_looks_elsewhere_it_is_told_why(pytester, tmp_path, named):
    Project(pytester.path, ["loud:Loud"]).write("loud.py", TRAINER)
    report = tmp_path / "report.json"
    report.touch()
    result = pytester.runpytest_inprocess("-m", "preflight", *named, "--preflight-report", str(report))
    assert result.ret == 4
    assert "join options to values: --preflight-report=PATH" in result.stderr.str()


# --- causes

BROKEN = [
    reports.verdict(
        "killed", "failed", reports.problem(cause=reports.NO_OPTIMIZER, evidence="one `output`"), number=41,
        framework="plain loop",
    ),
    reports.verdict("reboot", "failed", reports.problem(cause=reports.NO_OPTIMIZER), number=43),
    reports.verdict(
        "nan-loss", "failed", reports.problem("misleads", "it <ends> with exit 0"),
        reports.problem("unclear", "it names no step", verdict="advice"), number=64, category="training",
    ),
    reports.verdict("unicode", "advice", reports.problem("unclear", "no name", verdict="advice"), category="data"),
    reports.verdict("clock-skew", "accepted", reports.problem("wastes", "later", verdict="accepted")),
    reports.verdict("killed", "passed", trainer="Other\"s", number=41),
]  # fmt: skip


@pytest.fixture(scope="module")
def told():
    made = reports.report(*BROKEN)
    jsonschema.validate(made, schema())
    return Page(page.render_page(made))


def test_each_cause_is_told_once_and_the_gravest_first(told):
    found = [text for text in told.of("h3") if text in {*(case.title for case in BROKEN), reports.NO_OPTIMIZER.title}]
    assert found == [reports.NO_OPTIMIZER.title, "nan-loss", "nan-loss", "unicode", "clock-skew"]
    headings = told.of("h2")
    assert headings[:3] == ["NO-GO for 2 causes", "Advice", "Accepted"]
    assert headings.index("Accepted") < headings.index("Trainers and categories") < headings.index("Passed")
    assert "2 cases" in told.of("span")


def test_how_to_fix_it_and_what_makes_it_happen_stand_with_the_cause(told):
    assert any("Save everything the next step depends on" in text for text in told.of("dd"))
    assert "pytest --explain killed" in told.of("pre")
    assert "pytest -m preflight --trainer Mine --edge-case killed" in told.of("pre")


def test_findings_stand_in_their_cause(told):
    assert {"41 killed", "43 reboot"} <= set(told.of("summary"))
    assert "it <ends> with exit 0" in told.of("dd")
    assert "one `output`" in told.of("pre")
    assert len([name for name in told.ids if name.startswith("case-")]) == len(BROKEN)
    assert {link[1:] for link in told.links} <= set(told.ids)


def test_everything_long_is_closed(told):
    assert ("open", None) not in told.attributes
    alone = Page(page.render_page(reports.report(BROKEN[2])))
    assert alone.attributes.count(("open", None)) == 1, "a single cause is read at once"


def test_filters_are_for_those_who_run_the_script(told):
    assert ("id", "filters") in told.attributes
    assert ("hidden", None) in told.attributes
    values = [value for name, value in told.attributes if name == "value"]
    assert values == [
        "",
        "loses",
        "misleads",
        "wastes",
        "unclear",
        "",
        "data",
        "process",
        "training",
        "",
        "Mine",
        'Other"s',
    ]
    assert ("data-category", "process") in told.attributes
    assert ("data-trainer", 'Other"s') in told.attributes


@pytest.mark.parametrize(("cases", "word"), [(BROKEN, "NO-GO"), (BROKEN[3:], "GO WITH ADVICE"), (BROKEN[5:], "GO")])
def test_the_clearance_is_the_first_word(cases, word):
    assert Page(page.render_page(reports.report(*cases))).of("h1") == [word]


def test_what_is_known_of_a_merged_report_is_told():
    shown = Page(page.render_page({**reports.report(*BROKEN), "notes": ["<i>half</i> of it"]}))
    assert "<i>half</i> of it" in shown.of("li")


# --- GPU memory, of a trace that is made by hand

TRACE = small_program()


def predicted(budget, **more):
    limit = resolve_budget(parse_budget(budget))
    told = {**judge_trace(TRACE, limit).as_dict(), "measured": None, "largest_settings": {}, "alternatives": []}
    return {"trainer": "Six", **told, "timeline": None, "over_time": timeline.sample_for_report(TRACE, limit), **more}


def with_memory(ran, *memory):
    report = {**ran[0].report, "memory": json.loads(json.dumps(memory))}
    jsonschema.validate(report, schema())
    return Page(page.render_page(report))


def test_memory_that_fits(ran):
    told = with_memory(ran, predicted("8GiB"))
    assert any(text.startswith("FITS: ") for text in told.of("strong"))
    assert {"svg", "polygon", "polyline"} <= set(told.tags)
    assert {"CUDA context", "weights", "gradients", "optimizer state", "activations", "temporaries"} <= set(
        told.of("title") + told.of("li")
    )
    assert told.of("span").count("backward") == 2
    assert any("step 2" in text for text in told.of("p"))  # where the peak stands


def test_memory_that_does_not_fit(ran):
    largest = {"setting": "batch", "value": 3, "beyond": 4, "exact": True, "traces": 5, "unknown": ""}
    helps = {"words": "batch = 2", "settings": {"batch": 2}, "verdict": "TIGHT", "needs": 3 * GIB, "least": 1,
             "reason": ""}  # fmt: skip
    one = predicted("2GiB", largest_settings={"batch_size": largest}, alternatives=[helps], notes=["<i>less</i>"])
    told = with_memory(ran, one)
    assert any(text.startswith("OUT OF MEMORY: ") for text in told.of("strong"))
    assert any("memory runs out at " in text for text in told.of("p"))
    assert "the largest batch" in told.of("dt")
    assert "batch = 2: TIGHT , 3.00 GiB" in told.text
    assert "<i>less</i>" in told.of("dd")


def test_memory_that_is_not_known(ran):
    unknown = {**predicted("8GiB"), "verdict": "UNKNOWN", "reason": "unknown: aten::odd", "over_time": None}
    told = with_memory(ran, unknown)
    assert any(text.startswith("UNKNOWN under 8GiB") and "aten::odd" in text for text in told.of("strong"))
    assert "svg" not in told.tags


def test_the_picture_is_to_scale():
    one = predicted("8GiB")
    drawn = pictures.draw_timeline(one)
    heights = [100 - float(point.split(",")[1]) for point in drawn["layers"][-1]["points"].split()]
    budget = 100 - drawn["budget"]
    peak = one["allocated"] + one["budget"]["context"]
    assert max(heights) / budget == pytest.approx(peak / one["budget"]["size"], abs=1e-3)
    reserved = [100 - float(point.split(",")[1]) for point in drawn["reserved"].split()]
    assert max(reserved) / budget == pytest.approx(one["needs"] / one["budget"]["size"], abs=1e-3)
    assert [words for words, _ in drawn["scale"]] == ["2 GiB", "4 GiB", "6 GiB", "8 GiB"]
    assert sum(phase["width"] for phase in drawn["phases"]) == pytest.approx(100)


def test_a_long_picture_is_drawn_whole(ran):
    over_time = {
        "events": 10_000, "at": list(range(0, 10_000, 40)), "parts": {"weights": [GIB] * 250}, "reserved": [GIB] * 250,
        "phases": [{"at": at, "phase": "forward"} for at in range(0, 10_000, 100)],
    }  # fmt: skip
    told = with_memory(ran, predicted("8GiB", over_time=over_time))
    drawn = [value.split() for name, value in told.attributes if name == "points"]
    assert [len(points) for points in drawn] == [1000, 1000, 500]  # the context, the weights; what was taken
    assert all(len([float(part) for part in point.split(",")]) == 2 for points in drawn for point in points)
    assert "forward" not in told.of("span")  # a hundred names would be on top of each other


def test_a_budget_far_above_leaves_the_rest_to_be_seen(ran):
    one = predicted("80GiB")
    drawn = pictures.draw_timeline(one)
    assert drawn["budget"] < 0
    highest = min(float(point.split(",")[1]) for point in drawn["reserved"].split())
    assert highest == pytest.approx(100 - 100 / pictures.ROOM, abs=0.01)
    assert pictures.draw_breakdown(one)["budget"] > 100
    told = with_memory(ran, one)
    assert "the budget is far above" in told.of("figcaption")[0]
    assert ("class", "budget") in told.attributes  # in the legend
    assert "b" not in told.tags


def test_the_bar_is_to_scale():
    one = predicted("2GiB")
    drawn = pictures.draw_breakdown(one)
    assert sum(part["share"] for part in drawn["parts"]) == pytest.approx(1)
    assert sum(part["width"] for part in drawn["parts"]) == pytest.approx(100 / pictures.ROOM)
    widths = [part["width"] for part in drawn["parts"]]
    assert widths == sorted(widths, reverse=True)
    assert drawn["budget"] / sum(widths) == pytest.approx(2 * GIB / one["needs"])


@pytest.mark.parametrize("size", [700, 3 * 2**20, 2 * GIB, 80 * GIB, 3000 * GIB])
def test_a_scale_is_round_and_short(size):
    scale = pictures._scale(size)
    assert 2 <= len(scale) <= 5
    assert all(height <= size for _, height in scale)


def test_a_long_trace_gives_few_points():
    told = timeline.sample_for_report(TRACE, resolve_budget(parse_budget("8GiB")), points=10)
    assert len(told["at"]) <= 10
    assert told["events"] == len(TRACE.events)
    assert {len(sizes) for sizes in told["parts"].values()} == {len(told["at"])} == {len(told["reserved"])}
    assert max(map(sum, zip(*told["parts"].values(), strict=True))) == predicted("8GiB")["allocated"]


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        ("\x1b[1;31mred\x1b[0m \x1b[2K\x1b[1A", "red "),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never closed\nthe next line", "\nthe next line"),
        ("a\r\nb\rc\td", "a\nb\nc\td"),
        ("half \ud83d of a pair", "half  of a pair"),
        (3, 3),
    ],
)
def test_what_a_terminal_obeys_is_not_shown(printed, read):
    assert page.clean(printed) == read
