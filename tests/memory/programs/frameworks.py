"""Small work by transformers' Trainer, with peft, by Lightning and by PyTorch Geometric, as their users do it."""

from dataclasses import dataclass

import torch
from torch import nn

import pytest_trainguard as trainguard


@dataclass
class Config:
    batch_size: int = 16
    max_length: int = 128
    precision: str = "fp32"
    lora: bool = False
    checkpointing: bool = False
    attention: str = "sdpa"
    accumulation: int = 1
    optim: str = "adamw_torch"


class Ids(torch.utils.data.Dataset):
    def __init__(self, rows, length):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(5, 500, (rows, length), generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        ids = self.ids[index]
        mask = torch.ones_like(ids)
        mask[len(ids) - index % 7 :] = 0
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.clone()}


def language_model(config):
    import transformers

    settings = transformers.LlamaConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=512,
        vocab_size=1000, max_position_embeddings=512, attn_implementation=config.attention,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(settings)
    if config.lora:
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))
    return model


class HuggingFace(trainguard.Trainer):
    config = Config

    def train(self, run):
        import transformers

        chosen = run.config
        rows = Ids(4 * chosen.batch_size * chosen.accumulation, chosen.max_length)
        arguments = transformers.TrainingArguments(
            output_dir=str(run.output_dir), per_device_train_batch_size=chosen.batch_size, max_steps=run.max_steps,
            gradient_accumulation_steps=chosen.accumulation, bf16=chosen.precision == "bf16",
            fp16=chosen.precision == "fp16", gradient_checkpointing=chosen.checkpointing, eval_strategy="steps",
            eval_steps=2, save_steps=2, logging_steps=1, report_to=[], dataloader_num_workers=2, optim=chosen.optim,
        )  # fmt: skip
        model = language_model(chosen)
        if chosen.lora and chosen.checkpointing:
            model.enable_input_require_grads()
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=Ids(8, chosen.max_length))
        trainer.train()
        trainer.save_model()


class Lit(trainguard.Trainer):
    config = Config

    def train(self, run):
        import lightning

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Dropout(0.1), nn.Linear(1024, 10))

            def training_step(self, batch, index):
                x, y = batch
                loss = nn.functional.cross_entropy(self.net(x), y)
                self.log("loss", loss, prog_bar=True)
                return loss

            def validation_step(self, batch, index):
                x, y = batch
                self.log("accuracy", (self.net(x).argmax(1) == y).float().mean())

            def configure_optimizers(self):
                return torch.optim.AdamW(self.parameters())

        rows = torch.utils.data.TensorDataset(
            torch.zeros(4 * run.config.batch_size, 256), torch.zeros(4 * run.config.batch_size).long()
        )
        loader = torch.utils.data.DataLoader(rows, run.config.batch_size, num_workers=1)
        trainer = lightning.Trainer(
            accelerator="auto", devices=1, max_steps=run.max_steps, default_root_dir=run.output_dir, logger=False,
            precision={"bf16": "bf16-mixed", "fp16": "16-mixed"}.get(run.config.precision, "32-true"),
            accumulate_grad_batches=run.config.accumulation, val_check_interval=1.0, gradient_clip_val=1.0,
        )  # fmt: skip
        trainer.fit(Module(), loader, torch.utils.data.DataLoader(rows, run.config.batch_size))


class Graphs(trainguard.Trainer):
    """Attention over edges, pooling to the top half of nodes, edges dropped at random: sizes that are data's own."""

    config = Config

    def train(self, run):
        from torch_geometric.data import Data
        from torch_geometric.loader import DataLoader
        from torch_geometric.nn import GATConv, SAGEConv, TopKPooling, global_mean_pool
        from torch_geometric.utils import add_self_loops, dropout_edge

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.third = GATConv(16, 64, heads=4), SAGEConv(256, 256), SAGEConv(256, 256)
                self.pool = TopKPooling(256, ratio=0.5) if run.config.attention == "topk" else None
                self.head = nn.Linear(256, 2)

            def forward(self, data):
                x, edges, batch = data.x, data.edge_index, data.batch
                edges, _ = dropout_edge(edges, p=0.2, training=self.training)
                edges, _ = add_self_loops(edges, num_nodes=x.size(0))
                x = self.second(self.first(x, edges).relu(), edges).relu()
                if self.pool is not None:
                    x, edges, _, batch, _, _ = self.pool(x, edges, None, batch)
                return self.head(global_mean_pool(self.third(x, edges), batch))

        def graph(number):
            nodes = 100 + number
            source = torch.arange(nodes).repeat_interleave(3)
            target = (source * 7 + torch.arange(3 * nodes)) % nodes
            return Data(x=torch.ones(nodes, 16), edge_index=torch.stack([source, target]), y=torch.tensor([number % 2]))

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = Net().to(device)
        optimizer = torch.optim.Adam(model.parameters())
        loader = DataLoader([graph(number) for number in range(64)], batch_size=run.config.batch_size, shuffle=True)
        for step, batch in enumerate(loader):
            if step == run.max_steps:
                break
            batch = batch.to(device)
            loss = nn.functional.cross_entropy(model(batch), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
