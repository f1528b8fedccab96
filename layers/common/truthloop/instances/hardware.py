"""Which GPU an instance type has, whether an image has kernels for it, and which driver it must be given.

Sources: the EC2 documentation's table of accelerated instances for GPUs, their number and memory; NVIDIA's
table of compute capabilities (developer.nvidia.com/cuda-gpus); the CUDA C++ Programming Guide, "Binary
Compatibility" and "PTX Compatibility", for the rule; PyTorch's ``.ci/manywheel/build_cuda.sh`` for what a
wheel is built with; the SageMaker guide's "Best practices to minimize interruptions during GPU driver
upgrades" for drivers. ``docs/instances.md`` shows the same to people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SHIPPED_ARCHITECTURES = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
"""What torch 2.7.1+cu126, which containers/base installs, is built for: 5.0 to 9.0, without PTX.

``torch._C._cuda_getArchFlags()`` says so, on a machine without a GPU too.
"""

TRAINING_INSTANCES = 2
"""Instances that a run needs at the same time: TrainOld and TrainNew, one each, side by side."""

SUCCESSORS = ("ml.g4dn.12xlarge", "ml.g5.12xlarge", "ml.g6.12xlarge", "ml.g6e.12xlarge")
"""Types with four GPUs, as ml.p3.8xlarge has, that are offered where P3 is not."""

_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


@dataclass(frozen=True)
class Gpu:
    """One model of GPU.

    `capability` is the compute capability (major, minor); `memory_gb` is per GPU; `arm` says that the
    instance's processor is Arm, on which no x86-64 image runs.
    """

    name: str
    capability: tuple[int, int]
    memory_gb: int
    arm: bool = False

    @property
    def architecture(self) -> str:
        """The capability as the compiler spells it: ``sm_75``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


