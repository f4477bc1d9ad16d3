"""A preflight does not touch the world: an unchanged program with a tracker, a hub, a bucket and a path of its own."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pytest_trainguard.contract.outcome import Outcome
from pytest_trainguard.isolation import covers, environment, refusals
from pytest_trainguard.isolation.policy import Confined, Reach
from pytest_trainguard.launch import questions
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.session.isolation import describe_isolation
from pytest_trainguard.subject.hints import explain_isolation
from pytest_trainguard.subject.launchpad import Launchpad
from tests.projects import Project

CANARY = "canary-4f1d"
PROGRAM = """
import argparse
import os
import urllib.request
from pathlib import Path

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--output-dir", type=Path)
parser.add_argument("--max-steps", type=int)
args = parser.parse_args()


def send(url):
    headers = {"Authorization": os.environ.get("WANDB_API_KEY", "none")}
    request = urllib.request.Request(url, data=b"{}", headers=headers)
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except OSError as error:
        print(f"warning: {url}: {error}")


send(f"http://127.0.0.1:{os.environ['TRACKER']}/init")
send("https://huggingface.co/some/model/resolve/main/config.json")
try:
    send("http://127.0.0.1:" + os.environ["TRACKER"] + "/" + Path("~/.netrc").expanduser().read_text().split()[-1])
except (OSError, IndexError) as error:
    print(f"warning: nobody is logged in: {error}")
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(args.max_steps):
    loss = model(torch.randn(8, 4)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
torch.save(model.state_dict(), args.output_dir / "checkpoint.pt")
torch.save(model.state_dict(), "checkpoints/best.pt")
with open("runs.txt", "a") as runs:
    runs.write("one more\\n")
Path("old.txt").unlink()
os.system("aws s3 cp checkpoints/best.pt s3://team/best.pt")
"""
TABLE = """
[tool.trainguard.trainers.Tracked]
command = "python train.py --output-dir {output_dir} --max-steps {max_steps}"
"""


def digest(folder):
    """Every file of the project's own, by its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tmp" not in path.relative_to(folder).parts
    }


def can_make_namespaces():
    """Whether this user may, on this machine: tried in a process of its own."""
    code = "import sys; from pytest_trainguard import linux; sys.exit(not linux.enter_namespaces(network=True))"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def tracker():
    """A server on this machine's loopback, as a tracker's is; what arrived there."""
    arrived = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            arrived.append(str(self.headers))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], arrived
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("isolation", ["namespaces", "hooks"])
def test_nothing_arrives_and_nothing_changes(tmp_path, tracker, isolation):
    port, arrived = tracker
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text(f"machine api.wandb.ai login user password {CANARY}\n")
    project = Project(tmp_path / "project", toml=f'trainguard_isolation = "{isolation}"\n{TABLE}')
    project.write("train.py", PROGRAM)
    project.write("checkpoints/best.pt", "the team's own")
    project.write("runs.txt", "one\n")
    project.write("old.txt", "old\n")
    before = digest(project.folder)
    env = {"TRACKER": str(port), "WANDB_API_KEY": CANARY, "HF_TOKEN": CANARY, "HOME": str(home), "RANK": "3"}
    only = "--edge-case=no-network,writes-elsewhere"
    result = project.pytest("-m", "preflight", only, "-p", "no:cacheprovider", env=env)
    assert arrived == []
    after = digest(project.folder)
    after.pop("report.json", None)
    assert {name: after.get(name) for name in before} == before
    assert {name for name in after if not name.startswith(("junit", "report"))} == set(before)
    assert {path.name for path in home.iterdir()} == {".netrc"}
    told = {case["slug"]: case["reason"] for case in result.report["cases"]}
    assert f"127.0.0.1:{port} (train.py:" in told["no-network"]
    assert "huggingface.co:443 (train.py:" in told["no-network"]
    assert "`aws s3 cp checkpoints/best.pt s3://team/best.pt` (train.py:" in told["no-network"]
    assert "it wrote checkpoints/best.pt (train.py:" in told["writes-elsewhere"]
    assert "overwrite each other's" in told["writes-elsewhere"]
    assert {case["slug"]: case["grade"] for case in result.report["cases"]} == {
        "no-network": "unclear",
        "writes-elsewhere": "loses",
    }
    assert CANARY not in json.dumps(result.report)
    isolated = result.report["environment"]["isolation"]
    assert "secrets taken out: " in isolated
    held = isolation == "namespaces" and can_make_namespaces()
    assert ("had no network" if held else "refused") in isolated


# --- what a program sees of its start


def test_a_script_has_the_search_path_that_it_has_by_hand(tmp_path):
    project = Project(tmp_path / "project", toml=TABLE.replace("train.py", "scripts/train.py"))
    project.write("common.py", "NAME = 'best'\n")
    project.write("scripts/train.py", "import common\n")
    result = project.pytest("-m", "preflight", "--edge-case=41", "-p", "no:cacheprovider")
    (case,) = result.report["cases"]
    assert case["verdict"] == "error"
    assert "ModuleNotFoundError: No module named 'common'" in case["reason"]


