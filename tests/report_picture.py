"""The picture of the report in README and documentation: `python -m tests.report_picture docs/images/report.png`.

It is of the README's own run, drawn by a Chromium without a window, which only this needs. Wants `chromium` in PATH.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests import doc_pages
from tests.doc_pages import PageProject, read_blocks

README = doc_pages.ROOT / "README.md"
TUTORIAL = doc_pages.ROOT / "docs" / "tutorial.md"
SIZE = (1100, 900)  # of the window, in CSS pixels
SCALE = 1.5  # pixels of the picture to one of those


def preflight_readme(folder, *options):
    """Run the README's lines on the tutorial's program as it is before it is mended; exit code and output."""
    program = [block for block in read_blocks(TUTORIAL) if block.language == "python"]
    files = [block for block in program if block.title in ("make_data.py", "train.py")]
    PageProject(folder).follow([*files, *(block for block in read_blocks(README) if block.title)])
    doc_pages.run("python make_data.py", folder)
    return doc_pages.run(" ".join(["pytest -m preflight -n 2", *options]), folder)


def draw(page, picture):
    """Write what a browser shows of a page, from its top."""
    window = f"--window-size={SIZE[0]},{SIZE[1]}"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", window]
    command += [f"--force-device-scale-factor={SCALE}", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def main(picture):
    """Run the preflight, draw its report."""
    with tempfile.TemporaryDirectory() as folder:
        code, output = preflight_readme(Path(folder), "--preflight-report=report.html")
        assert code == 1, output
        draw(Path(folder) / "report.html", picture.resolve())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
