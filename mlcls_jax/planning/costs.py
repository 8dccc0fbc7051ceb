"""The arithmetic of a training step: operations, memory and exchange, by model, chip and layout.

`docs/scaling.md` derives every formula here. Nothing is allocated or compiled.
"""

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import Jaxpr
from jax.sharding import AbstractMesh, NamedSharding

from mlcls_jax import config as schema
from mlcls_jax import jaxprs, parallel
from mlcls_jax.errors import ConfigError
from mlcls_jax.models import Network
from mlcls_jax.models.counting import count_macs, parameter_products
from mlcls_jax.planning.chips import Chip
from mlcls_jax.training.cadence import Plan
from mlcls_jax.training.optimizer import make_optimizer, make_schedule
from mlcls_jax.training.state import TrainState, init_state
from mlcls_jax.trees import by_path

MFU = 0.4  # share of the peak that convolutions and matrix products reach
MEMORY_SHARE = 0.8  # of the peak rate of the memory
LINK_SHARE = 0.5  # of the peak of the links: small slices of a torus have no way around
PASSES = 7  # how often an input or output of a layer goes through memory in a step
LATENCY = 15e-6  # seconds that a small exchange takes, whatever its size
WAITS = 3  # a batch normalisation: mean, variance, and both sums of its gradient at once
BACKWARD = 2 / 3  # of the operations, behind which sums of gradients can hide


class Counts(NamedTuple):
    """Costs of a model; `activations` and all FLOPs are per image."""

    state: TrainState  # shapes and types
    trained: dict[str, Any]  # shapes and types of the parameters that get gradients, by path
    tensor_axes: dict[str, int]  # `Network.tensor_axes`
    flops: float  # of forward and backward pass
    shared_flops: float  # the part of them that tensor devices share out
    activations: float  # bytes of inputs and outputs of layers, kept for the backward pass
    shared_activations: float  # the part of them that tensor devices share out
    exchanged: float  # bytes that tensor devices sum over in forward and backward pass
    norms: int  # batch normalisations: each waits for all devices
    image: int  # bytes of an image as it arrives
    labels: int  # bytes of its targets, mask and number
    itemsize: int  # bytes of a number in the compute type


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

    gradients: float  # sums over data and fsdp: behind the backward pass
    parameters: float  # gathered over fsdp: behind the work before they are needed
    activations: float  # an image; summed over tensor: in between, behind nothing


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


