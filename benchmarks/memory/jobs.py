"""The training jobs that predictions of GPU memory are judged on: one trainer, its settings say which.

Models are made from configurations, with random weights, rows with random tokens of full length: what decides about
memory. Sizes are the published ones. A plain loop with everything that a team's loop has: autocast, gradient scaler,
accumulation, clipping, checkpointing, LoRA, padding masks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from pytest_trainguard import Run, Trainer

Batch = dict[str, torch.Tensor]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Settings:
    """One job. `architecture` is a key of `ARCHITECTURES`; `max_length` counts tokens, pixels of a side, or nodes."""

    architecture: str = "roberta-base"
    batch_size: int = field(default=16, metadata={"ge": 1, "le": 65_536})
    max_length: int = field(default=512, metadata={"ge": 8, "le": 65_536})
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    optimizer: Literal["adamw", "adamw_loop", "adamw_fused", "sgd", "adafactor"] = "adamw"
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    padded: bool = False
    lora: bool = False


class Job(Trainer):
    """A plain loop."""

    config = Settings

    def train(self, run: Run) -> None:
        """Train for `run.max_steps` optimizer steps."""
        settings: Settings = run.config
        device = torch.device("cuda")
        with device, _dtype(settings):  # where it will be, so that 7 billion weights need no memory of the host's
            model, batch = ARCHITECTURES[settings.architecture](settings)
        model = _prepared(model, settings).to(device)
        learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = _optimizer(learns, settings)
        scaler = torch.amp.GradScaler("cuda", enabled=settings.precision == "fp16")
        for _ in range(run.max_steps):
            for _ in range(settings.gradient_accumulation):
                rows = {name: value.to(device) for name, value in batch().items()}
                with _autocast(settings):
                    loss = model(**rows).loss / settings.gradient_accumulation
                scaler.scale(loss).backward()
                del loss, rows
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(learns, 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()


class HuggingFace(Trainer):
    """The same models in `transformers.Trainer`."""

    config = Settings

    def train(self, run: Run) -> None:
        """Train for `run.max_steps` optimizer steps."""
        import transformers

        settings: Settings = run.config
        model, batch = ARCHITECTURES[settings.architecture](settings)
        rows = [{name: value[0] for name, value in batch().items()} for _ in range(settings.batch_size * 4)]
        arguments = transformers.TrainingArguments(
            output_dir=str(run.output_dir), max_steps=run.max_steps, report_to=[], save_strategy="no",
            per_device_train_batch_size=settings.batch_size, bf16=settings.precision == "bf16",
            gradient_accumulation_steps=settings.gradient_accumulation, disable_tqdm=True,
            gradient_checkpointing=settings.gradient_checkpointing,
        )  # fmt: skip
        transformers.Trainer(model=model, args=arguments, train_dataset=rows).train()


def _prepared(model: Any, settings: Settings) -> Any:
    model.train()
    if settings.lora:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=16, target_modules=["q_proj", "v_proj"]))
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if settings.lora:
            model.enable_input_require_grads()
    return model


@contextlib.contextmanager
def _dtype(settings: Settings) -> Iterator[None]:
    """What weights are made in: half precision where only adapters learn."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if settings.lora else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _optimizer(learns: list[torch.nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(learns, lr=1e-2, momentum=0.9)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(learns, lr=1e-3)
    ways: dict[str, Any] = {"adamw": {}, "adamw_loop": {"foreach": False}, "adamw_fused": {"fused": True}}
    return torch.optim.AdamW(learns, lr=1e-5, **ways[settings.optimizer])


def _autocast(settings: Settings) -> Any:
    dtype = DTYPES.get(settings.precision)
    return torch.autocast("cuda", dtype=dtype) if dtype else contextlib.nullcontext()


Built = tuple[torch.nn.Module, Callable[[], Batch]]


