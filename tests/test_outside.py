"""`make outside`: the trainers of somebody's checkout, in a table."""

from tests import outside
from tests.projects import ADOPTED, LOOP, Project


def test_two_projects_in_one_folder(tmp_path, capsys):
    sound = Project(tmp_path / "checkouts" / "sound", ["preflight:Classifier"])
    sound.write("program.py", LOOP)
    sound.write("preflight.py", ADOPTED)
    broken = Project(tmp_path / "checkouts" / "deeper" / "broken", ["preflight:Classifier"])
    broken.write("program.py", LOOP.replace("step = state", "0, state"))
    broken.write("preflight.py", ADOPTED)
    Project(tmp_path / "checkouts" / "other")
    (tmp_path / "checkouts" / "other" / "pyproject.toml").write_text("[project]\n")
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert outside.main([str(tmp_path / "checkouts"), "--edge-case=41,63"]) == 0
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file() and "__pycache__" not in path.parts) == before
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    shown = [[cell.strip("| ") for cell in row[:8]] for row in rows[1:]]
    assert shown == [
        ["Classifier", "1", "0", "0", "1", "0", "0", "0"],
        ["broken: NO-GO", "", "", "", "", "", "", ""],
        ["Classifier", "2", "2", "0", "0", "0", "0", "0"],
        ["sound: GO", "", "", "", "", "", "", ""],
    ]
    assert all(int(row[8]) > 5 for row in rows[2::2])


def test_a_folder_without_trainers_is_told(tmp_path, capsys):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert outside.main([str(tmp_path)]) == 2
    assert "no project in it names trainers" in capsys.readouterr().err
    assert outside.main([]) == 2
