"""Chips that are not here, for which the real compilers can be asked all the same.

libtpu compiles for any slice of TPUs, and JAX's CUDA plugin for any GPU that is described to it;
neither looks at the machine it runs on.
"""

import importlib.util
import math
from importlib import metadata
from typing import Any, NamedTuple

from mlcls_jax.errors import ConfigError
from mlcls_jax.planning.chips import CHIPS

MAX_CHIPS = 256
# Of a process that compiles for TPUs: it looks for none, and several may run side by side.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
# Tiles of Triton's matrix products are tuned on a device; without one, some steps do not compile.
GPU_ENVIRONMENT = {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false"}


class Compiler(NamedTuple):
    """The real compiler for a platform, as its package names it."""

    module: str
    package: str
    extra: str  # of pyproject.toml
    environment: dict[str, str]


COMPILERS = {
    "tpu": Compiler("libtpu", "libtpu", "plan-tpu", TPU_ENVIRONMENT),
    "gpu": Compiler("jax_cuda13_plugin", "jax-cuda13-plugin", "plan-gpu", GPU_ENVIRONMENT),
}


def is_installed(compiler: Compiler) -> bool:
    """Return whether the package is there."""
    return importlib.util.find_spec(compiler.module) is not None


def release_of(compiler: Compiler) -> str:
    """Return name and release of an installed compiler."""
    return f"{compiler.package} {metadata.version(compiler.package)}"


def tpu_shape(kind: str, chips: int) -> str:
    """Return the shape of the slice of so many chips as Cloud TPU offers it: 4x4, or 2x2x4.

    Raises:
      ConfigError: there is none.
    """
    power = chips.bit_length() - 1
    if chips != 2**power or chips > MAX_CHIPS:
        counts = ", ".join(str(2**n) for n in range(MAX_CHIPS.bit_length()))
        raise ConfigError(
            f"--chips={chips}: there is no such slice of {kind}; there are {counts}",
            "--no-compile predicts any number.",
        )
    axes = 2 if kind in ("v5e", "v6e") else 3
    sides = sorted(2 ** ((power + axis) // axes) for axis in range(axes))
    if axes == 3 and chips < 8:  # one host, flat
        sides.reverse()
    return "x".join(map(str, sides))


def devices(kind: str, chips: int) -> list[Any]:
    """Return the devices of so many chips, for which programs can be compiled but not run.

    The process needs the environment of the platform's compiler, and that package.

    Raises:
      ConfigError: no such slice.
    """
    from jax.experimental import topologies

    if CHIPS[kind].platform == "gpu":
        hosts = max(1, chips // CHIPS[kind].domain)
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology=f"1x{hosts}x{chips // hosts}",
            target_config=gpu_target(kind),
        )
        return list(topology.devices)
    shape = tpu_shape(kind, chips)
    options: dict[str, Any] = {}
    sides = [int(side) for side in shape.split("x")]
    if chips < 4:  # less than the host that is taken for granted
        options["chips_per_host_bounds"] = [*sides, 1][:3]
    if kind in ("v4", "v5p"):
        options["chip_config_name"] = "megacore"  # both cores of a chip are one device
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{kind}:{shape}", **options
    )
    assert len(topology.devices) == math.prod(sides) * CHIPS[kind].devices
    return list(topology.devices)


class _Gpu(NamedTuple):
    """What the CUDA compiler asks of a device; numbers as XLA's own descriptions have them."""

    name: str
    capability: int  # compute capability's first digit
    cores: int
    fpus: int  # a core
    shared: int  # bytes of shared memory a core
    memory: int  # bytes
    memory_rate: int  # bytes/s
    cache: int  # bytes, level 2
    clock: float  # GHz
    pcie: int  # bytes/s


_GPUS = {
    "A100": _Gpu(
        "NVIDIA A100-SXM4-80GB", 8, 108, 64, 167_936, 85_100_068_864, 2_039_040_000_000,
        41_943_040, 1.41, 2**35,
    ),
    "H100": _Gpu(
        "NVIDIA H100 80GB HBM3", 9, 132, 128, 233_472, 84_942_979_072, 3_352_320_000_000,
        52_428_800, 1.98, 2**35,
    ),
    "H200": _Gpu(
        "NVIDIA H200 141GB HBM3e", 9, 132, 128, 233_472, 151_397_597_184, 4_800_000_000_000,
        52_428_800, 1.98, 2**35,
    ),
    "B200": _Gpu(
        "NVIDIA B200", 10, 148, 128, 233_472, 191_514_411_008, 7_672_320_000_000,
        132_644_864, 1.965, 2**36,
    ),
}  # fmt: skip


def gpu_target(kind: str) -> str:
    """Return the description of a GPU, in the form of XLA's `GpuTargetConfigProto`."""
    gpu = _GPUS[kind]
    is_newer = gpu.capability > 8  # sm_90a: with the instructions that only this generation has
    device = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49_152,
        "shared_memory_per_core": gpu.shared,
        "shared_memory_per_block_optin": gpu.shared - 1024,
        "threads_per_core_limit": 2048,
        "core_count": gpu.cores,
        "fpus_per_core": gpu.fpus,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "registers_per_core_limit": 65_536,
        "registers_per_block_limit": 65_536,
        "memory_bandwidth": gpu.memory_rate,
        "l2_cache_size": gpu.cache,
        "clock_rate_ghz": gpu.clock,
        "device_memory_size": gpu.memory,
        "device_address_bits": 64,
        "pcie_bandwidth": gpu.pcie,
        "ecc_enabled": "true",
        "name": f'"{gpu.name}"',
        "device_vendor": '"NVIDIA Corporation"',
        "platform_version": f'"Compute Capability {gpu.capability}.0{"a" * is_newer}"',
        "driver_version": '"13.0.0"',
        "runtime_version": '"13.0.0"',
        "compile_time_toolkit_version": '"13.0.0"',
        "dnn_version": '"9.12.0"',
    }
    feature = "ACCELERATED_FEATURES" if is_newer else "NONE"
    lines = [f"  {key}: {value}" for key, value in device.items()]
    lines.append(
        f"  cuda_compute_capability {{ major: {gpu.capability} feature_extension: {feature} }}"
    )
    return "\n".join(
        [
            "gpu_device_info {",
            *lines,
            "}",
            'platform_name: "CUDA"',
            "dnn_version_info { major: 9 minor: 12 }",
            "runtime_version { major: 13 }",
            f'device_description_str: "{gpu.name}"',
        ]
    )
