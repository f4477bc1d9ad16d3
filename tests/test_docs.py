"""The documents: their code and commands run and print what they show, their links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pytest_trainguard import case_pages
from pytest_trainguard.session import ini_file
from tests import doc_pages, projects, report_picture
from tests.doc_pages import ROOT, PageProject, read_blocks
from tests.report_picture import README, TUTORIAL

DOCS = ROOT / "docs"
GENERATED = DOCS / "cases"
PAGES = sorted(path for path in DOCS.rglob("*.md") if GENERATED not in path.parents)
WITH_BLOCKS = [page for page in PAGES if read_blocks(page)]
HOSTED = "https://github.com/OWNER/pytest-trainguard/"
TEXTS = [{"text": f"{('good', 'bad')[i % 2]} review number {i}", "label": 1 - i % 2} for i in range(100)]
README_LIMIT = 500  # words
REWRITE = "TRAINGUARD_REWRITE"  # set: the README's output is written anew


def name_of(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.timeout(doc_pages.LIMIT * 2)
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_what_a_page_says_is_so(page, tmp_path):
    project = PageProject(tmp_path)
    prepare(project, page)
    project.follow(read_blocks(page))
    for command in project.not_run:
        check_not_run(command, project.folder)


def prepare(project, page):
    """What is there before a page begins: data, and for a page without a project of its own that of the tutorial."""
    blocks = read_blocks(page)
    if page == TUTORIAL:
        return
    if any(block.title == "pyproject.toml" for block in blocks):
        rows = TEXTS if page.stem in ("transformers", "gpu-memory") else projects.ROWS
        (project.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        project.follow(block for block in read_blocks(TUTORIAL) if block.title)
        assert doc_pages.run("python make_data.py", project.folder)[0] == 0


def check_not_run(command, folder):
    """Of a command that cannot run here: what it names exists."""
    words = shlex.split(command)
    if words[:2] == ["pip", "install"]:
        for extras in re.findall(r"pytest-trainguard\[([\w,]+)\]", command):
            assert set(extras.split(",")) <= doc_pages.list_extras(), command
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), command
    elif words[0] == "sbatch":
        assert (folder / words[-1]).is_file(), command
    elif words[:2] == ["python", "-m"]:
        assert words[2] == "venv" or (ROOT / words[2].replace(".", "/")).exists(), command


def test_commands_that_are_not_run_are_in_use():
    commands = [command for page in PAGES for block in read_blocks(page) if block.language == "console"
                for command, _ in doc_pages.read_commands(block)]  # fmt: skip
    for start in doc_pages.NOT_RUN:
        assert any(command.startswith(start) for command in commands), start


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


@pytest.fixture(scope="module")
def options():
    """Every option of pytest with this plugin and the ones that it is used with."""
    done = subprocess.run([sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=True)
    return set(OPTION.findall(done.stdout))


def test_batch_scripts_and_workflows_name_options_that_exist(options):
    written = [block for page in PAGES for block in read_blocks(page) if block.language in ("bash", "yaml")]
    lines = [line for block in written for line in block.body.splitlines() if "pytest -m" in line or "options:" in line]
    named = {option for line in lines for option in OPTION.findall(line)}
    assert {"--preflight-report", "--gpu-budget", "--fast"} <= named
    assert named <= options


def test_the_options_page_tells_every_option(options):
    source = (ROOT / "pytest_trainguard" / "plugin.py").read_text(encoding="utf-8")
    page = (DOCS / "reference" / "options.md").read_text(encoding="utf-8")
    own = {*re.findall(r'"(--[a-z-]+)"', source), *ini_file.SETTINGS}
    assert own >= {"--trainer", "--edge-case", "trainguard_trainers"}
    assert [name for name in sorted(own) if f"`{name}" not in page] == []


def test_the_trainer_page_tells_every_attribute_and_role():
    from pytest_trainguard import Run, Trainer
    from pytest_trainguard.contract import settings

    page = (DOCS / "reference" / "trainer.md").read_text(encoding="utf-8")
    public = [name for name in vars(Trainer) if not name.startswith("_")] + list(settings.ROLES)
    public += [f"run.{name}" for name in Run.__dataclass_fields__ if name != "config_type"]
    assert [name for name in public if f"`{name}" not in page] == []


def test_the_fixtures_page_tells_every_fixture():
    from pytest_trainguard import plugin

    page = (DOCS / "reference" / "fixtures.md").read_text(encoding="utf-8")
    assert [name for name in plugin.__all__ if f"`{name}" not in page] == []


def test_workflows_and_hooks_that_a_page_calls_exist():
    written = {block.title: yaml.safe_load(block.body) for page in PAGES for block in read_blocks(page)
               if block.language == "yaml"}  # fmt: skip
    (job,) = written[".github/workflows/preflight.yml"]["jobs"].values()
    path, _, version = job["uses"].removeprefix("OWNER/pytest-trainguard/").partition("@v")
    called = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    assert set(job["with"]) <= set(called[True]["workflow_call"]["inputs"])
    (repository,) = written[".pre-commit-config.yaml"]["repos"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {hook["id"] for hook in repository["hooks"]} <= {hook["id"] for hook in hooks}
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert {version, repository["rev"].removeprefix("v")} == {declared[1]}


def test_case_pages_are_those_of_the_cases():
    wanted = case_pages.format_pages(ROOT / case_pages.GUIDES)
    found = {path.name: path.read_text(encoding="utf-8") for path in GENERATED.iterdir()}
    assert sorted(found) == sorted(wanted)
    stale = [name for name in wanted if found[name] != wanted[name]]
    assert stale == [], "write them anew: make catalogue"


def test_a_case_without_a_guide_has_a_page_too(tmp_path):
    page = case_pages.format_pages(tmp_path)["killed.md"]
    assert "How to fix it" not in page
    assert "$ pytest -m preflight --edge-case 41\n" in page


def test_a_case_page_tells_the_case_its_guide_and_how_to_reproduce_it():
    page = (GENERATED / "killed.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#{1,2} .*", page, re.M)
    assert headings == ["# 41 killed", "## What is done", "## Why it matters", "## What a good trainer does",
                        "## How to fix it", "## Reproduce"]  # fmt: skip
    assert "A preempted machine" in page, "the war story of the test's docstring"


def test_case_pages_name_the_category_of_any_case():
    index = (GENERATED / "index.md").read_text(encoding="utf-8")
    assert len(re.findall(r"\]\([\w-]+\.md\)", index)) == len(list(GENERATED.iterdir())) - 1


IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_pictures_exist_and_addresses_of_the_repository_lead_to_files(page):
    text = re.sub(doc_pages.FENCE, "", page.read_text(encoding="utf-8"))
    for address in IMAGE.findall(text) + LINK.findall(text):
        if address.startswith(HOSTED):
            named = re.sub(r"^(blob|raw|tree)/main/", "", address.removeprefix(HOSTED)).partition("#")[0]
            assert named in ("issues", "") or (ROOT / named).exists(), address
        elif address in IMAGE.findall(text):
            assert (page.parent / address).is_file(), address


def test_the_readme_holds_on_an_index_page():
    text = README.read_text(encoding="utf-8")
    addresses = IMAGE.findall(text) + LINK.findall(text)
    assert addresses
    assert [address for address in addresses if not address.startswith("https://")] == []


def test_the_readme_is_short():
    words = [word for word in README.read_text(encoding="utf-8").split() if re.search(r"\w", word)]
    assert len(words) <= README_LIMIT, f"{len(words)} words"


FLOAT = re.compile(r"(\d+\.\d{4})\d+")


def shorten(output):
    """Of a preflight's output what the README shows: the grid, the cause that most cases ran into, the verdict."""
    grid = re.search(r"^ +data +model .*\nClassifier .*$", output, re.M)[0]
    heading = re.search(r"^NO-GO for \d+ causes:$", output, re.M)[0]
    cause = re.search(r"^misleads +optimizer state is not restored.*?(?=^\w)", output, re.M | re.S)[0]
    verdict = re.search(r"^NO-GO: .*$", output, re.M)[0]
    return FLOAT.sub(r"\1...", f"...\n{grid}\n{heading}\n...\n{cause}...\n{verdict}\n")


@pytest.mark.timeout(doc_pages.LIMIT * 2)
def test_the_readme_shows_what_is_printed(tmp_path):
    """Its five lines for the tutorial's program, before that is mended; with TRAINGUARD_REWRITE=1 it is rewritten."""
    code, output = report_picture.preflight_readme(tmp_path)
    assert code == 1, output
    (shown,) = [block for block in read_blocks(README) if "$ pytest" in block.body]
    text = README.read_text(encoding="utf-8")
    now = f"$ pytest -m preflight\n{shorten(output)}"
    if os.environ.get(REWRITE):
        README.write_text(text.replace(shown.body, now), encoding="utf-8")
    assert shown.body == now, f"stale: {REWRITE}=1 pytest {Path(__file__).name} -k readme_shows writes it anew"