_SMALL_G = {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "16xlarge": 1}
_LARGE_G = {**_SMALL_G, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8}
_BLACKWELL_G = {"2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 2, "24xlarge": 4, "48xlarge": 8}

FAMILIES: Mapping[str, tuple[Gpu, Mapping[str, int]]] = {
    "p2": (Gpu("K80", (3, 7), 12), {"xlarge": 1, "8xlarge": 8, "16xlarge": 16}),
    "p3": (Gpu("V100", (7, 0), 16), {"2xlarge": 1, "8xlarge": 4, "16xlarge": 8}),
    "p3dn": (Gpu("V100", (7, 0), 32), {"24xlarge": 8}),
    "p4d": (Gpu("A100", (8, 0), 40), {"24xlarge": 8}),
    "p4de": (Gpu("A100", (8, 0), 80), {"24xlarge": 8}),
    "p5": (Gpu("H100", (9, 0), 80), {"4xlarge": 1, "48xlarge": 8}),
    "p5e": (Gpu("H200", (9, 0), 141), {"48xlarge": 8}),
    "p5en": (Gpu("H200", (9, 0), 141), {"48xlarge": 8}),
    "p6-b200": (Gpu("B200", (10, 0), 180), {"48xlarge": 8}),
    "p6-b300": (Gpu("B300", (10, 3), 268), {"48xlarge": 8}),
    "p6e-gb200": (Gpu("GB200", (10, 0), 185, arm=True), {"36xlarge": 4}),
    "g4dn": (Gpu("T4", (7, 5), 16), {**_SMALL_G, "12xlarge": 4}),
    "g5": (Gpu("A10G", (8, 6), 24), _LARGE_G),
    "g6": (Gpu("L4", (8, 9), 24), _LARGE_G),
    "g6e": (Gpu("L40S", (8, 9), 48), _LARGE_G),
    "g7": (Gpu("RTX PRO 4500 Blackwell", (12, 0), 32), {"2xlarge": 1, "4xlarge": 1, "8xlarge": 1}),
    "g7e": (Gpu("RTX PRO 6000 Blackwell", (12, 0), 96), _BLACKWELL_G),
}
"""GPU families that SageMaker trains on: the GPU, and how many of them each size has, as far as known."""

OTHER_ACCELERATORS = {
    "trn1": "Trainium",
    "trn1n": "Trainium",
    "trn2": "Trainium 2",
    "inf1": "Inferentia",
    "inf2": "Inferentia 2",
}
"""Accelerators that are no GPU: they need an image built with AWS Neuron."""

_CPU_FAMILY = re.compile(r"[cmrt]\d\w*(?:-flex)?")
_ARM_FAMILY = re.compile(r"[cmrt]\d+g\w*")

INFERENCE_AMI = "al2-ami-sagemaker-inference-gpu-2"
"""Host image of endpoints with NVIDIA driver 535: CUDA 12 runs on drivers from 525 on."""

_OLD_ENDPOINT_DRIVER = frozenset(("p3", "p4d", "p4de", "g4dn", "g5"))
"""Families whose endpoints have driver 470 (CUDA 11.4) unless the variant names a host image."""


@dataclass(frozen=True)
class Hardware:
    """What is known of an instance type.

    Without a `gpu` a `known` type has none, or has `other` accelerators. A `count` of 0 is not known. `arm`
    says that its processor is Arm, on which no x86-64 image runs.
    """

    instance_type: str
    known: bool
    gpu: Gpu | None = None
    count: int = 0
    other: str = ""
    arm: bool = False


def hardware(instance_type: str) -> Hardware:
    """Look an instance type (``ml.g5.12xlarge``) up."""
    _, _, rest = instance_type.partition(".")
    family, _, size = rest.partition(".")
    if family in FAMILIES:
        gpu, sizes = FAMILIES[family]
        return Hardware(instance_type, True, gpu, sizes.get(size, 0), arm=gpu.arm)
    if family in OTHER_ACCELERATORS:
        return Hardware(instance_type, True, other=OTHER_ACCELERATORS[family])
    known, arm = _CPU_FAMILY.fullmatch(family), _ARM_FAMILY.fullmatch(family)
    return Hardware(instance_type, bool(known), arm=bool(arm))


def inference_ami(instance_type: str) -> str | None:
    """Return the host image that an endpoint needs for the images' CUDA 12, or None where the default does.

    With driver 470, the default, torch finds no GPU and serves on the CPU at the GPU's price, silently.
    """
    family = instance_type.removeprefix("ml.").partition(".")[0]
    return INFERENCE_AMI if family in _OLD_ENDPOINT_DRIVER else None


def runs_on(architectures: Iterable[str], gpu: Gpu) -> str | None:
    """Return the architecture of a build that a GPU can run, or None.

    A binary (``sm_86``) runs on the same major capability with the same or a higher minor: 8.6 on an L4
    (8.9), but neither on an A100 (8.0) nor on an H100 (9.0). PTX (``compute_90``) is compiled by the driver
    for every capability from its own on. With suffix ``a`` either is for exactly that capability; with ``f``
    it stays within the family, which is the major capability.

    Parameters
    ----------
    architectures : iterable of str
        As ``torch.cuda.get_arch_list()`` spells them.
    gpu : Gpu
        What it shall run on.
    """
    found: list[tuple[bool, tuple[int, int], str]] = []
    for name in architectures:
        match = _ARCHITECTURE.fullmatch(name)
        if match is None:
            continue
        capability = int(match[2]), int(match[3])
        same_family = capability[0] == gpu.capability[0] and capability[1] <= gpu.capability[1]
        if match[4] == "a":
            serves = capability == gpu.capability
        elif match[1] == "sm" or match[4] == "f":
            serves = same_family
        else:
            serves = capability <= gpu.capability
        if serves:
            found.append((match[1] == "sm", capability, name))
    return max(found)[2] if found else None


def judge_image(instance_type: str, architectures: Iterable[str]) -> tuple[bool, str]:
    """Say whether an image built for `architectures` can train on an instance type, and why in words."""
    built = tuple(architectures)
    known = hardware(instance_type)
    if known.other:
        return False, (
            f"{instance_type} has {known.other}, which the training image does not serve; choose a type with "
            f"NVIDIA GPUs ({', '.join(SUCCESSORS)}) as TrainingInstanceType"
        )
    gpu = known.gpu
    if gpu is None and not known.known:
        return False, (
            f"it is not known which GPU {instance_type} has; choose another TrainingInstanceType, "
            f"for example {SUCCESSORS[0]}, or add the family to truthloop/instances/hardware.py"
        )
    if known.arm:
        return False, (
            f"{instance_type} has Arm processors, and the training image is built for x86-64; choose another "
            f"TrainingInstanceType, for example {SUCCESSORS[0]}"
        )
    if gpu is None:
        return True, f"{instance_type} has no GPU: the image trains there, slowly"
    chosen = runs_on(built, gpu)
    what = f"{known.count} × {gpu.name}" if known.count else gpu.name
    if chosen is None:
        return False, (
            f"{instance_type} has {what} ({gpu.architecture}), and the training image has no kernels for it "
            f"(it has {', '.join(built)}); choose another TrainingInstanceType, or build the image with a "
            "PyTorch that has them and name its list in TrainingImageArchitectures"
        )
    return True, f"{instance_type} has {what} ({gpu.architecture}); the image's {chosen} kernels run on it"
