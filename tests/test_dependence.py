"""What a row's output depends on beside that row, and a token's behind it: on models as libraries have them."""

import torch
import transformers

from pytest_trainguard.recorder.dependence import Call, try_rows, try_tokens

COMMON = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ROWS, LENGTH = 5, 12


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_layer=1, n_embd=16, n_head=2, n_positions=32, **COMMON)
    )


def bert():
    """Used as what says the next token, without the setting that masks what comes later."""
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.BertLMHeadModel(transformers.BertConfig(is_decoder=False, **sizes, **COMMON))


def t5():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, **COMMON))


def draw_ids():
    return torch.randint(4, 64, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))


def called(model, *args, **kwargs):
    return Call(model, args, kwargs, "train.py:1")


def test_a_causal_model_reads_nothing_ahead():
    ids = draw_ids()
    call = called(gpt2(), input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids)
    told = try_tokens(call, [(ids[:, 1:].flatten(), -100)])
    assert told is not None
    assert told["targets"]
    assert not told["changed"]


def test_an_encoder_that_is_to_say_the_next_token_reads_it():
    ids = draw_ids()
    told = try_tokens(called(bert(), ids, return_dict=True), [(ids[:, 1:].flatten(), -100)])
    assert told is not None
    assert told["changed"] == told["targets"] > 0


def test_what_an_encoder_reads_may_be_what_a_decoder_is_to_say():
    """A text that is copied: the encoder's tokens stand one place further on than the targets."""
    ids = draw_ids()
    labels = ids[:, 1:].contiguous()
    assert try_tokens(called(t5(), input_ids=ids, labels=labels), [(labels.flatten(), -100)]) is None


def test_targets_of_another_kind_say_nothing():
    ids = draw_ids()
    assert try_tokens(called(bert(), ids), [(ids.flatten(), -100), (ids[:, 2:].flatten(), -100)]) is None


def test_rows_are_alone_in_a_batch():
    ids = draw_ids()
    told = try_rows(called(gpt2(), input_ids=ids, labels=ids), {ROWS})
    assert told == {"rows": ROWS, "others": 0, "most": 0.0}


def test_rows_are_not_guessed():
    """A dimension that is as long by chance, one that no batch is as long as, and an object that nobody looks into."""
    square = torch.rand(ROWS, ROWS)
    assert try_rows(called(torch.nn.Linear(ROWS, 3), square), {ROWS}) is None
    assert try_rows(called(torch.nn.Linear(4, 3), torch.rand(ROWS, 4)), {ROWS + 1}) is None
    assert try_rows(called(torch.nn.Linear(4, 3), torch.rand(ROWS, 4), object()), {ROWS}) is None


def test_what_is_not_the_same_twice_says_nothing():
    class Counts(torch.nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) + self.calls

    assert try_rows(called(Counts(4, 3), torch.rand(ROWS, 4)), {ROWS}) is None


def test_attention_over_rows_is_seen():
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32)
    told = try_rows(called(layer, torch.rand(ROWS, 3, 16)), {ROWS})
    assert told is not None
    assert told["others"] == ROWS - 1
