"""What is known of GPUs: how much memory a job can use, and what is taken before its first tensor. One table.

`usable` is CUDA's own total (`torch.cuda.get_device_properties(0).total_memory`), which is what torch's messages call
"total capacity": below the data sheet's figure, since the driver keeps some and ECC may take some.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_trainguard.memory.replay.device import Device
from pytest_trainguard.memory.replay.sizes import GIB, MIB

# The CUDA context: code and tables of a process, outside torch's allocator. Since kernels are loaded lazily (CUDA 11.7)
# processes were seen to take from 256 to 430 MiB ("300 something MB", pytorch/pytorch#107667). It depends on the card,
# the driver and the kernels that a job uses; the upper end stands here, so that a tight fit is doubted sooner.
CONTEXT = 430 * MIB

# cuBLAS's workspace, one for each thread and stream that multiplies matrices, held by torch's allocator: 2 x 4 MiB and
# 8 x 16 KiB, from Hopper on 32 MiB. Source: `parseChosenWorkspaceSize`, aten/src/ATen/cuda/CublasHandlePool.cpp.
WORKSPACE = 2 * 4 * MIB + 8 * 16 * 2**10
WORKSPACE_FROM_HOPPER_ON = 32 * MIB
HOPPER_AND_LATER = (9, 10, 12)  # major compute capabilities: Hopper, Blackwell in servers, Blackwell in desktops


@dataclass(frozen=True)
class Card:
    """One kind of GPU.

    Attributes:
        name: as `--gpu-budget` takes it.
        gpu: as torch calls it.
        usable: bytes that CUDA reports in all; of what was seen the least.
        capability: compute capability, which decides between kernels.
        source: where `usable` was seen.
    """

    name: str
    gpu: str
    usable: int
    capability: tuple[int, int]
    source: str

    @property
    def device(self) -> Device:
        """What a program finds out about it."""
        return Device(self.gpu, self.capability, self.usable)


def find_workspace_size(capability: tuple[int, int]) -> int:
    """Bytes of one cuBLAS workspace on a device of this compute capability."""
    return WORKSPACE_FROM_HOPPER_ON if capability[0] in HOPPER_AND_LATER else WORKSPACE


def _card(name: str, gpu: str, gib: float, capability: tuple[int, int], source: str) -> Card:
    return Card(name, gpu, int(gib * GIB), capability, source)


# In messages "GPU 0 has a total capacity of ... GiB" that users posted, unless another source is named.
_TABLE = (
    _card("a100-40gb", "NVIDIA A100-SXM4-40GB", 39.50, (8, 0), "TianheWu/CoSeR#10"),
    _card("a100-80gb", "NVIDIA A100-SXM4-80GB", 79.25, (8, 0), "HiDream-ai/VAREdit#6, levihsu/OOTDiffusion#235"),
    _card("h100", "NVIDIA H100 80GB HBM3", 79.11, (9, 0), "vllm-project/vllm#27508"),
    _card("h200", "NVIDIA H200", 139.0, (9, 0), "data sheet: 141 GB, of which CUDA reports a little over 139 GiB"),
    _card("l4", "NVIDIA L4", 22.0, (8, 9), "nvidia-smi: 23034 MiB (modal-labs/modal-client#2797), as on the A10"),
    _card("a10", "NVIDIA A10", 21.99, (8, 6), "zai-org/CogVLM#236; nvidia-smi: 23028 MiB"),
    _card("l40s", "NVIDIA L40S", 44.53, (8, 9), "Wan-Video/Wan2.1#205"),
    _card("t4", "Tesla T4", 14.56, (7, 5), "Zheng-Chong/CatVTON#133"),
    _card(
        "rtx4090",
        "NVIDIA GeForce RTX 4090",
        23.61,
        (8, 9),
        "pinokiofactory/flux-webui#11; ali-vilab/VGen#104 has 23.64",
    ),
    _card("v100-16gb", "Tesla V100-SXM2-16GB", 15.78, (7, 0), "kchengiva/Shift-GCN#34"),
    _card("v100-32gb", "Tesla V100-SXM2-32GB", 31.74, (7, 0), "liucongg/ChatGLM-Finetuning#73"),
)
CARDS = {card.name: card for card in _TABLE}
ALIASES = {"v100": "v100-16gb", "h100-80gb": "h100", "h200-141gb": "h200", "4090": "rtx4090"}
# What a budget in bytes is a share of, where no card is named or present: of the cards above the most common to rent.
USUAL_CARD = CARDS["a100-40gb"]


def find_card(name: str) -> Card | None:
    """A card by its name, in any case; None where it is not known."""
    plain = name.strip().lower()
    return CARDS.get(ALIASES.get(plain, plain))
