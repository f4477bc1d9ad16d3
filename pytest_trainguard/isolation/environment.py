"""The environment that runs get: trackers and hubs offline, secrets taken out, a scheduler's variables gone.

What stands in the tables is each tool's own documented way of staying offline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple


class Tool(NamedTuple):
    """A tracker or a hub.

    Attributes:
        module: the module that a program imports for it.
        set: what keeps it offline: variable to value; `{run}` stands for a folder that is removed after the run.
        source: where that is documented.
    """

    module: str
    set: Mapping[str, str]
    source: str


TRACKERS = (
    Tool("wandb", {"WANDB_MODE": "offline", "WANDB_DIR": "{run}"}, "docs.wandb.ai/models/track/environment-variables"),
    Tool(
        "mlflow",
        {"MLFLOW_TRACKING_URI": "file:{run}/mlruns", "MLFLOW_REGISTRY_URI": "file:{run}/mlruns"},
        "mlflow.org/docs/latest/ml/tracking/tracking-api",
    ),
    Tool(
        "comet_ml",
        {"COMET_MODE": "offline", "COMET_START_ONLINE": "0", "COMET_OFFLINE_DIRECTORY": "{run}"},
        "comet.com/docs/v2/api-and-sdk/python-sdk/advanced/configuration",
    ),
    Tool("neptune", {"NEPTUNE_MODE": "offline", "NEPTUNE_DATA_DIRECTORY": "{run}"},
         "docs.neptune.ai/api/environment_variables"),
    Tool("neptune_scale", {"NEPTUNE_LOG_DIRECTORY": "{run}"}, "docs.neptune.ai/environment_variables"),
    Tool("clearml", {"CLEARML_OFFLINE_MODE": "1"}, "clear.ml/docs/latest/docs/configs/env_vars"),
    Tool("swanlab", {"SWANLAB_MODE": "offline", "SWANLAB_LOGDIR": "{run}"},
         "docs.swanlab.cn/en/api/environment-variable"),
    Tool("aim", {"AIM_UI_TELEMETRY_ENABLED": "0"}, "github.com/aimhubio/aim, a local repository by default"),
    Tool("dvclive", {"DVC_STUDIO_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}, "dvc.org/doc/studio/user-guide/experiments"),
    Tool("ray", {"RAY_USAGE_STATS_ENABLED": "0"}, "docs.ray.io/en/latest/cluster/usage-stats"),
)  # fmt: skip
HUBS = (
    Tool(
        "huggingface_hub",
        {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        "huggingface.co/docs/huggingface_hub/package_reference/environment_variables",
    ),
    Tool("transformers", {"TRANSFORMERS_OFFLINE": "1"}, "huggingface.co/docs/transformers/installation#offline-mode"),
    Tool("datasets", {"HF_DATASETS_OFFLINE": "1"}, "huggingface.co/docs/datasets/loading#offline"),
)  # fmt: skip

# Names in capitals; a star stands for anything.
SECRETS = (
    "*_TOKEN", "*_TOKENS", "*_API_KEY", "*_APIKEY", "*_ACCESS_KEY", "*_ACCESS_KEY_ID", "*_PRIVATE_KEY", "*_ACCOUNT_KEY",
    "*SECRET*", "*PASSWORD*", "*PASSWD*", "*CREDENTIAL*", "*_WEBHOOK", "*_WEBHOOK_URL", "*_DSN", "DATABASE_URL",
    "AWS_*", "AZURE_*", "KAGGLE_*", "SSH_AUTH_SOCK", "KUBECONFIG",
)  # fmt: skip
# What torchrun, SLURM, Open MPI and the like tell the processes that they start: no run here is one of theirs.
SCHEDULERS = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_*",
    "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_*", "ACCELERATE_*", "SLURM_*", "SLURMD_*", "OMPI_*", "PMI_*", "PMIX_*",
    "PBS_*", "LSB_*", "SGE_*",
)  # fmt: skip
# Below the home folder: what logs a person in somewhere.
SECRET_FILES = (
    ".netrc", "_netrc", ".aws", ".azure", ".boto", ".comet.config", ".config/gcloud", ".config/gh",
    ".config/git/credentials", ".config/rclone", ".config/wandb", ".cache/huggingface/stored_tokens",
    ".cache/huggingface/token", ".docker/config.json",
    ".git-credentials", ".gnupg", ".huggingface", ".kaggle", ".kube", ".pgpass", ".s3cfg", ".ssh", "clearml.conf",
)  # fmt: skip
# The same for tools that can be told where to look, so that it holds where nothing can be hidden.
NOWHERE = {
    "NETRC": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "HF_TOKEN_PATH": os.devnull,
}
# Where libraries keep what they compiled and fetched, by variable, and where that is if nobody says: below the home
# folder, or in the temporary folder (None), which each run has anew.
CACHES: Mapping[str, str | None] = {
    "XDG_CACHE_HOME": ".cache",  # of Hugging Face's libraries, torch's hub, matplotlib, Numba
    "TRITON_CACHE_DIR": ".triton",
    "TORCHINDUCTOR_CACHE_DIR": None,  # of torch.compile
}
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NOBODY = "http://127.0.0.1:9"  # the discard service's port, where nobody listens


def is_secret(name: str, keep: Sequence[str] = ()) -> bool:
    """Whether an environment variable is taken for a secret, and is not to be kept."""
    return _is_of(name, SECRETS) and not _is_of(name, keep)


def _is_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.upper(), pattern.upper()) for pattern in patterns)


def list_taken(environment: Mapping[str, str], keep: Sequence[str]) -> list[str]:
    """The names of the secrets that are taken out of an environment."""
    return sorted(name for name in environment if is_secret(name, keep))


def confine(environment: Mapping[str, str], keep: Sequence[str], *, hubs: bool) -> dict[str, str]:
    """The environment of the servers, and so of all runs.

    Args:
        environment: pytest's own.
        keep: names and patterns of variables that stay as they are.
        hubs: hubs may be reached.
    """
    gone = (*SECRETS, *SCHEDULERS)
    found = {name: value for name, value in environment.items() if not _is_of(name, gone) or _is_of(name, keep)}
    tools = TRACKERS if hubs else (*TRACKERS, *HUBS)
    offline = {name: value for tool in tools for name, value in tool.set.items() if "{run}" not in value}
    # Behaviour is judged on the CPU, and a module may ask for a GPU as it is imported.
    wanted = {**offline, **NOWHERE, "CUDA_VISIBLE_DEVICES": ""}
    return {**found, **{name: value for name, value in wanted.items() if not _is_of(name, keep)}}


def of_run(tmp: Path, keep: Sequence[str]) -> dict[str, str]:
    """What is set anew for each run: where trackers write, in its temporary folder."""
    every = {name: value for tool in TRACKERS for name, value in tool.set.items() if "{run}" in value}
    return {name: value.format(run=tmp) for name, value in every.items() if not _is_of(name, keep)}


def caches(folder: Path, home: Path, given: Mapping[str, str], keep: Sequence[str]) -> dict[str, str]:
    """Caches for one preflight in place of those that there are not: one run compiles, all others find it.

    Those that there are stay in use, under covers.

    Args:
        folder: for them; need not be there.
        home: the home folder.
        given: the environment, in which somebody may have said where they are.
        keep: names and patterns of variables that stay as they are.
    """
    missing = {name: path for name, path in CACHES.items() if name not in given and not _is_of(name, keep)}
    return {name: str(folder / name.lower()) for name, path in missing.items() if not (path and (home / path).is_dir())}


def refuse_programs() -> None:
    """Keep programs that are not Python from the network where the kernel cannot: by a proxy that nobody is.

    Set below `os.environ`, where programs find it that this process starts, and what runs in it does not: that is to
    name the host that it wanted.
    """
    for name in (*PROXIES, "no_proxy", "NO_PROXY"):
        os.environ.pop(name, None)
    for name in PROXIES:
        os.putenv(name, NOBODY)


def list_secret_files(home: Path, keep: Sequence[str]) -> list[Path]:
    """The files and folders below a home folder that log a person in somewhere, those that exist and are not kept."""
    kept = {Path(entry).expanduser() for entry in keep if "/" in entry}
    hub = os.environ.get("HF_HOME")
    every = [*(home / name for name in SECRET_FILES), *([Path(hub, "token")] if hub else [])]
    return [path for path in every if path.exists() and path not in kept]


def name_tools(modules: Sequence[str]) -> list[str]:
    """Of the trackers and hubs those that are among the modules that a run loaded."""
    loaded = {name.partition(".")[0] for name in modules}
    return [tool.module for tool in (*TRACKERS, *HUBS) if tool.module in loaded]
