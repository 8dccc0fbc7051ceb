"""The arithmetic of a training step: operations, memory and exchange, by model, chip and layout.

`docs/scaling.md` derives every formula here. Nothing is allocated or compiled.
"""

import dataclasses
import math
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, NamedSharding

from mlcls_jax import config as schema
from mlcls_jax import jaxprs, parallel
from mlcls_jax.errors import ConfigError
from mlcls_jax.models import Network
from mlcls_jax.models.counting import count_macs, parameter_products
from mlcls_jax.planning.chips import MFU, TPU_MFU, Chip
from mlcls_jax.planning.maps import Map, layers_of
from mlcls_jax.planning.search import largest
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.optimizer import make_optimizer, make_schedule
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.trees import by_path

MEMORY_SHARE = 0.8  # of the peak rate of the memory
LINK_SHARE = 0.5  # of the peak of the links: small slices of a torus have no way around
PASSES = 9  # how often an input or output of a layer goes through a GPU's memory in a step, and
TPU_PASSES = 11  # a TPU's
# Of a chip's memory, what programs take that compute layers again to fit.
RECOMPUTED = {"tpu": 0.9, "gpu": 0.75}
LAYER = ("input", "output")
KEPT = (*LAYER, "other")  # what GPUs keep
JOINS = {"concatenation": 1.0, "sum": 0.5}  # of each, what several GPUs keep besides
LATENCY = 15e-6  # seconds that a small exchange takes, whatever its size
WAITS = 2  # a batch normalisation: its sums, and those of its gradient; in float32 it has one more
BACKWARD = 2 / 3  # of the operations, behind which sums of gradients can hide


class Counts(NamedTuple):
    """Costs of a model; `layers`, `activations` and all FLOPs are per image."""

    state: TrainState  # shapes and types
    trained: dict[str, Any]  # shapes and types of the parameters that get gradients, by path
    tensor_axes: dict[str, int]  # `Network.tensor_axes`
    flops: float  # of forward and backward pass
    shared_flops: float  # the part of them that tensor devices share out
    layers: list[Map]  # inputs and outputs of layers
    shared: float  # the share of them that tensor devices share out
    exchanged: float  # bytes that tensor devices sum over in forward and backward pass
    norms: int  # batch normalisations: each waits for all devices
    image: int  # bytes of an image as it arrives
    labels: int  # bytes of its targets, mask and number
    itemsize: int  # bytes of a number in the compute type

    @property
    def activations(self) -> int:
        """Bytes of the inputs and outputs of layers."""
        return sum(one.bytes for one in self.layers if one.role in LAYER)


class Layout(NamedTuple):
    """Devices along each axis of the mesh."""

    data: int
    fsdp: int
    tensor: int

    @property
    def mesh(self) -> AbstractMesh:
        return AbstractMesh(tuple(self), parallel.AXES)


class Exchange(NamedTuple):
    """Bytes that one chip sends in a step, by what they can hide behind."""

    gradients: float  # sums over data and fsdp: behind the backward pass, but see `summed`
    parameters: float  # gathered over fsdp: behind the work before they are needed
    activations: float  # an image; summed over tensor: in between, behind nothing
    summed: float  # of `gradients`, what is not scattered: on TPUs, these begin after the last one


class Prediction(NamedTuple):
    """A step with `batch` images a chip group; seconds and bytes are those of one chip."""

    compute: float  # seconds
    memory: float  # seconds
    exchange: float  # seconds of gradients and parameters, if nothing hid them
    waiting: float  # seconds for small exchanges, and for activations between tensor devices
    step: float  # seconds
    images_per_s: float  # all chips together
    state_bytes: float
    gradient_bytes: float
    activation_bytes: float
    fits: bool
    largest_batch: int  # images a step that fit into memory, all chips together
    hiding_batch: float  # images a chip from which gradients and parameters hide