def test_a_program_beside_the_interpreter_is_found_and_another_is_named(tmp_path):
    command = "{name} --output-dir {{output_dir}} --max-steps {{max_steps}}"
    tables = "".join(
        f'[tool.trainguard.trainers.{name}]\ncommand = "{command.format(name=name)}"\n'
        for name in ("torchrun", "no-such-program")
    )
    project = Project(tmp_path / "project", toml=tables)
    env = {"PATH": "/usr/bin:/bin"}
    result = project.pytest("-m", "preflight", "--edge-case=41", "-p", "no:cacheprovider", env=env)
    told = {case["trainer"]: case["reason"] for case in result.report["cases"]}
    assert "no-such-program: no such program" in told["no-such-program"]
    assert "no such program" not in told["torchrun"]


SEES = """
import os

from pytest_trainguard import Trainer

DEVICE = os.environ["CUDA_VISIBLE_DEVICES"]  # as a module decides where it will train


class Decides(Trainer):
    production = {"device": DEVICE}
"""


def test_a_module_sees_no_gpu_as_it_is_imported_unless_its_memory_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (tmp_path / "decides.py").write_text(SEES)
    (tmp_path / "pad").mkdir()
    pad = Launchpad(tmp_path, tmp_path / "pad", [str(tmp_path)], 60.0)
    try:
        subject = pad.subject("Decides", "decides:Decides")
        assert subject.server.ask(questions.describe).production == {"device": ""}
        measured = subject.make_server({"CUDA_VISIBLE_DEVICES": "1"})
        assert measured.ask(questions.describe).production == {"device": "1"}
        measured.close()
    finally:
        pad.close()


# --- the parts


