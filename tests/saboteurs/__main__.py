"""The command line of every program here: `python -m tests.saboteurs MODULE:CLASS --settings FILE ...`."""

import argparse
import importlib
import sys
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    for flag in ("--settings", "--data", "--output-dir", "--resume-from"):
        parser.add_argument(flag, type=Path)
    for flag in ("--max-steps", "--seed"):
        parser.add_argument(flag, type=int)
    given = parser.parse_args()
    module, _, name = given.program.partition(":")
    program = getattr(importlib.import_module(module), name)()
    return program.main(given.settings, given.data, given.output_dir, given.max_steps, given.resume_from, given.seed)


if __name__ == "__main__":
    sys.exit(main())