def count(model: schema.Model, platform: Literal["tpu", "gpu"] = "tpu") -> Counts:
    """Costs of training `model`, whose `num_classes` is set, with AdamW and an average.

    They hold for chips of the platform, which keep other layers.

    Raises:
      ConfigError: no such model, or an option that it does not have.
    """
    assert model.num_classes is not None
    network = Network.of(model)
    _, state = optimizer_and_state(network)
    size = model.image_size
    flops = 6 * count_macs(network, size)
    backbone = 6 * count_macs(network, size, with_head=False)
    # A backbone that shares out matrices is taken to share out everything between them.
    is_shared = any(path.startswith("backbone/") for path in network.tensor_axes)
    layers, exchanged = layers_of(network, size, platform), _exchanged(network, size)
    activations = sum(one.bytes for one in layers if one.role in LAYER)
    return Counts(
        state=state,
        trained={
            path: leaf
            for path, leaf in by_path(network.abstract.params).items()
            if path not in network.frozen
        },
        tensor_axes=network.tensor_axes,
        flops=flops,
        shared_flops=flops if is_shared else flops - backbone,
        layers=layers,
        shared=max(0, 1 - exchanged / activations) if is_shared else 0,
        exchanged=exchanged,
        norms=len(jax.tree.leaves(network.abstract.batch_stats)) // 2,
        image=3 * size[0] * size[1],
        labels=4 * model.num_classes + 1 + 4,
        itemsize=jnp.dtype(model.dtype).itemsize,
    )


def optimizer_and_state(network: Network) -> tuple[optax.GradientTransformation, TrainState]:
    """AdamW, and shapes and types of the training state."""
    config = schema.Optimizer()
    schedule = make_schedule(config, Plan.of(schema.Train(), epoch_size=1))  # changes no shape
    optimizer = make_optimizer(config, schedule, network)
    begin = partial(init_state, optimizer=optimizer, ema=True)
    return optimizer, jax.eval_shape(begin, network.abstract)


def resolve(layout: schema.Parallel, chips: int) -> Layout:
    """The layout with -1 worked out.

    Raises:
      ConfigError: it does not fit the number of chips.
    """
    sizes = parallel.sizes_of(layout, chips)
    if sizes is None:
        told = " ".join(f"--{axis}={size}" for axis, size in dataclasses.asdict(layout).items())
        raise ConfigError(
            f"{told}: their product must be --chips={chips}", "One of them may be -1, the rest."
        )
    return Layout(*sizes)


def bytes_of(tree: Any) -> int:
    """Return the bytes of all arrays."""
    return sum(_bytes(leaf.shape, leaf) for leaf in jax.tree.leaves(tree))


def bytes_per_chip(tree: Any, layout: Layout, counts: Counts) -> int:
    """Return the bytes of what one chip holds of the arrays."""
    placed = parallel.shardings(tree, layout.mesh, counts.tensor_axes)
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(placed), strict=True)
    return sum(_bytes(sharding.shard_shape(leaf.shape), leaf) for leaf, sharding in pairs)


def exchange(counts: Counts, layout: Layout) -> Exchange:
    """Bytes sent by a chip in a step, all sums and gathers being rings, in the compute type.

    A ring of n chips sends (n - 1) / n of an array to gather it or to scatter its sum, and twice
    that to have the whole sum everywhere.
    """
    gradients = parameters = summed = 0.0
    placed = parallel.shardings(counts.trained, layout.mesh, counts.tensor_axes)
    for path, leaf in counts.trained.items():
        held = leaf.size * counts.itemsize / _parts(placed[path], "tensor", layout)
        parts = _parts(placed[path], "fsdp", layout)
        if parts == 1:
            summed += 2 * held * _others(layout.data * layout.fsdp)
        else:
            gradients += held * _others(parts)
            summed += 2 * held / parts * _others(layout.data)
            parameters += held * _others(parts)  # kept from the forward to the backward pass
    activations = 2 * counts.exchanged * _others(layout.tensor)
    return Exchange(gradients + summed, parameters, activations, summed)