def _texts(settings: Settings, vocabulary: int, *, rows_have_one_label: bool) -> Callable[[], Batch]:
    """Batches of token ids [batch, length]; where they are padded, the second half of each row."""

    def batch() -> Batch:
        size, length = settings.batch_size, settings.max_length
        ids = torch.randint(5, vocabulary, (size, length))
        mask = torch.ones(size, length, dtype=torch.long)
        if settings.padded:
            mask[:, length // 2 :] = 0
        labels = torch.randint(0, 2, (size,)) if rows_have_one_label else ids.clone()
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    return batch


def _roberta(settings: Settings, *, large: bool) -> Built:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    config = RobertaConfig(vocab_size=50_265, max_position_embeddings=settings.max_length + 2, type_vocab_size=1,
                           **(sizes if large else {}))  # fmt: skip
    return RobertaForSequenceClassification(config), _texts(settings, 50_265, rows_have_one_label=True)


def _bert_eager(settings: Settings) -> Built:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(attn_implementation="eager")
    return BertForSequenceClassification(config), _texts(settings, config.vocab_size, rows_have_one_label=True)


def _gpt2(settings: Settings) -> Built:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_positions=max(1024, settings.max_length))
    return GPT2LMHeadModel(config), _texts(settings, config.vocab_size, rows_have_one_label=False)


def _llama(settings: Settings, **sizes: int) -> Built:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=32_000, use_cache=False, **sizes)
    return LlamaForCausalLM(config), _texts(settings, 32_000, rows_have_one_label=False)


def _t5_small(settings: Settings) -> Built:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(decoder_start_token_id=0, use_cache=False)
    return T5ForConditionalGeneration(config), _texts(settings, config.vocab_size, rows_have_one_label=False)


def _pictures(settings: Settings) -> Callable[[], Batch]:
    def batch() -> Batch:
        pixels = torch.randn(settings.batch_size, 3, settings.max_length, settings.max_length)
        return {"pixel_values": pixels, "labels": torch.randint(0, 1000, (settings.batch_size,))}

    return batch


def _vit(settings: Settings) -> Built:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(num_labels=1000, image_size=settings.max_length)
    return ViTForImageClassification(config), _pictures(settings)


def _resnet(settings: Settings) -> Built:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig(num_labels=1000)), _pictures(settings)


@dataclass
class Output:
    """What the models of `transformers` return, as far as the loop looks at it."""

    loss: torch.Tensor


class Lstm(torch.nn.Module):
    """Three layers over embedded tokens, with a head over the vocabulary at the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(10_000, 512)
        self.lstm = torch.nn.LSTM(512, 1024, num_layers=3, batch_first=True, dropout=0.1)
        self.head = torch.nn.Linear(1024, 2)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor) -> Output:
        """Cross entropy of rows [batch, length]."""
        states, _ = self.lstm(self.embedding(input_ids))
        return Output(torch.nn.functional.cross_entropy(self.head(states[:, -1]), labels))


class Graph(torch.nn.Module):
    """Four layers of PyTorch Geometric over one graph."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.first = torch.nn.Linear(128, 256)
        self.layers = torch.nn.ModuleList(layer(256, 256) for _ in range(4))
        self.head = torch.nn.Linear(256, 10)

    def forward(self, x: torch.Tensor, edges: torch.Tensor, labels: torch.Tensor) -> Output:
        """Cross entropy of nodes [nodes, 128], over edges [2, edges]."""
        x = self.first(x)
        for layer in self.layers:
            x = torch.relu(layer(x, edges))
        return Output(torch.nn.functional.cross_entropy(self.head(x), labels))


def _graphs(settings: Settings, layer: str) -> Built:
    import torch_geometric.nn

    nodes = settings.batch_size * settings.max_length

    def batch() -> Batch:
        edges = torch.randint(0, nodes, (2, nodes * 8))
        return {"x": torch.randn(nodes, 128), "edges": edges, "labels": torch.randint(0, 10, (nodes,))}

    return Graph(getattr(torch_geometric.nn, layer)), batch


