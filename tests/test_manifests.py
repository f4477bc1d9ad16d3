"""Manifests tell of what a file was changed to, of that file alone, in every form that programs write them."""

import hashlib
import json
import subprocess

import pytest

from pytest_trainguard.damage.manifests import replace_file

OLD, NEW = b'{"step": 6}', b'{"step": "many"}'


def sha(content, kind="sha256"):
    return hashlib.new(kind, content).hexdigest()


FORMS = {
    "by name": lambda name, content: {"format": 1, name: sha(content)},
    "in tables": lambda name, content: {"files": {name: {"sha256": sha(content), "bytes": len(content)}}},
    "in a list": lambda name, content: {"files": [{"path": name, "md5": sha(content, "md5"), "size": len(content)}]},
    "with its kind": lambda name, content: {"files": {name: f"sha1:{sha(content, 'sha1')}"}},
    "deep": lambda name, content: {"files": {name: {"hash": {"sha512": sha(content, "sha512")}, "n": len(content)}}},
    "sizes alone": lambda name, content: {"sizes": {name: len(content)}},
}


@pytest.fixture
def folder(tmp_path):
    checkpoint = tmp_path / "output" / "checkpoint-6"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_bytes(OLD)
    (checkpoint / "rng.json").write_text("[1, 2]")
    return checkpoint


@pytest.mark.parametrize("form", FORMS)
def test_the_manifest_tells_of_the_new_content(folder, form):
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(FORMS[form]("state.json", OLD)))
    replace_file(folder / "state.json", NEW, within=folder.parent)
    assert (folder / "state.json").read_bytes() == NEW
    assert json.loads(manifest.read_text()) == FORMS[form]("state.json", NEW)


@pytest.mark.parametrize("form", FORMS)
def test_the_manifest_tells_nothing_of_a_removed_file(folder, form):
    manifest = folder / "manifest.json"
    both, other = FORMS[form]("state.json", OLD), FORMS[form]("rng.json", (folder / "rng.json").read_bytes())
    for key, value in other.items():
        if isinstance(value, dict):
            both[key] = {**both[key], **value}
        else:
            both[key] = both[key] + value if isinstance(value, list) else value
    manifest.write_text(json.dumps(both))
    replace_file(folder / "state.json", None, within=folder.parent)
    assert not (folder / "state.json").exists()
    assert json.loads(manifest.read_text()) == other


def test_lines_as_sha256sum_writes_them(folder):
    def run(*args):
        return subprocess.run(["sha256sum", *args], cwd=folder, capture_output=True, text=True, check=True).stdout

    (folder / "SHA256SUMS").write_text(run("rng.json", "state.json"))
    replace_file(folder / "state.json", NEW, within=folder.parent)
    assert run("-c", "SHA256SUMS") == "rng.json: OK\nstate.json: OK\n"
    replace_file(folder / "state.json", None, within=folder.parent)
    assert run("-c", "SHA256SUMS") == "rng.json: OK\n"


def test_a_checksum_in_a_file_of_its_own(folder):
    beside = folder / "state.json.sha256"
    beside.write_text(f"{sha(OLD)}\n")
    replace_file(folder / "state.json", NEW, within=folder.parent)
    assert beside.read_text() == f"{sha(NEW)}\n"
    replace_file(folder / "state.json", None, within=folder.parent)
    assert not beside.exists()


def test_a_manifest_of_manifests(folder):
    manifest, top = folder / "manifest.json", folder.parent / "index.json"
    manifest.write_text(json.dumps({"state.json": sha(OLD)}))
    top.write_text(json.dumps({"checkpoint-6/manifest.json": sha(manifest.read_bytes())}))
    replace_file(folder / "state.json", NEW, within=folder.parent)
    assert json.loads(manifest.read_text()) == {"state.json": sha(NEW)}
    assert json.loads(top.read_text()) == {"checkpoint-6/manifest.json": sha(manifest.read_bytes())}


def test_of_files_that_are_alike_the_named_one_is_meant(folder):
    other = folder.parent / "checkpoint-4"
    other.mkdir()
    held = {name: {"sha256": sha(OLD), "bytes": len(OLD)} for name in ("state.json", "copy.json")}
    for checkpoint in (folder, other):
        for name in held:
            (checkpoint / name).write_bytes(OLD)
        (checkpoint / "manifest.json").write_text(json.dumps(held))
    index = folder.parent / "index.json"
    index.write_text(json.dumps({place.name: {"state.json": sha(OLD)} for place in (other, folder)}))
    replace_file(folder / "state.json", NEW, within=folder.parent)
    assert json.loads((other / "manifest.json").read_text()) == held
    assert json.loads((folder / "manifest.json").read_text()) == {
        **held, "state.json": {"sha256": sha(NEW), "bytes": len(NEW)},
    }  # fmt: skip
    assert json.loads(index.read_text()) == {
        "checkpoint-4": {"state.json": sha(OLD)}, "checkpoint-6": {"state.json": sha(NEW)},
    }  # fmt: skip


def test_what_is_no_manifest_stays_as_it_is(folder):
    kept = {"log.txt": b"step 6\n", "note.json": b'{"a":  11}', "weights.bin": b"\xff\xfe" + sha(OLD).encode()}
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    (folder / "large.txt").write_text(sha(OLD) + " " * (1 << 20))
    replace_file(folder / "state.json", NEW, within=folder.parent)
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert (folder / "large.txt").read_text().startswith(sha(OLD))