def count(model: schema.Model) -> Counts:
    """Costs of training `model`, whose `num_classes` is set, with AdamW and an average.

    Raises:
      ConfigError: no such model, or an option that it does not have.
    """
    network = Network.of(model)
    _, state = optimizer_and_state(network)
    size = model.image_size
    flops = 6 * count_macs(network, size)
    backbone = 6 * count_macs(_Features(network), size)
    # A backbone that shares out matrices is taken to share out everything between them.
    is_shared = any(path.startswith("backbone/") for path in network.tensor_axes)
    activations, exchanged = _activations(network, size), _exchanged(network, size)
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
        activations=activations,
        shared_activations=max(0, activations - exchanged) if is_shared else 0,
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
    sizes = dataclasses.astuple(layout)
    fixed = math.prod(size for size in sizes if size > 0)
    resolved = Layout(*(chips // fixed if size == -1 else size for size in sizes))
    if min(resolved) < 1 or sizes.count(-1) > 1 or math.prod(resolved) != chips:
        told = " ".join(f"--{axis}={size}" for axis, size in dataclasses.asdict(layout).items())
        raise ConfigError(
            f"{told}: their product must be --chips={chips}", "One of them may be -1, the rest."
        )
    return resolved


def bytes_of(tree: Any) -> int:
    """Return the bytes of all arrays."""
    return sum(_bytes(leaf.shape, leaf) for leaf in jax.tree.leaves(tree))


def bytes_per_chip(tree: Any, layout: Layout, counts: Counts) -> int:
    """Return the bytes of what one chip holds of the arrays."""
    placed = parallel.shardings(tree, layout.mesh, counts.tensor_axes)
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(placed), strict=True)
    return sum(_bytes(sharding.shard_shape(leaf.shape), leaf) for leaf, sharding in pairs)


def exchange(counts: Counts, layout: Layout) -> Exchange:
    """Bytes sent by a chip in a step, all sums and gathers being rings; gradients in float32.

    A ring of n chips sends (n - 1) / n of an array to gather it or to scatter its sum, and twice
    that to have the whole sum everywhere.
    """
    gradients = parameters = 0.0
    placed = parallel.shardings(counts.trained, layout.mesh, counts.tensor_axes)
    for path, leaf in counts.trained.items():
        held = _bytes(leaf.shape, leaf) / _parts(placed[path], "tensor", layout)
        parts = _parts(placed[path], "fsdp", layout)
        if parts == 1:
            gradients += 2 * held * _others(layout.data * layout.fsdp)
        else:
            gradients += held * _others(parts) + 2 * held / parts * _others(layout.data)
            parameters += held * _others(parts)  # kept from the forward to the backward pass
    return Exchange(gradients, parameters, 2 * counts.exchanged * _others(layout.tensor))


def predict(
    counts: Counts, chip: Chip, layout: Layout, batch: int, *, mfu: float = MFU
) -> Prediction:
    """Predict time and memory of a step of `batch` images over all chips.

    It is as long as the slower of computing and memory, what of the exchange does not hide behind
    that, and the waiting.
    """
    replicas = layout.data * layout.fsdp
    images = batch / replicas
    sent = exchange(counts, layout)
    peak = chip.flops if counts.itemsize == 2 else chip.flops / 2
    flops = counts.flops - counts.shared_flops * _others(layout.tensor)
    state = bytes_per_chip(counts.state, layout, counts)
    gradients = bytes_per_chip(counts.trained, layout, counts)

    compute = flops / (peak * mfu)  # an image
    # A quarter of the state is read for each of forward and backward pass; then all is read and
    # written, as the gradient is.
    moved = 2.5 * state + 2 * gradients
    activations = counts.activations - counts.shared_activations * _others(layout.tensor)
    memory = PASSES * activations / (chip.memory_rate * MEMORY_SHARE)
    update = moved / (chip.memory_rate * MEMORY_SHARE)
    work = max(compute * images, memory * images + update)

    summing = _send_seconds(chip, layout, sent.gradients)
    gathering = _send_seconds(chip, layout, sent.parameters)
    waiting = WAITS * counts.norms * LATENCY if replicas > 1 else 0.0
    waiting += sent.activations * images / (chip.links * LINK_SHARE)
    exposed = max(0.0, summing - BACKWARD * work, summing + gathering - work)
    step = work + exposed + waiting

    copies = counts.itemsize * sum(leaf.size for leaf in counts.trained.values())
    fixed = state + gradients + copies
    image = activations + counts.image
    largest = max(0, math.floor((chip.usable - fixed) / image))
    needed = max(summing / BACKWARD, summing + gathering)  # seconds of work
    return Prediction(
        compute=compute * images,
        memory=memory * images + update,
        exchange=summing + gathering,
        waiting=waiting,
        step=step,
        images_per_s=batch / step,
        state_bytes=state,
        gradient_bytes=gradients + copies,
        activation_bytes=image * images,
        fits=images <= largest,
        largest_batch=largest * replicas,
        hiding_batch=min(needed / compute, max(0.0, needed - update) / memory),
    )


def _send_seconds(chip: Chip, layout: Layout, sent: float) -> float:
    """Over the links; beyond their domain, each chip sends its share of that over the network."""
    seconds = sent / (chip.links * LINK_SHARE)
    if math.prod(layout) > chip.domain:
        seconds += sent / chip.domain / (chip.network * LINK_SHARE)
    return seconds


class _Features(NamedTuple):
    """A network without its head, in the form that `count_macs` takes."""

    network: Network

    @property
    def abstract(self) -> Any:
        return self.network.abstract

    def apply(self, variables: Any, images: jax.Array) -> jax.Array:
        return self.network.module(variables).backbone(images)


def _activations(network: Network, size: tuple[int, int]) -> int:
    """Bytes of the different inputs and outputs of convolutions and matrix products, one image.

    What lies between two of them is cheap to compute again from these, and XLA does.
    """
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
    traced = jax.make_jaxpr(partial(network.apply, train=True))(network.abstract, image)
    return sum(_kept(traced.jaxpr))


def _kept(jaxpr: Jaxpr) -> Iterator[int]:
    seen = set()
    for equation in jaxpr.eqns:
        kind = equation.primitive.name
        if kind in ("conv_general_dilated", "dot_general"):
            for variable in (equation.invars[0], *equation.outvars):
                if id(variable) not in seen:
                    seen.add(id(variable))
                    yield variable.aval.size * variable.aval.dtype.itemsize
            continue
        for inner in jaxprs.inner(equation):
            yield from _kept(inner)


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
            numbers += product.outvars[0].aval.size
        elif axis not in batched:
            numbers += product.invars[1 - place].aval.size
    return numbers * jnp.dtype(network.config.dtype).itemsize


def _parts(placed: NamedSharding, axis: str, layout: Layout) -> int:
    return layout._asdict()[axis] if axis in placed.spec else 1


def _others(count: int) -> float:
    return (count - 1) / count


def _bytes(shape: tuple[int, ...], leaf: Any) -> int:
    return math.prod(shape) * leaf.dtype.itemsize
