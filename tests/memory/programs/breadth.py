"""Small models of the kinds that people train, two optimizer steps each."""

import contextlib

import torch
from torch import nn
from torch.nn import functional

WIDTH = 256  # weights so large that their values are not known


def _train(model, loss_of, steps=2, optimizer=torch.optim.AdamW):
    model = model.to("cuda")
    optimizer = optimizer(model.parameters(), lr=1e-3)
    for _ in range(steps):
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _rows(*shape):
    return torch.randn(*shape).to("cuda")


def _ids(*shape, vocabulary=100):
    return torch.randint(1, vocabulary, shape).to("cuda")


def gru():
    _train(nn.GRU(WIDTH, WIDTH, 2, batch_first=True), lambda model: model(_rows(4, 10, WIDTH))[0].sum())


def packed_lstm():
    def loss(model):
        packed = nn.utils.rnn.pack_padded_sequence(
            _rows(4, 10, WIDTH), torch.tensor([10, 7, 5, 2]), batch_first=True, enforce_sorted=False
        )
        out, _ = model(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
        return padded.sum()

    _train(nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True), loss)


def ctc():
    def loss(model):
        scores = model(_rows(20, 4, WIDTH)).log_softmax(-1)
        return functional.ctc_loss(scores, _ids(4, 8, vocabulary=9), torch.full((4,), 20), torch.full((4,), 8))

    _train(nn.Linear(WIDTH, 10), loss)


def _transformers(name, **changes):
    import transformers

    config = getattr(transformers, f"{name}Config")(**changes)
    return transformers, config


def _language_model(name, **changes):
    transformers, config = _transformers(
        name, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2, **changes,
    )  # fmt: skip
    return getattr(transformers, f"{name}ForCausalLM")(config)


def _next_token(model):
    ids = _ids(2, 16)
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss


def mixtral():
    _train(_language_model("Mixtral", num_local_experts=4, num_experts_per_tok=2), _next_token)


def qwen_moe():
    model = _language_model("Qwen2Moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                            shared_expert_intermediate_size=16)  # fmt: skip
    _train(model, _next_token)


class Experts(nn.Module):
    """A loop over experts: `chosen` are those of each row."""

    def __init__(self, choose):
        super().__init__()
        self.experts, self.router = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4)), nn.Linear(WIDTH, 4)
        self.choose = choose

    def forward(self, rows):
        chosen = self.choose(self.router(rows))
        out = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            row, _ = torch.where(chosen == number)
            out = out.index_add(0, row, expert(rows[row]))
        return out


def loop_over_experts():
    _train(Experts(lambda scores: scores.topk(2).indices), lambda model: model(_rows(512, WIDTH)).sum())


def one_expert():
    _train(Experts(lambda scores: scores.argmax(-1, keepdim=True)), lambda model: model(_rows(512, WIDTH)).sum())


def _evaluated(**how):
    model = _language_model("Llama").to("cuda")
    _train(model, _next_token)
    model.eval()
    ids = _ids(2, 8)
    return list(model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, **how).shape)


def greedy():
    return _evaluated(do_sample=False)


def sampled():
    return _evaluated(do_sample=True, top_k=10, top_p=0.9)


def endless():
    """A loop that only a certain token ends."""
    head, table = nn.Linear(WIDTH, 100).to("cuda"), nn.Embedding(100, WIDTH).to("cuda")
    token = _ids(1)
    while token.item() != 7:
        token = head(table(token)).argmax(-1)  # among so few classes as if they were experts, were it in a module


def _peft(**config):
    import peft

    return peft.get_peft_model(_language_model("Llama"), peft.get_peft_config(config))


def boft():
    _train(_peft(peft_type="BOFT", boft_block_size=4, boft_n_butterfly_factor=1, target_modules=["q_proj"]),
           _next_token)  # fmt: skip


def shira():
    _train(_peft(peft_type="SHIRA", r=4, mask_type="random", random_seed=42, target_modules=["q_proj"]), _next_token)


def lora():
    _train(_peft(peft_type="LORA", r=4, target_modules=["q_proj", "v_proj"]), _next_token)


def sparse_embedding():
    _train(
        nn.Embedding(100, WIDTH, sparse=True), lambda model: model(_ids(4, 8)).sum(), optimizer=torch.optim.SparseAdam
    )


def sparse_bag():
    _train(nn.EmbeddingBag(100, WIDTH, sparse=True), lambda model: model(_ids(4, 8)).sum(), optimizer=torch.optim.SGD)


def bag():
    _train(nn.EmbeddingBag(100, WIDTH), lambda model: model(_ids(4, 8)).sum())


def flex_attention():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    layer = nn.Linear(WIDTH, WIDTH)

    def loss(model):
        rows = model(_rows(2, 128, WIDTH)).view(2, 128, 16, 16).transpose(1, 2)
        mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, 128, 128, device="cuda")
        return flex_attention(rows, rows, rows, block_mask=mask).sum()

    _train(layer, loss)


