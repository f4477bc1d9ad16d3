"""The tiny twin of a configuration."""

import subprocess
import sys

TWINS = """
import torch, transformers as t
from pytest_trainguard import tiny_twin

ids = torch.randint(0, 50, (2, 6))
text = {"input_ids": ids}
image = {"pixel_values": torch.rand(2, 3, 224, 224)}
CASES = [
    (t.BertConfig, t.BertModel, text), (t.RobertaConfig, t.RobertaModel, text), (t.GPT2Config, t.GPT2Model, text),
    (t.DistilBertConfig, t.DistilBertModel, text), (t.ViTConfig, t.ViTModel, image),
    (t.T5Config, t.T5Model, {**text, "decoder_input_ids": ids}), (t.BartConfig, t.BartModel, text),
    (lambda: t.LlamaConfig(num_attention_heads=32, num_key_value_heads=8), t.LlamaModel, text),
    (t.Qwen2Config, t.Qwen2Model, text), (t.OPTConfig, t.OPTModel, text),
    (t.CLIPConfig, t.CLIPModel, {**text, **image}),
]
for make, model, inputs in CASES:
    config = make()
    before = config.to_dict()
    twin = tiny_twin(config)
    assert config.to_dict() == before, f"{type(config).__name__} was changed"
    assert type(twin) is type(config)
    built = model(twin).eval()
    built(**inputs)
    count = sum(p.numel() for p in built.parameters())
    print(type(config).__name__, count)
    assert count < 5_000_000, (type(config).__name__, count)
    inner = getattr(twin, "text_config", twin)
    vocabulary = getattr(getattr(config, "text_config", config), "vocab_size", None)
    assert getattr(inner, "vocab_size", None) == vocabulary
    assert inner.num_hidden_layers == 2, type(config).__name__
    assert inner.hidden_size == 32
llama = tiny_twin(t.LlamaConfig(num_attention_heads=32, num_key_value_heads=8), layers=3, width=64, heads=4)
assert (llama.num_hidden_layers, llama.hidden_size) == (3, 64)
assert (llama.num_attention_heads, llama.num_key_value_heads) == (4, 4)
assert llama.head_dim == 16
"""


def test_tiny_twins():
    done = subprocess.run([sys.executable, "-c", TWINS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 11
