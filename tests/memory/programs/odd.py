"""Programs that do what a fake device cannot always bear: one oddity each, before or in the step of a small loop."""

import os
import subprocess
import sys
from dataclasses import dataclass

import torch
from torch import nn

import pytest_trainguard as trainguard


@dataclass
class Config:
    oddity: str = "none"
    batch_size: int = 64


@torch.library.custom_op("oddlib::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


class Router(nn.Module):
    """Tokens to experts, by the router's own opinion: how many each gets is a matter of the weights."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(64, 2), nn.ModuleList(nn.Linear(64, 64) for _ in range(2))

    def forward(self, x):
        choice = self.gate(x).argmax(dim=1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = torch.where(choice == index)[0]
            out[rows] = expert(x[rows])
        return out


class Odd(trainguard.Trainer):
    config = Config

    def train(self, run):
        oddity = run.config.oddity
        before = getattr(self, f"before_{oddity}", None)
        if before is not None:
            before()
        if not torch.cuda.is_available():
            raise SystemExit("this program needs a GPU")
        model = nn.Sequential(nn.Linear(64, 64), Router() if oddity == "router" else nn.ReLU(), nn.Linear(64, 8))
        early = torch.optim.AdamW(model.parameters())  # some make it before they move the model
        model.cuda()
        called = {"compile": torch.compile, "parallel": nn.DataParallel}.get(oddity, lambda model: model)(model)
        optimizer = early if oddity == "early" else torch.optim.AdamW(model.parameters())
        for step in range(run.max_steps):
            x = torch.randn(run.config.batch_size, 64)
            if oddity == "pinned":
                x = x.pin_memory()
            x = x.to("cuda", non_blocking=True)
            logits = called(x)
            inside = getattr(self, f"inside_{oddity}", None)
            if inside is not None:
                logits = inside(logits)
            loss = logits.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            print(step, loss.item())

    def before_smi(self):
        subprocess.run(["nvidia-smi", "-L"], check=True)

    def before_exits(self):
        sys.exit("no licence for this dongle")

    def before_vanishes(self):
        os._exit(7)

    def before_becomes(self):
        os.execvp("torchrun", ["torchrun", "train.py"])

    def before_asks(self):
        properties = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info()
        assert properties.total_memory == total >= free > 0
        assert properties.major == torch.cuda.get_device_capability()[0]
        assert torch.cuda.device_count() == 1
        torch.cuda.set_device(0)
        torch.cuda.manual_seed_all(0)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.cuda.set_rng_state(torch.cuda.get_rng_state())

    def inside_values(self, logits):
        assert isinstance(logits.mean().item(), float)
        assert isinstance(float(f"{logits.mean():.2f}"), float)
        assert logits.detach().cpu().numpy().shape == (64, 8)
        assert len(logits.argmax(1).tolist()) == 64
        assert not torch.isnan(logits).any()
        assert torch.isfinite(logits).all()
        return logits

    def inside_streams(self, logits):
        side, event = torch.cuda.Stream(), torch.cuda.Event(enable_timing=True)
        event.record()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            copy = logits * 2
        torch.cuda.current_stream().wait_stream(side)
        copy.record_stream(torch.cuda.current_stream())
        torch.cuda.synchronize()
        assert event.query()
        return copy

    def inside_statistics(self, logits):
        assert torch.cuda.max_memory_allocated() >= torch.cuda.memory_allocated() > 0
        assert torch.cuda.memory_stats()["allocated_bytes.all.peak"] > 0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return logits

    def inside_shapeless(self, logits):
        return logits + torch.geqrf(logits.detach())[0]  # torch has no function for its shapes alone

    def inside_extension(self, logits):
        return twice(logits)

    def inside_parallel(self, logits):
        return logits

    def inside_convolution(self, logits):
        layer = nn.Conv1d(1, 4, 3, padding=1).cuda()
        return layer(logits[:, None])

    def inside_recurrent(self, logits):
        return nn.LSTM(8, 8).cuda()(logits[None])[0]

    def inside_layers(self, logits):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).cuda()
        with torch.no_grad():
            layer.eval()(logits[None].detach())
        return layer.train()(logits[None])

    def inside_copies(self, logits):
        import copy
        import tempfile

        path = os.path.join(tempfile.mkdtemp(), "twin.pt")

        twin = copy.deepcopy(nn.Linear(8, 8).cuda())
        twin.load_state_dict(nn.Linear(8, 8).state_dict())
        assert twin.weight.is_cuda
        assert isinstance(twin.weight, nn.Parameter)
        host = torch.zeros(len(logits), 8)
        host.copy_(logits.detach())
        host[0] = logits[0].detach()
        assert twin.half().weight.dtype is torch.float16
        torch.save(
            {"twin": twin.state_dict(), "large": torch.randn(2048, 2048, device="cuda")},
            path,
        )
        assert os.path.getsize(path) < 100_000  # shapes, and no numbers
        loaded = torch.load(path, map_location="cuda", weights_only=True)
        os.remove(path)
        assert loaded["large"].is_cuda
        assert loaded["large"].shape == (2048, 2048)
        twin.load_state_dict(loaded["twin"])
        generator = torch.Generator(device="cuda").manual_seed(0)
        assert torch.rand(4, device="cuda", generator=generator).is_cuda
        rows = torch.utils.data.TensorDataset(torch.randn(4096, 256), torch.zeros(4096))  # large, and on the CPU
        assert next(iter(torch.utils.data.DataLoader(rows, 16)))[0].cuda().shape == (16, 256)
        return logits

    def inside_graph(self, logits):
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            return logits * 2