def func_grad():
    model = nn.Linear(WIDTH, 2).to("cuda")
    rows = _rows(8, WIDTH)

    def loss(parameters, row):
        return torch.func.functional_call(model, parameters, (row,)).sum()

    given = {name: value.detach() for name, value in model.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(given, rows)
    _train(model, lambda model: model(rows).sum())
    return list(each["weight"].shape)


def nested():
    def loss(model):
        rows = torch.nested.nested_tensor([torch.randn(n, WIDTH) for n in (3, 5)], layout=torch.jagged).to("cuda")
        return model(rows).values().sum()

    _train(nn.Linear(WIDTH, WIDTH), loss)


def policy():
    """Reinforcement learning: an action is drawn, and decides what comes next."""

    def loss(model):
        state, total = _rows(4, WIDTH), 0.0
        for _ in range(3):
            chances = torch.distributions.Categorical(logits=model(state))
            action = chances.sample()
            total = total - chances.log_prob(action).mean()
            state = state + action[:, None]
            if action[0].item() == 3:
                break
        return total

    _train(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)), loss)


@contextlib.contextmanager
def _group(backend):
    import tempfile

    folder = tempfile.mkdtemp()
    torch.distributed.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def _parallel(backend):
    with _group(backend):
        model = nn.parallel.DistributedDataParallel(nn.Linear(WIDTH, WIDTH).to("cuda"))
        _train(model, lambda model: model(_rows(4, WIDTH)).sum())


def _sharded(backend):
    from torch.distributed.fsdp import fully_shard

    with _group(backend):
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)).to("cuda")
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
        _train(model, lambda model: model(_rows(4, WIDTH)).sum())


def compiled():
    _train(torch.compile(nn.Linear(WIDTH, WIDTH)), lambda model: model(_rows(4, WIDTH)).sum())


def graph():
    graph = torch.cuda.CUDAGraph()
    model = nn.Linear(WIDTH, WIDTH).to("cuda")
    with torch.cuda.graph(graph):
        model(_rows(4, WIDTH)).sum().backward()


def t5():
    transformers, config = _transformers("T5", d_model=WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=4,
                                         vocab_size=100, decoder_start_token_id=0)  # fmt: skip
    _train(transformers.T5ForConditionalGeneration(config), _next_token)


def whisper():
    transformers, config = _transformers(
        "Whisper", d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, vocab_size=100,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=50, num_mel_bins=16,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    _train(transformers.WhisperForConditionalGeneration(config),
           lambda model: model(input_features=_rows(2, 16, 100), labels=_ids(2, 8)).loss)  # fmt: skip


def mamba():
    transformers, config = _transformers("Mamba", hidden_size=WIDTH, num_hidden_layers=1, vocab_size=100, state_size=4)
    _train(transformers.MambaForCausalLM(config), lambda model: model(input_ids=_ids(2, 8), labels=_ids(2, 8)).loss)


def vit():
    transformers, config = _transformers("ViT", hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4,
                                         intermediate_size=64, image_size=32)  # fmt: skip
    _train(transformers.ViTForImageClassification(config),
           lambda model: model(pixel_values=_rows(2, 3, 32, 32), labels=_ids(2, vocabulary=2)).loss)  # fmt: skip


class UNet(nn.Module):
    """Down, across and up, with a skip; the noise level is added in between."""

    def __init__(self):
        super().__init__()
        self.down, self.middle = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.up, self.level, self.norm = nn.ConvTranspose2d(32, 3, 2, 2), nn.Embedding(1000, 16), nn.GroupNorm(4, 16)

    def forward(self, pictures, levels):
        low = functional.silu(self.norm(self.down(pictures)))
        middle = functional.silu(self.middle(low + self.level(levels)[..., None, None]))
        return self.up(torch.cat([low, middle], 1))


def diffusion():
    def loss(model):
        clean, noise, levels = _rows(2, 3, 16, 16), _rows(2, 3, 16, 16), _ids(2, vocabulary=1000)
        share = torch.linspace(0, 1, 1000, device="cuda")[levels][:, None, None, None]
        return functional.mse_loss(model(clean * share + noise * (1 - share), levels), noise)

    _train(UNet(), loss)


def residual():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

        def forward(self, x):
            return functional.relu(x + self.norm(self.first(x)))

    model = nn.Sequential(nn.Conv2d(3, 8, 3), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    _train(model, lambda model: functional.cross_entropy(model(_rows(2, 3, 16, 16)), _ids(2, vocabulary=10)))


def own_fault():
    """What the program does wrong itself, on any device."""
    nn.Linear(4, 4).to("cuda")(_rows(2, 5))


def own_error():
    raise KeyError("learning_rat")


PRELOADED = ("transformers.models.llama", "peft", "torch.distributed", "torch.distributions")  # once, not in each fork
KINDS = {
    "GRU": gru, "packed LSTM": packed_lstm, "CTC": ctc, "Mixtral": mixtral, "Qwen MoE": qwen_moe,
    "loop over experts": loop_over_experts, "one expert a token": one_expert, "greedy generation": greedy,
    "sampled generation": sampled, "endless loop": endless, "BOFT": boft, "SHiRA": shira, "LoRA": lora,
    "sparse embedding": sparse_embedding, "sparse embedding bag": sparse_bag, "embedding bag": bag,
    "flex attention": flex_attention, "torch.func": func_grad, "nested tensors": nested, "drawn actions": policy,
    "DDP, gloo": lambda: _parallel("gloo"), "DDP, nccl": lambda: _parallel("nccl"),
    "FSDP2, nccl": lambda: _sharded("nccl"),
    "torch.compile": compiled, "CUDA graph": graph, "T5": t5, "Whisper": whisper, "Mamba": mamba, "ViT": vit,
    "U-Net diffusion": diffusion, "convolutions": residual, "own fault": own_fault, "own error": own_error,
}  # fmt: skip
