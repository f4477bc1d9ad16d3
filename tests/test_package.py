"""What is public, what start-up costs, and what is in the wheel."""

import ast
import importlib
import inspect
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pytest_trainguard

ROOT = Path(pytest_trainguard.__file__).parent.parent
PROJECT = Path(__file__).parent.parent
EDGE_CASES, PRELAUNCH = PROJECT / "edge_cases", PROJECT / "tests" / "prelaunch"


PUBLIC = [
    "RUN_STEPS", "SAVE_EVERY", "CannotJudge", "Cause", "CloseLook", "ConfigFuzz", "EdgeCase", "Fault", "Field",
    "Finding", "GpuBudget", "Guard", "Held", "KillAndResume", "NanInjection", "NotApplicable", "OomProbe", "Outcome",
    "Queue", "QueueRoot", "Recording", "Run", "RunRequest", "StartedRun", "StaticCheck", "Step", "TinyOverfit",
    "Trainer", "TrainingQueue", "Turn", "Validated", "Wording", "casework", "causes", "checkpoints", "damage",
    "edge_case", "exit_words", "faults", "memory", "note", "noting", "recovers", "rejects", "settings", "stops",
    "suffixes", "survives", "tiny_twin", "wording",
]  # fmt: skip


def test_public_names():
    assert pytest_trainguard.__all__ == PUBLIC
    for name in pytest_trainguard.__all__:
        found = getattr(pytest_trainguard, name)
        assert isinstance(found, int) or found.__name__.rpartition(".")[2] == name
    assert dir(pytest_trainguard) == sorted(pytest_trainguard.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pytest_trainguard.nothing  # noqa: B018


def public_modules(module=pytest_trainguard, path="pytest_trainguard"):
    """The modules that people may import from, by the names they import them by: what `__all__` names, and so on."""
    yield path, module
    for name in module.__all__:
        inner = getattr(module, name, None) or importlib.import_module(f"{path}.{name}")
        if inspect.ismodule(inner):
            yield from public_modules(inner, f"{path}.{name}")


def private_uses(source):
    """What a case takes from this package that is not public: by its imports, and from the modules that it imports."""
    public, modules = dict(public_modules()), {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pytest_trainguard"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pytest_trainguard"):
            for alias in node.names:
                if node.module not in public or alias.name not in public[node.module].__all__:
                    yield f"from {node.module} import {alias.name}"
                elif f"{node.module}.{alias.name}" in public:
                    modules[alias.asname or alias.name] = public[f"{node.module}.{alias.name}"]
    for node in ast.walk(tree):
        taken = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else None
        if taken in modules and node.attr not in modules[taken].__all__:
            yield f"{taken}.{node.attr}"


@pytest.mark.parametrize("path", [*EDGE_CASES.glob("test_*.py"), *PRELAUNCH.glob("test_*.py")], ids=lambda p: p.name)
def test_cases_are_written_with_public_names(path):
    assert list(private_uses(path.read_text())) == []


def test_what_is_private_would_be_found():
    assert list(private_uses("from pytest_trainguard.launch.watch import Held")) == [
        "from pytest_trainguard.launch.watch import Held"
    ]
    assert list(private_uses("from pytest_trainguard.damage import weights\nweights._tensors_in")) == [
        "weights._tensors_in"
    ]
    assert list(private_uses("from pytest_trainguard import Held, wording\nwording.number(1)")) == []


def test_fixtures_are_public(pytester):
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\n")
    output = pytester.runpytest_inprocess("--fixtures", "-q").stdout.str()
    for name in (
        "close_look", "config_fuzz", "guard", "kill_and_resume", "nan_injection", "oom_probe", "static_check",
        "tiny_overfit", "training_queue",
    ):  # fmt: skip
        assert f"\n{name} -- " in output, name


IMPORTED = """
import sys
import pytest
code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "test_nothing.py", *sys.argv[1:]])
assert code == 5, code
print("IMPORTED", *sorted(sys.modules))
"""


def test_start_up_imports_next_to_nothing(tmp_path):
    (tmp_path / "test_nothing.py").touch()
    (tmp_path / "pytest.ini").touch()

    def imported(*args):
        command = [sys.executable, "-c", IMPORTED, *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return set(next(line for line in done.stdout.splitlines() if line.startswith("IMPORTED")).split())

    # Other plugins import what they want; this one brings these few of its own, and no library.
    assert imported() - imported("-p", "no:trainguard") == {
        "pytest_trainguard",
        "pytest_trainguard.catalog",
        "pytest_trainguard.harm",
        "pytest_trainguard.plugin",
        "pytest_trainguard.probes",
        "pytest_trainguard.probes.fixtures",
        "pytest_trainguard.session",
        "pytest_trainguard.session.deselection",
        "pytest_trainguard.session.ini_file",
        "pytest_trainguard.session.options",
        "pytest_trainguard.session.preflight",
        "pytest_trainguard.session.short_names",
    }
    assert not {"torch", "numpy", "psutil"} & imported()


def test_the_package_imports_without_its_parts():
    code = (
        "import sys, pytest_trainguard as t; t.Trainer; "
        "bad = {'torch', 'numpy', 'psutil', 'pytest_trainguard.probes.guard'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names of the files in a wheel that is built from what is in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    import shutil

    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    for name in ("pytest_trainguard", "edge_cases", "trainers", "tests"):
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    assert built.name.startswith("pytest_trainguard-")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def files_of(folder, prefix):
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in paths}


def test_the_wheel_holds_the_whole_package(wheel):
    packaged = {name for name in wheel if ".dist-info/" not in name}
    wanted = files_of(PROJECT / "pytest_trainguard", "pytest_trainguard")
    wanted |= files_of(PROJECT / "edge_cases", "pytest_trainguard/edge_cases")
    assert packaged == wanted
    assert "pytest_trainguard/py.typed" in wanted
    assert "pytest_trainguard/report/schema.json" in wanted
    assert "pytest_trainguard/launch/startup/sitecustomize.py" in wanted


def test_the_wheel_puts_one_name_into_site_packages(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert tops - {name for name in tops if name.endswith(".dist-info")} == {"pytest_trainguard"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


def test_every_sub_package_is_listed():
    if sys.version_info < (3, 11):
        pytest.skip("reading pyproject.toml needs tomllib")
    import tomllib

    listed = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    package = PROJECT / "pytest_trainguard"
    found = [path.parent.relative_to(PROJECT) for path in package.rglob("__init__.py")]
    wanted = {".".join(path.parts) for path in found} | {"pytest_trainguard.edge_cases"}
    assert set(listed) == wanted
    without = {path.parent for path in package.rglob("*.py")} - {path.parent for path in package.rglob("__init__.py")}
    assert without == set(), "a folder of modules without __init__.py"


def test_the_installed_plugin_is_this_one():
    assert ROOT == PROJECT or "site-packages" in ROOT.parts