def predict(
    counts: Counts, chip: Chip, layout: Layout, batch: int, *, mfu: float | None = None
) -> Prediction:
    """Predict time and memory of a step of `batch` images over all chips.

    It is as long as the slower of computing and memory, what of the exchange does not hide behind
    that, and the waiting.

    Args:
      counts: of the model.
      chip: of one kind.
      layout: of so many devices.
      batch: images over all of them.
      mfu: share of the peak that is reached; None: `assumed_mfu`.
    """
    replicas = layout.data * layout.fsdp
    images = batch / replicas
    sent = exchange(counts, layout)
    peak = chip.flops if counts.itemsize == 2 else chip.flops / 2
    flops = counts.flops - counts.shared_flops * _others(layout.tensor)
    state = bytes_per_chip(counts.state, layout, counts)
    gradients = bytes_per_chip(counts.trained, layout, counts) * counts.itemsize / 4

    compute = flops / (peak * (mfu or assumed_mfu(counts, chip)))  # an image
    # A quarter of the state is read for each of forward and backward pass; then all is read and
    # written, as the gradient is.
    moved = 2.5 * state + 2 * gradients
    memory = moved_bytes(counts, chip, layout, images) / (chip.memory_rate * MEMORY_SHARE)
    update = moved / (chip.memory_rate * MEMORY_SHARE)
    work = max(compute * images, memory * images + update)

    summing = _send_seconds(chip, layout, sent.gradients)
    gathering = _send_seconds(chip, layout, sent.parameters)
    waits = (WAITS if counts.itemsize == 2 else WAITS + 1) * counts.norms
    waiting = waits * LATENCY if replicas > 1 else 0.0
    waiting += sent.activations * images / (chip.links * LINK_SHARE)
    if chip.platform == "tpu":  # whose sums, scattered or whole, begin after the last gradient
        waiting, summing = waiting + summing, 0.0
    exposed = max(0.0, summing - BACKWARD * work, summing + gathering - work)
    needed = max(summing / BACKWARD, summing + gathering)  # seconds of work
    step = work + exposed + waiting

    fixed = state + gradients + counts.itemsize * sum(leaf.size for leaf in counts.trained.values())
    room = chip.usable - fixed

    def fits(images: int) -> bool:
        return images * least_kept(counts, chip, layout, images) <= room

    most = largest(fits, max(1, math.ceil(images)))
    kept = images * kept_bytes(counts, chip, layout, images)
    kept += max(0.0, images * waiting_bytes(counts, chip, layout) - (fixed - state))
    if images <= most:  # the compiler sees to it
        room = RECOMPUTED[chip.platform] * chip.memory - fixed
        kept = min(kept, max(room, images * least_kept(counts, chip, layout, images)))
    return Prediction(
        compute=compute * images,
        memory=memory * images + update,
        exchange=summing + gathering,
        waiting=waiting,
        step=step,
        images_per_s=batch / step,
        state_bytes=state,
        gradient_bytes=fixed - state,
        activation_bytes=kept,
        fits=images <= most,
        largest_batch=most * replicas,
        hiding_batch=min(needed / compute, max(0.0, needed - update) / memory),
    )


def assumed_mfu(counts: Counts, chip: Chip) -> float:
    """Return the share of the peak that a model is taken to reach."""
    return TPU_MFU if chip.platform == "tpu" and counts.norms else MFU


def moved_bytes(counts: Counts, chip: Chip, layout: Layout, images: float) -> float:
    """Return what goes through a chip's memory for each of so many images."""
    if chip.platform == "tpu":
        layers = [one for one in counts.layers if one.role in LAYER]
        moved = TPU_PASSES * sum(one.on_tpu(images) for one in layers)
    else:
        moved = PASSES * sum(one.bytes for one in counts.layers if one.role in KEPT)
    return moved * (1 - counts.shared * _others(layout.tensor))


