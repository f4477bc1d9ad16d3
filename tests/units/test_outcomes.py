"""What an outcome says: its message, its exit, what is left of it."""

import time
from pathlib import Path

import pytest

from pytest_trainguard.contract.outcome import Outcome, exit_words, message_of
from pytest_trainguard.recorder.timeline import Recording
from pytest_trainguard.verdicts import causes


def test_messages():
    output = (
        "epoch 1\n 10%|#\r 50%|##\r100%|###\nTraceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n    secret = 3\nValueError: bad\n  details\nafter\n'
    )
    assert message_of(output) == "epoch 1\n100%|###\nValueError: bad\n  details\nafter"
    assert message_of("") == ""
    assert exit_words(3) == "exit 3"
    assert exit_words(-9) == "killed by SIGKILL"
    assert exit_words(-63) == "killed by signal 63"


ACCELERATE = """Traceback (most recent call last):
  File "/venv/bin/accelerate", line 6, in <module>
    sys.exit(main())
  File "/venv/lib/python3.11/site-packages/accelerate/commands/launch.py", line 999, in simple_launcher
    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=cmd)
subprocess.CalledProcessError: Command '['/venv/bin/python', 'train.py', '--data', '/rows.jsonl']' returned non-zero
"""


TORCHRUN = """E1130 04:37:24.939000 10246 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1)
Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/torch/distributed/run.py", line 1028, in main
    run(args)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
  exitcode  : 1 (pid: 10251)
"""


OWN = 'Traceback (most recent call last):\n  File "/train.py", line 3, in <module>\nValueError: bad\n'


def make_outcome(output="", **values):
    usual = {
        "exit": 1,
        "recording": Recording([]),
        "output_dir": Path("out"),
        "before": {},
        "after": {},
        "seconds": 1.0,
    }
    others = {"did": "", "output_bytes": 0, "peak_rss": 0, "leftovers": (), "timed_out": False, "stack": "", "pid": 1}
    return Outcome(output=output, **{**usual, **others, **values})


@pytest.mark.parametrize("launcher", [ACCELERATE, TORCHRUN])
def test_a_launchers_own_words_are_no_message(launcher):
    own = OWN if launcher == ACCELERATE else "".join(f"[rank0]: {line}\n" for line in OWN.splitlines())
    failed = make_outcome(output=f"epoch 1\n{own}{launcher}")
    assert failed.message == "epoch 1\nValueError: bad"
    assert failed.complaint == "ValueError: bad"
    crash = causes.find_crash(failed)
    assert crash is not None
    assert crash.key == "raises:ValueError@train.py:3"
    assert message_of(f"epoch 1\n{launcher}").strip() == "epoch 1"
    hydra = f"Error executing job with overrides: ['data=/rows.jsonl']\n{own}"
    assert make_outcome(output=hydra).complaint == "ValueError: bad"
    alone = launcher.replace("CalledProcessError", "ValueError").replace("ChildFailedError", "ValueError")
    assert "ValueError" in message_of(alone), "the launcher itself failed"


def test_a_long_line_without_an_end_is_read_in_no_time():
    began = time.process_time()
    assert message_of("x" * 300_000) == "x" * 300_000
    assert message_of("a\rb\r\nc\r\rd\re") == "b\ne"
    assert time.process_time() - began < 1.0


def test_logs_of_frameworks_are_nothing_left():
    names = (
        ".hydra/config.yaml", "train.log", "tb/events.out.tfevents.1.host", "mlruns/0/meta.yaml", "mine.csv",
        "checkpoint-2/", "checkpoint-2/state.pt",
    )  # fmt: skip
    left = make_outcome(after=dict.fromkeys(names, (1, "x")), logs=("*.csv",))
    assert left.left() == ["checkpoint-2/state.pt"]
