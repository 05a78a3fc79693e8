"""Causes of failed starts that all engines share: container runtime, GPU driver, Hub, disk, NCCL, ports.

Patterns are texts of Docker, CUDA, PyTorch, NCCL and the Hugging Face Hub's client. An engine puts these groups between
its own causes; see failure.py for why the order matters.
"""

from __future__ import annotations

from harness.engines.failure import Cause

_TOKEN_REFUSED = "the Hub refuses this model without an accepted token"
_GET_TOKEN = (
    "Accept the model's licence on its Hub page, then set HF_TOKEN to a token of that account, or `hf auth login`."
)
_NOT_IN_CACHE = "the model is not in the cache and the Hub is not asked"
_FILL_CACHE = "Take HF_HUB_OFFLINE away for the first start, or put the model's folder there and name it as `repo`."

RUNTIME: tuple[Cause, ...] = (
    # what the container runtime says before any engine runs
    Cause(
        "no-gpu-runtime",
        "machine",
        r'could not select device driver "?(?:nvidia|)"? with capabilities:'
        r" \[\[gpu|unknown or invalid runtime name: nvidia"
        r"|unresolvable CDI devices nvidia",
        "Docker has no NVIDIA runtime",
        "Install the NVIDIA Container Toolkit (`apt-get install -y nvidia-container-toolkit && nvidia-ctk"
        " runtime configure"
        " --runtime=docker && systemctl restart docker`), or use --emulate.",
        3,
    ),
    Cause(
        "no-such-runtime",
        "machine",
        r"(?:[Uu]nknown runtime specified|unknown or invalid runtime name:) (\S+)",
        lambda match: f"Docker has no runtime {match[1]}",
        lambda match: (
            f"Install the container runtime of this accelerator's maker and name it {match[1]} in"
            " /etc/docker/daemon.json, or take another `variant` of the engine."
        ),
        3,
    ),
    Cause(
        "no-such-device",
        "machine",
        r"error gathering device information while adding custom device \"([^\"]+)\"",
        lambda match: f"this machine has no {match[1]}",
        "Load the driver of this kind of GPU, or take the `variant` of the engine that is made for this machine's.",
        3,
    ),
    Cause(
        "driver-too-old",
        "machine",
        r"unsatisfied condition: cuda[>=]+\s*([\d.]+)|CUDA driver version is insufficient for CUDA runtime version"
        r"|The NVIDIA driver on your system is too old",
        "the GPU's driver is too old for this image",
        "Install a newer NVIDIA driver (`nvidia-smi` shows what it supports), or take an older engine version.",
        3,
    ),
    Cause(
        "no-such-gpu",
        "machine",
        r"nvidia-container-cli: device error: ([^\n:]+): unknown device|CUDA error: invalid device ordinal",
        "the GPU that the stack asks for is not in this machine",
        "Compare `nvidia-smi -L` with the entry's `gpus`.",
        3,
    ),
    Cause(
        "no-cuda-device",
        "machine",
        r"No CUDA GPUs are available|Found no NVIDIA driver on your system|no CUDA-capable device is detected"
        r"|libcuda\.so\.1: cannot open shared object|nvidia-container-cli: initialization error"
        r"|NotEnoughCUDADevices\(\"([^\"]*)\"\)|Each process is one gpu"
        r"|--num-shard and CUDA_VISIBLE_DEVICES/NVIDIA_VISIBLE_DEVICES/ZE_AFFINITY_MASK are not set",
        "the engine sees no usable GPU, or fewer than it was told to use",
        "Check `nvidia-smi` on the host and the entry's `gpus`; `harness doctor` tells what is missing.",
        3,
    ),
    Cause(
        "gpu-too-old",
        "machine",
        r"no kernel image is available for execution on the device",
        "this GPU is older than the engine's compiled kernels",
        "Take an older engine version, or a GPU of compute capability 8.0 or newer.",
        3,
    ),
)
"""What the container runtime and the GPU driver say before any engine runs."""

