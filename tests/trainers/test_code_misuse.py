from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from trainers.code import fusion, misuse, roberta, samples, transformer
from trainers.code.names import NameNumbers
from trainers.code.rows import Row
from trainers.code.tokenizer import train_tokenizer
from trainers.common import batches
from trainers.common.errors import InputError


def names(code: str) -> list[str]:
    return [node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> misuse.Corpus:
    """The rows of a few modules of the standard library, and of files that are odd on purpose."""
    root = tmp_path_factory.mktemp("source")
    for name in ("textwrap.py", "shlex.py", "fnmatch.py", "bisect.py", "json/decoder.py", "heapq.py"):
        text = (misuse.standard_library() / name).read_text(encoding="utf-8")
        (root / Path(name).name).write_text(text, encoding="utf-8")
    (root / "copy_of_shlex.py").write_text((root / "shlex.py").read_text())
    (root / "broken.py").write_text("def f(:\n")
    (root / "latin.py").write_bytes(
        "# -*- coding: latin-1 -*-\ndef f(é, other):\n    return é + other + é\n".encode("latin-1")
    )
    (root / "loop").symlink_to(root)
    return misuse.Corpus(root, seed=5, validation_fraction=0.3)


def test_a_twin_differs_in_exactly_one_name(corpus: misuse.Corpus) -> None:
    assert len(corpus) > 60
    for right, wrong in zip(corpus.rows[::2], corpus.rows[1::2], strict=True):
        assert (right.label, wrong.label) == (0, 1)
        before, after = names(right.code), names(wrong.code)
        assert len(before) == len(after)
        ((old, new),) = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
        variables = misuse.variables(ast.parse(right.code).body[0])  # type: ignore[arg-type]
        assert {old, new} <= variables
        assert right.code.count("\n") == wrong.code.count("\n")


def test_no_module_and_no_function_is_on_both_sides(corpus: misuse.Corpus) -> None:
    train, held_out = ({corpus[index].code for index in side} for side in corpus.split)
    assert train
    assert held_out
    assert not train & held_out
    assert sorted([*corpus.split.train, *corpus.split.validation]) == list(range(len(corpus)))
    assert len({row.code for row in corpus.rows}) == len(corpus)  # the copied module gave nothing twice


def test_what_does_not_parse_is_named(corpus: misuse.Corpus) -> None:
    (fault,) = corpus.unparsed
    assert fault.startswith("broken.py: ")


def test_the_seed_decides(tmp_path: Path) -> None:
    for path, seed in (("a", 1), ("b", 1), ("c", 2)):
        samples.write_jsonl(tmp_path / path, rows=40, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert len(rows) == 40
    assert sum(row["label"] for row in rows) == 20
    assert len({row["code"] for row in rows}) == 40


def test_the_twins_of_a_function_are_all_different() -> None:
    code = "def f(a, b, c): return a + b"
    assert set(misuse.twins(code, 0, 9)) == {
        code.replace("a + b", wrong) for wrong in ("b + b", "c + b", "a + a", "a + c")
    }
    assert misuse.twins(code, 0, 9)[:2] == misuse.twins(code, 0, 2)
    assert misuse.twins(code, 0, 9) != misuse.twins(code, 1, 9)


def test_only_training_functions_have_several_twins_and_long_ones_are_left_out() -> None:
    root = misuse.standard_library() / "json"
    once = misuse.Corpus(root, seed=5, validation_fraction=0.3)
    often = misuse.Corpus(root, seed=5, validation_fraction=0.3, twins_each=4)
    train, held_out = ([often[index].code for index in side] for side in often.split)
    assert held_out == [once[index].code for index in once.split.validation]
    assert len(set(held_out)) == len(held_out)
    assert len(train) > 3 * len(once.split.train)
    assert {code for code in train if train.count(code) > 1} == {once[index].code for index in once.split.train[::2]}
    assert not set(train) & set(held_out)
    short = misuse.Corpus(root, seed=5, validation_fraction=0.3, longest=300)
    assert max(len(row.code) for row in short.rows[::2]) <= 300 < max(len(row.code) for row in once.rows)
    assert 0 < len(short) < len(once)
    assert short.too_long > 0


def test_a_pair_stays_together_in_every_order(corpus: misuse.Corpus) -> None:
    def order(epoch: int, rows_done: int = 0) -> list[list[int]]:
        windows = batches.epoch_windows(
            corpus.split.train,
            seed=1,
            epoch=epoch,
            rows_done=rows_done,
            effective=8,
            cut=lambda rows: [rows],
            together=corpus.together,
        )
        return [row for window in windows for row in window]

    assert order(0) != order(1)
    assert order(0)[3:] == order(0, rows_done=24)
    assert sorted(row for batch in order(0) for row in batch) == list(corpus.split.train)
    for batch in order(0):
        assert [(corpus[row].label, row + 1) for row in batch[::2]] == [(0, row) for row in batch[1::2]]


@pytest.mark.parametrize(
    "code",
    [
        "def f(a): return a",  # one variable
        "def f(a, b): pass",  # no use
        "def f(a):\n    global b\n    b = a",  # the other one is no variable of its own
        "def f(a, b): return f'{a}'",  # only inside an f-string
        "def f(a, b=c): return 1",
        "x = 1",
    ],
)
def test_functions_without_a_twin(code: str) -> None:
    assert misuse.twins(code, 0, 1) == []


def test_a_twin_of_text_that_is_not_ascii() -> None:
    assert misuse.twins("def f(é, b): return 'ü', é", 0, 5) == ["def f(é, b): return 'ü', b"]


def test_docstrings_go_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text('class A:\n    def f(self, x):\n        """Doc."""\n        # why\n        return x\n')
    (found,) = misuse.functions(path, "m.py")
    assert found == ("m.py", "f", "def f(self, x):\n    # why\n    return x\n")


def test_a_folder_without_functions(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="no Python function with two variables in 1 Python files"):
        misuse.Corpus(tmp_path, seed=0, validation_fraction=0.1)


def test_more_code_is_trained_on_and_never_held_out(corpus: misuse.Corpus, tmp_path: Path) -> None:
    (tmp_path / "main").mkdir()
    (tmp_path / "more" / "tests").mkdir(parents=True)
    lone = "def joined_words(words, glue):\n    text = glue.join(words)\n    return text.strip(glue)\n"
    (tmp_path / "main" / "a.py").write_text((misuse.standard_library() / "shlex.py").read_text())
    (tmp_path / "main" / "b.py").write_text((misuse.standard_library() / "textwrap.py").read_text())
    (tmp_path / "more" / "again.py").write_text((tmp_path / "main" / "a.py").read_text() + lone)
    (tmp_path / "more" / "tests" / "test_lone.py").write_text(lone.replace("joined_words", "test_words"))
    without, more = (
        misuse.Corpus(tmp_path / "main", seed=5, validation_fraction=0.5, twins_each=2, more=folder)
        for folder in (None, tmp_path / "more")
    )
    assert more.split.validation == without.split.validation != []
    assert more.rows[: len(without)] == without.rows
    assert [row.code for row in more.rows[len(without) :: 2]] == [lone, lone]
    assert more.split.train[-4:] == list(range(len(without), len(without) + 4))


def test_more_code_goes_with_source_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"code": "def f(a): return a", "label": 0}\n')
    assert (
        transformer.launch({"more_code": "installed"}, data=tmp_path / "rows.jsonl", output_dir=tmp_path / "out") == 2
    )
    assert "more_code = 'installed': only where rows are made from Python source" in capsys.readouterr().err
    assert transformer.launch({"more_code": "nowhere"}, output_dir=tmp_path / "out") == 2
    assert "more_code = 'nowhere': no such folder" in capsys.readouterr().err


def test_all_tokens_of_a_name_have_its_number(corpus: misuse.Corpus) -> None:
    tokenizer = train_tokenizer(corpus, corpus.split.train, 300, 64)  # so few pieces that names fall apart
    code = "def zebra(giraffe, é):\n    return giraffe.zebra(12, é) if giraffe else 'é'\n"
    encoded = tokenizer(code, return_offsets_mapping=True)
    numbers = NameNumbers(tokenizer)(encoded["input_ids"])
    wanted = {name: number for number, name in enumerate(["zebra", "giraffe", "é"], 1)}
    for word in re.finditer(r"\w+", code):
        inside = {
            number
            for number, (begin, end) in zip(numbers, encoded["offset_mapping"], strict=True)
            if word.start() <= begin < end <= word.end()
        }
        assert inside == {wanted.get(word[0], 0)}, word[0]
    assert numbers[0] == numbers[-1] == 0


def test_a_pair_tells_where_the_wrong_name_stands(corpus: misuse.Corpus) -> None:
    tokenizer = train_tokenizer(corpus, corpus.split.train, 300, 64)
    right, wrong = "def f(lion, bear):\n    return lion\n", "def f(lion, bear):\n    return bear\n"
    other = "def g(fox):\n    print(fox)\n"
    rows = [Row(right, 0), Row(wrong, 1), Row(other, 0), Row(wrong, 1), Row(right, 0)]
    batch = roberta.Collate(tokenizer, 64, corpus, points=True)(rows)
    unknown = roberta.UNKNOWN
    place = int(batch.places[1])
    assert batch.places.tolist() == [0, place, unknown, unknown, unknown]
    assert tokenizer.decode(batch.inputs["input_ids"][1, :place]).endswith("return ")
    assert roberta.Collate(tokenizer, 64, corpus)(rows).places.tolist() == [unknown] * 5


def test_pointing_is_learnt_beside_and_goes_when_the_branches_are_joined(tmp_path: Path) -> None:
    source = misuse.standard_library() / "json"
    small = {"hidden_size": 16, "layers": 1, "heads": 2, "vocab_size": 300, "longest_function": 400, "twins": 2}
    text, both = tmp_path / "text", tmp_path / "both"
    pointing = {**small, "pointing": 1.0, "save_every": 2}
    assert transformer.launch(pointing, data=source, output_dir=text, max_steps=2) == 0
    assert transformer.launch(pointing, data=source, output_dir=text, max_steps=4, resume_from=text) == 0
    heads = [load_file(text / f"checkpoint-{step}" / "model.safetensors")["pointer.weight"] for step in (2, 4)]
    assert not heads[0].equal(heads[1])
    joined = {**small, "text_branch": str(text), "node_size": 8, "graph_layers": 1, "graph_vocab_size": 300}
    assert fusion.launch(joined, data=source, output_dir=both, max_steps=1) == 0
    weights = load_file(both / "checkpoint-1" / "model.safetensors")
    assert [name for name in weights if "pointer" in name] == []


def test_a_name_is_the_same_token_wherever_it_stands(corpus: misuse.Corpus) -> None:
    tokenizer = train_tokenizer(corpus, corpus.split.train, 2000, 64)
    code = "def f(self, x):\n    return (self, [self.é ** 2e5])\n"
    tokens = tokenizer(code)["input_ids"]
    assert tokens.count(tokenizer.convert_tokens_to_ids("self")) == code.count("self") == 3
    assert tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False) == code