def kept_bytes(counts: Counts, chip: Chip, layout: Layout, images: float) -> float:
    """Return what each of so many images needs between forward and backward pass.

    On GPUs inputs and outputs of layers, and both inputs of products of maps; on several of them,
    where batch normalisation is, also concatenations and half of all sums, and where it is not, the
    float32 inputs of layer normalisations. On TPUs norms and
    activations are computed again from the outputs and from what joins branches, except, on one
    chip, what GELU returns: its jax.checkpoint serves its own gradient alone. What is in work is
    a share of that; on TPUs the largest map at least.
    """
    if chip.platform == "tpu":
        # Without norms, sums stand for outputs.
        slack, joins = (0.15, JOINS) if counts.norms else (0.1, ())
        roles = ("output", *joins, *(["checkpointed"] if math.prod(layout) == 1 else []))
        maps = [one.on_tpu(images) for one in counts.layers if one.role in roles]
        kept = sum(maps) + max(slack * sum(maps), *maps)
    else:
        more, slack = (JOINS, 1.02) if counts.norms else ({"norm": 1.0}, 1.0)
        if layout.data * layout.fsdp == 1:
            more, slack = {}, 1.04 if counts.norms else 1.0
        kept = slack * sum(
            one.bytes * more.get(one.role, one.role in KEPT) for one in counts.layers
        )
    return kept * (1 - counts.shared * _others(layout.tensor)) + counts.image


def waiting_bytes(counts: Counts, chip: Chip, layout: Layout) -> float:
    """Return what each image keeps until the gradients of all biases are summed.

    Where GPUs share out the batch alone, these are one sum, and the first: what cuDNN's attention
    returns as gradients of queries, keys and values with a bias waits for it, and so do the
    products that give the gradients of matrices, which the memory thus does not hold yet.
    """
    if chip.platform == "tpu" or layout.data == 1 or layout.fsdp > 1:
        return 0.0
    attended = sum(one.bytes for one in counts.layers if one.role == "attended")
    return attended * (1 - counts.shared * _others(layout.tensor))


def least_kept(counts: Counts, chip: Chip, layout: Layout, images: float) -> float:
    """Return the same where the compiler computes again what it can to fit."""
    if chip.platform == "tpu":
        kept = sum(one.on_tpu(images) for one in counts.layers if one.role == "output")
        kept *= 1.15 if counts.norms else 1.1
    else:
        kept = counts.activations * (1.05 if counts.norms else 1.0)
    return kept * (1 - counts.shared * _others(layout.tensor)) + counts.image


def _send_seconds(chip: Chip, layout: Layout, sent: float) -> float:
    """Over the links; beyond their domain, each chip sends its share of that over the network."""
    seconds = sent / (chip.links * LINK_SHARE)
    if math.prod(layout) > chip.domain:
        seconds += sent / chip.domain / (chip.network * LINK_SHARE)
    return seconds


def _exchanged(network: Network, size: tuple[int, int]) -> int:
    """Return the bytes that tensor devices sum over, of one image.

    They are the outputs of matrices whose rows are shared out, and, in the backward pass, the
    gradients of what goes into matrices whose columns are.
    """
    numbers = 0
    for path, place, product in parameter_products(network, size):
        if path not in network.tensor_axes:
            continue
        contracted, batched = (axes[place] for axes in product.params["dimension_numbers"])
        axis = network.tensor_axes[path]
        if axis in contracted:
            numbers += jaxprs.form(product.outvars[0]).size
        elif axis not in batched:
            numbers += jaxprs.form(product.invars[1 - place]).size
    return numbers * jnp.dtype(network.config.dtype).itemsize


def _parts(placed: NamedSharding, axis: str, layout: Layout) -> int:
    return layout._asdict()[axis] if axis in placed.spec else 1


def _others(count: int) -> float:
    return (count - 1) / count


def _bytes(shape: tuple[int, ...], leaf: Any) -> int:
    return math.prod(shape) * leaf.dtype.itemsize