def test_secrets_and_a_scheduler_are_taken_out():
    given = {
        "PATH": "/bin",
        "WANDB_API_KEY": "x",
        "HF_TOKEN": "x",
        "AWS_PROFILE": "x",
        "GOOGLE_APPLICATION_CREDENTIALS": "x",
        "TEAM_TOKEN": "x",
        "TOKENIZERS_PARALLELISM": "false",
        "RANK": "1",
        "SLURM_JOB_ID": "7",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    found = environment.confine(given, ["TEAM_*"], hubs=False)
    assert {name: found.get(name) for name in given} == {
        **dict.fromkeys(given),
        "PATH": "/bin",
        "TEAM_TOKEN": "x",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    assert (found["WANDB_MODE"], found["HF_HUB_OFFLINE"]) == ("offline", "1")
    assert "HF_HUB_OFFLINE" not in environment.confine(given, [], hubs=True)
    assert environment.list_taken(given, ["TEAM_*"]) == [
        "AWS_PROFILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "HF_TOKEN",
        "WANDB_API_KEY",
    ]


def test_trackers_write_to_the_runs_folder(tmp_path):
    found = environment.of_run(tmp_path, ["MLFLOW_REGISTRY_URI"])
    assert found["MLFLOW_TRACKING_URI"] == f"file:{tmp_path}/mlruns"
    assert found["WANDB_DIR"] == str(tmp_path)
    assert "MLFLOW_REGISTRY_URI" not in found


def test_caches_that_there_are_not_are_those_of_one_preflight(tmp_path):
    (tmp_path / ".triton").mkdir()
    folder = tmp_path / "caches"
    assert environment.caches(folder, tmp_path, {"TORCHINDUCTOR_CACHE_DIR": "/fast"}, []) == {
        "XDG_CACHE_HOME": str(folder / "xdg_cache_home")
    }
    (tmp_path / ".cache").mkdir()
    assert list(environment.caches(folder, tmp_path, {}, [])) == ["TORCHINDUCTOR_CACHE_DIR"]
    assert environment.caches(folder, tmp_path, {}, ["TORCHINDUCTOR_*"]) == {}


def test_every_tool_says_where_that_is_documented():
    for tool in (*environment.TRACKERS, *environment.HUBS):
        assert tool.set
        assert "." in tool.source


@pytest.mark.parametrize(
    ("folders", "covered"),
    [
        (["a/project", "a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        (["a", "missing"], ["a"]),
        (["/"], []),
    ],
)
def test_which_folders_are_covered(tmp_path, folders, covered):
    for name in ("a/project", "b"):
        (tmp_path / name).mkdir(parents=True)
    assert covers.choose(*(tmp_path / name for name in folders)) == [tmp_path / name for name in covered]


COVERED = """
import os, sys
from pathlib import Path
from pytest_trainguard import linux
from pytest_trainguard.isolation import covers
folder, place, own = map(Path, sys.argv[1:])
assert linux.enter_namespaces(network=True)
linux.raise_loopback()
(folder / "mounted").mkdir()
linux.mount_tmpfs(folder / "mounted")
(folder / "mounted/there").write_text("x")
covers.put_on(folder, place, [], [own])
(folder / "changed").write_text("other")
(folder / "removed").unlink()
(folder / "new").write_text("new")
(folder / "touched").open("a").close()
(folder / "__pycache__").mkdir()
(folder / "__pycache__/x.pyc").write_text("x")
(own / "real").write_text("real")
assert (folder / "mounted/there").read_text() == "x"
covers.take_off(folder)
for one in covers.list_changes(folder, place):
    print(one.path.name, one.how)
"""


def test_a_cover_takes_what_is_written(tmp_path):
    folder, own, place = tmp_path / "a, b:c\\d", tmp_path / "a, b:c\\d" / "own", tmp_path / "place"
    own.mkdir(parents=True)
    for name in ("changed", "removed", "touched"):
        (folder / name).write_text(name)
    done = subprocess.run(
        [sys.executable, "-c", COVERED, folder, place, own], capture_output=True, text=True, check=False
    )
    if "AssertionError" in done.stderr and "enter_namespaces" in done.stderr:
        pytest.skip("this user may make no namespaces here")
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["changed changed", "new made", "removed removed"]
    assert (folder / "changed").read_text() == "changed"
    assert (folder / "removed").exists()
    assert not (folder / "new").exists()
    assert (own / "real").read_text() == "real"


def test_what_was_overwritten_is_put_back(tmp_path):
    root, kept = tmp_path / "root", tmp_path / "kept"
    root.mkdir()
    (root / "changed").write_text("as it was")
    (root / "same").write_text("same")
    code = (
        "import os, sys\nfrom pytest_trainguard.isolation import refusals\nrefusals.install()\nos.chdir(sys.argv[1])\n"
        "open('changed', 'w').write('other')\nopen('same', 'a').close()\nopen('new', 'w').close()\n"
    )
    env = {**os.environ, **refusals.environment(root, [], kept, [])}
    subprocess.run([sys.executable, "-c", code, root], env=env, check=True)
    assert [(one.path.name, one.how) for one in refusals.put_back(kept)] == [("changed", "changed"), ("new", "made")]
    assert {path.name: path.read_text() for path in root.iterdir()} == {"changed": "as it was", "same": "same"}


@pytest.mark.parametrize(
    ("reach", "said"),
    [
        (Reach(), "runs had no network; what they wrote elsewhere is undone; offline: wandb"),
        (Reach(("hub.example",)), "of the network runs had hub.example (trainguard_network); "),
        (Reach(("allow",)), "the network was open (trainguard_network = allow); "),
    ],
)
def test_how_runs_were_held_is_told(monkeypatch, reach, said):
    for name in environment.list_taken(os.environ, []):
        monkeypatch.delenv(name)
    held = "open" if reach.allows_all else "refused" if reach.hosts else "namespace"
    assert describe_isolation(Confined(held, (Path("/home"),)), reach, ["torch", "wandb.sdk"]).startswith(said)


def ended(output, *events):
    recording = Recording([{"event": "reach", "time": 0.0, **event} for event in events])
    return Outcome("", 1, output, len(output), recording, Path(), {}, {}, 1.0, 0, (), False, "", 1)


def test_why_a_run_fails_here_only_is_told(monkeypatch):
    monkeypatch.setenv("TEAM_API_KEY", "x")
    wanted = {"kind": "network", "what": "hub.example:443", "caller": "load.py:3"}
    assert explain_isolation(ended("", wanted), Reach()) == (
        "it wanted hub.example:443 (load.py:3), and runs have no network: trainguard_network = hub.example opens it"
    )
    own = {"kind": "own", "what": "127.0.0.1:80", "caller": ""}
    assert explain_isolation(ended("", {**own, "kind": "network"}, own), Reach()) == ""
    assert explain_isolation(ended("KeyError: 'TEAM_API_KEY'"), Reach()) == (
        "TEAM_API_KEY is taken out of its environment as a secret: trainguard_keep = TEAM_API_KEY leaves it"
    )
    assert explain_isolation(ended("KeyError: 'TEAM_API_KEY'"), Reach(keep=("TEAM_API_KEY",))) == ""
    assert "hubs are offline" in explain_isolation(ended("... set HF_HUB_OFFLINE to 0"), Reach())


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('trainguard_isolation = "jail"', "trainguard_isolation: 'jail' is not one of namespaces, hooks"),
        ('trainguard_writable = ["data/cache"]', "data/cache: no such folder"),
        ('trainguard_network = ["allow", "hub.example"]', "'allow' opens every host: leave hub.example out"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, setting, said):
    project = Project(tmp_path / "project", toml=f"{setting}\n{TABLE}")
    result = project.pytest("-m", "preflight", "-p", "no:cacheprovider")
    assert result.code == 4
    assert said in result.output
    assert "Traceback" not in result.output
