"""Which settings no line of a program reads: by sources."""

import pytest

from pytest_trainguard.casework.unread import _beside, find_unread

NAMES = ("width", "dropout")

BY_DICT = """
DEFAULTS = dict(width=32, dropout=0.1)
RANGES = {"width": (1, 9), "dropout": (0, 1)}

def check(settings):
    for name in RANGES:
        settings[name]

def build(settings, *args, **kwargs):
    other(*args, **kwargs)
    return Linear(settings["width"]), Dropout(0.1)
"""

BY_CLASS = """
class Config:
    width: int = 32
    dropout: float = 0.1

def build(config):
    return Linear(config.width), Dropout(p=0.1)
"""

BY_OPTIONS = """
parser.add_argument("-w", "--width", type=int)
parser.add_argument("--dropout", type=float, help="p of dropout")
args = parser.parse_args()
Linear(args.width)
"""


def unread(tmp_path, *texts):
    sources = [tmp_path / f"{number}.py" for number, _ in enumerate(texts)]
    for source, text in zip(sources, texts, strict=True):
        source.write_text(text)
    return find_unread(sources, NAMES)


@pytest.mark.parametrize("text", [BY_DICT, BY_CLASS, BY_OPTIONS])
def test_a_setting_that_is_never_read(tmp_path, text):
    assert unread(tmp_path, text) == ["dropout"]


@pytest.mark.parametrize(
    "reading",
    [
        "Dropout(config.dropout)",
        "Dropout(settings['dropout'])",
        "Dropout(getattr(args, 'dropout'))",
        "def build(dropout):\n    return Dropout(dropout)",
        "for name in ('width', 'dropout'):\n    print(name)",
        "Model(**vars(config))",  # it may well be read there
        "Model(",  # no Python that can be read
    ],
)
def test_a_setting_that_is_read_or_may_be(tmp_path, reading):
    assert unread(tmp_path, BY_CLASS, reading) == []


def test_settings_that_are_made_of_a_file(tmp_path):
    assert unread(tmp_path, BY_CLASS, "Config(**json.load(file))") == ["dropout"]
    taking_all = "def make(**others):\n    return Model(**others)\n\nmake(**json.load(file))"
    assert unread(tmp_path, BY_CLASS, taking_all) == []


def test_what_is_somebody_elses(tmp_path):
    assert unread(tmp_path, BY_CLASS.replace("class Config:", "class Config(TrainingArguments):")) == []
    assert unread(tmp_path, "print('trains')") == []


def test_a_source_that_was_not_imported_this_time(tmp_path):
    (tmp_path / "with_dropout.py").write_text("Dropout(config.dropout)")
    (tmp_path / "broken.py").write_text("Dropout(")
    assert unread(tmp_path, BY_CLASS) == ["dropout"]
    others = _beside([tmp_path / "0.py"])
    assert [path.name for path in others] == ["broken.py", "with_dropout.py"]
    assert find_unread([tmp_path / "0.py"], NAMES, others) == []


def test_a_missing_source(tmp_path):
    assert find_unread([tmp_path / "gone.py"], NAMES) == []