LLAMA_1B = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 8192}  # fmt: skip
LLAMA_7B = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11_008}
ARCHITECTURES: dict[str, Callable[[Settings], Built]] = {
    "roberta-base": lambda settings: _roberta(settings, large=False),
    "roberta-large": lambda settings: _roberta(settings, large=True),
    "bert-eager": _bert_eager,
    "gpt2": _gpt2,
    "llama-1b": lambda settings: _llama(settings, **LLAMA_1B),
    "llama-7b": lambda settings: _llama(settings, **LLAMA_7B),
    "t5-small": _t5_small,
    "vit-base": _vit,
    "resnet-50": _resnet,
    "lstm": lambda settings: (Lstm(), _texts(settings, 10_000, rows_have_one_label=True)),
    "gcn": lambda settings: _graphs(settings, "GCNConv"),
    "gat": lambda settings: _graphs(settings, "GATConv"),
    "sage": lambda settings: _graphs(settings, "SAGEConv"),
}
CALIBRATED = ("roberta-base", "gpt2", "llama-1b", "vit-base", "lstm", "gcn")  # the others are scored


def configurations() -> dict[str, tuple[str, dict[str, Any]]]:
    """The jobs by name: the trainer, and the settings."""
    bf16: dict[str, Any] = {"precision": "bf16"}
    plain: dict[str, dict[str, Any]] = {
        "roberta-base fp32": {"architecture": "roberta-base"},
        "roberta-base bf16": {"architecture": "roberta-base", "batch_size": 64, **bf16},
        "roberta-base bf16 padded": {"architecture": "roberta-base", "batch_size": 64, "padded": True, **bf16},
        "roberta-base bf16 checkpointing": {"architecture": "roberta-base", "batch_size": 64,
                                            "gradient_checkpointing": True, **bf16},
        "roberta-base fp16": {"architecture": "roberta-base", "batch_size": 64, "precision": "fp16"},
        "roberta-large bf16": {"architecture": "roberta-large", "batch_size": 32, **bf16},
        "roberta-large bf16 padded": {"architecture": "roberta-large", "batch_size": 32, "padded": True, **bf16},
        "bert-eager fp32": {"architecture": "bert-eager"},
        "bert-eager bf16 accumulation": {"architecture": "bert-eager", "gradient_accumulation": 4, **bf16},
        "gpt2 bf16": {"architecture": "gpt2", "batch_size": 8, "max_length": 1024, **bf16},
        "gpt2 fp32 loop": {"architecture": "gpt2", "batch_size": 4, "max_length": 1024, "optimizer": "adamw_loop"},
        "gpt2 bf16 fused": {"architecture": "gpt2", "batch_size": 8, "max_length": 1024, "optimizer": "adamw_fused",
                            **bf16},
        "llama-1b bf16": {"architecture": "llama-1b", "batch_size": 2, "max_length": 1024, **bf16},
        "llama-1b bf16 adafactor": {"architecture": "llama-1b", "batch_size": 2, "max_length": 1024,
                                    "optimizer": "adafactor", **bf16},
        "llama-7b lora": {"architecture": "llama-7b", "batch_size": 1, "max_length": 2048, "lora": True, **bf16},
        "llama-7b lora checkpointing": {"architecture": "llama-7b", "batch_size": 1, "max_length": 2048, "lora": True,
                                        "gradient_checkpointing": True, **bf16},
        "t5-small fp32": {"architecture": "t5-small"},
        "t5-small bf16 sgd": {"architecture": "t5-small", "optimizer": "sgd", **bf16},
        "vit-base bf16": {"architecture": "vit-base", "batch_size": 64, "max_length": 224, **bf16},
        "resnet-50 fp32": {"architecture": "resnet-50", "batch_size": 64, "max_length": 224, "optimizer": "sgd"},
        "resnet-50 bf16": {"architecture": "resnet-50", "batch_size": 128, "max_length": 224, **bf16},
        "lstm fp32": {"architecture": "lstm", "batch_size": 64, "max_length": 256},
        "gcn fp32": {"architecture": "gcn", "batch_size": 64, "max_length": 1024},
        "gat fp32": {"architecture": "gat", "batch_size": 32, "max_length": 1024},
        "sage fp32": {"architecture": "sage", "batch_size": 64, "max_length": 1024},
    }  # fmt: skip
    jobs = {name: ("Job", values) for name, values in plain.items()}
    jobs["roberta-base bf16 transformers.Trainer"] = (
        "HuggingFace", {"architecture": "roberta-base", "batch_size": 32, **bf16},
    )  # fmt: skip
    return jobs
