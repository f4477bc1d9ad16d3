"""A tokenizer that outgrows its model: what real tokenizers make of it."""

import json

import pytest

from pytest_trainguard import NotApplicable
from pytest_trainguard.damage import tokenizer

ROWS = [{"name": "amber brook brook", "list": ["brook", {"kind": "cedar"}], "y": 1}, {"name": "amber", "y": 0}]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def _model(folder, vocabulary, **config):
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_words_of_the_data_become_tokens_beyond_the_embedding(tmp_path, data):
    from tokenizers import Tokenizer

    model = _model(tmp_path / "model", {"<unk>": 0, "amber": 1}, vocab_size=5)
    grown = tokenizer.outgrow_embedding(model, data, tmp_path)
    assert (grown.words, grown.rows, grown.tokens) == (("brook", "cedar"), 5, 7)
    reads = Tokenizer.from_file(str(grown.path / "tokenizer.json"))
    assert reads.encode("amber brook of cedar").ids == [1, 5, 0, 6]
    assert reads.get_vocab_size() == grown.tokens
    assert Tokenizer.from_file(str(model / "tokenizer.json")).encode("brook").ids == [0]


def test_without_a_configuration_the_tokenizer_tells_the_rows(tmp_path, data):
    model = _model(tmp_path / "model", {"<unk>": 0, "brook": 1, "cedar": 2})
    assert tokenizer.outgrow_embedding(model, data, tmp_path)[1:] == (4, 3, ("amber",))


def test_what_cannot_outgrow(tmp_path, data):
    (tmp_path / "bare").mkdir()
    with pytest.raises(NotApplicable, match=r"no tokenizer\.json in bare"):
        tokenizer.outgrow_embedding(tmp_path / "bare", data, tmp_path)
    model = _model(tmp_path / "model", {"<unk>": 0, "brook": 1, "cedar": 2, "amber": 3})
    with pytest.raises(NotApplicable, match="no word that is not a token already"):
        tokenizer.outgrow_embedding(model, data, tmp_path)


def test_names_of_columns_are_no_words_of_the_data(tmp_path):
    data = tmp_path / "rows.csv"
    data.write_bytes("sentence,label\ncaf\xe9 amber,1\n".encode("latin-1"))  # nothing that can be read as UTF-8
    model = _model(tmp_path / "model", {"<unk>": 0})
    assert tokenizer.outgrow_embedding(model, data, tmp_path).words == ("caf", "amber")