HUB: tuple[Cause, ...] = (
    Cause(
        "no-hub-token",
        "machine",
        r"GatedRepoError|[Cc]annot access gated repo|access a gated repo|is restricted\. You must"
        r"|[Aa]ccess to model \S+ is restricted|Invalid (?:user token|credentials in Authorization)",
        _TOKEN_REFUSED,
        _GET_TOKEN,
        3,
    ),
    Cause(
        "no-such-repo",
        "entry",
        r"RepositoryNotFoundError|Repository Not Found for url: (\S+)|is not a (?:local folder|valid model"
        r" identifier)|HFValidationError",
        "the Hub knows no such model, or it is private",
        "Check the entry's `repo`; for a private one set HF_TOKEN.",
        2,
    ),
    # What is missing is refused in the same words, until the library has looked into the answer.
    Cause("no-hub-token", "machine", r"40[13] Client Error", _TOKEN_REFUSED, _GET_TOKEN, 3),
    Cause(
        "no-such-revision",
        "entry",
        r"RevisionNotFoundError|Revision Not Found for url|is not a valid git identifier \(branch name, tag name",
        "the model has no such revision",
        "Check the entry's `revision`: `harness models update` says which one the Hub has now.",
        2,
    ),
    Cause(
        "nccl-shared-memory",
        "machine",
        r"(?s)NCCL[^\n]*(?:/dev/shm|shared memory)|/dev/shm/nccl[^\n]*No space left|No space left on device[^\n]*nccl",
        "shared memory is too small for several shards",
        "Set shm_size to 1 GiB or more (a rendered stack has it), or NCCL_SHM_DISABLE: '1'.",
        3,
    ),
    Cause(
        "nccl",
        "machine",
        r"NCCL error|nccl(?:System|Internal|UnhandledCuda|Remote|InvalidUsage)Error|NCCL WARN[^\n]*(?:failed|error)",
        "the GPUs cannot talk to each other (NCCL)",
        "Set NCCL_DEBUG: INFO in `env` to see why; NCCL_P2P_DISABLE: '1' helps where GPUs have no way to each other's"
        " memory.",
        3,
        worth_a_retry=True,  # a link that was not up yet, a neighbour that held the GPU
    ),
    Cause(
        "no-space",
        "machine",
        r"No space left on device|[Nn]ot enough free disk space|StorageFull",
        "the disk is full",
        "Free space where Docker or the Hub's cache keeps its files (`docker system df`, `df -h`), or move the cache.",
        3,
    ),
)
"""The model cannot be fetched, shards cannot talk, or the disk is full."""

OFFLINE: tuple[Cause, ...] = (
    Cause(
        "not-in-cache",
        "machine",
        r"OfflineModeIsEnabled|outgoing traffic has been disabled|LocalModelNotFound",
        _NOT_IN_CACHE,
        _FILL_CACHE,
        3,
    ),
    Cause(
        "no-hub",
        "machine",
        r"Temporary failure in name resolution|Name or service not known|NameResolutionError|Failed to resolve"
        r"|Max retries exceeded with url: /(?:api/models|[\w.-]+/[\w.-]+/resolve)|Network is unreachable",
        "the Hugging Face Hub cannot be reached",
        "Check the network and the proxy (HTTPS_PROXY), or serve a local directory.",
        3,
        worth_a_retry=True,
    ),
    Cause("not-in-cache", "machine", r"LocalEntryNotFoundError", _NOT_IN_CACHE, _FILL_CACHE, 3),
)
"""The Hub is not asked, or cannot be reached."""

PORT: tuple[Cause, ...] = (
    Cause(
        "port-taken",
        "machine",
        r"(?:Failed to bind to \S*?:?(\d+)?: )?[Aa]ddress already in use|port is already allocated|bind for"
        r" \S+:(\d+) failed",
        "the port is taken",
        "Stop what listens there (`ss -ltnp` shows it), or give the model another `port:`.",
        3,
    ),
)
"""Somebody else listens there."""
