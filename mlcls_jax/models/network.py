"""The border between Flax NNX and the rest, which knows only nested dicts of arrays.

Nothing else in the project splits or merges modules.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.groups import Groups, consistent
from mlcls_jax.models import registry
from mlcls_jax.models.classifier import Classifier
from mlcls_jax.models.dropout import Draws
from mlcls_jax.models.family import Backbone
from mlcls_jax.models.initial import Choice, FrozenParam, Initial, draw
from mlcls_jax.models.kernels import PLAIN, Kernels, OfPlatform, choose
from mlcls_jax.models.weight_names import NameTable
from mlcls_jax.trees import by_path, map_by_path

T = TypeVar("T", bound=nnx.Module)


class Variables(NamedTuple):
    """All numbers of a model: nested dicts whose paths read backbone/conv1/conv/kernel."""

    params: dict[str, Any]
    batch_stats: dict[str, Any]


class Outputs(NamedTuple):
    """The results of a forward pass."""

    logits: Float[Array, "B K"]  # of groups of labels: see `apply`
    batch_stats: dict[str, Any]  # after this batch; unchanged unless it was for training
    features: Float[Array, "B h w C"]  # the feature map that the head sees


@dataclass(frozen=True)
class Network:
    """A model without its numbers: pure functions of `Variables`."""

    config: ModelConfig
    graphdef: nnx.GraphDef
    abstract: Variables  # shapes and dtypes
    outline: Classifier  # the module without its numbers: what backbone and head state
    initial: dict[str, Initial]  # by path: what each array is drawn from
    frozen: frozenset[str]  # paths of parameters that are not trained
    depths: dict[str, int]  # by path: blocks between a parameter of the backbone and the head
    tensor_axes: dict[str, int]  # by path: the axis that tensor devices share out, if one
    foreign_names: dict[str, NameTable]  # by origin: paddle, timm
    remat: bool = False  # compute blocks once more for the gradient rather than keep them
    frozen_backbone: bool = False  # the head alone is trained
    reads_features: bool = False  # feature maps stand in the place of images
    norm_groups: int = 1  # parts of a batch with batch statistics of their own
    kernels: Kernels = PLAIN  # the form of what platforms compute otherwise

    @classmethod
    def of(cls, config: ModelConfig) -> "Network":
        """The network that `config` describes; allocates no weights.

        Raises:
          ConfigError: unknown name, or an option that the architecture does not have.
        """
        Groups(config.parents, config.exclusive).check(config.num_classes or 0)
        config = replace(config, text_dim=registry.text_dim(config))
        foreign_names: dict[str, NameTable] = {}

        def build() -> Classifier:
            module = registry.build(config)
            foreign_names.update(registry.foreign_names(config, module))
            return module

        module = nnx.eval_shape(build)
        graphdef, params, stats = nnx.split(module, nnx.Param, nnx.BatchStat)
        flat = [*nnx.to_flat_state(params), *nnx.to_flat_state(stats)]
        declared = [("/".join(map(str, path)), variable) for path, variable in flat]
        start = "backbone/"
        parts = [path.removeprefix(start) for path, _ in declared if path.startswith(start)]
        depths = module.backbone.parts.depths(parts)
        return cls(
            config=config,
            graphdef=graphdef,
            abstract=Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(stats)),
            outline=module,
            initial={path: Choice.of(v.initial, config.initial) for path, v in declared},
            frozen=frozenset(path for path, v in declared if isinstance(v, FrozenParam)),
            depths={start + path: depth for path, depth in depths.items()},
            tensor_axes={p: v.tensor_axis for p, v in declared if v.tensor_axis is not None},
            foreign_names=foreign_names,
        )

    def on(self, devices: Iterable[OfPlatform], *, tensor: int = 1) -> "Network":
        """Return the same network in the form that these devices together compute fastest.

        `tensor` of them share out matrices, by `tensor_axes`.
        """
        return replace(self, kernels=choose(devices, tensor=tensor))

    def init(
        self, seed: int, put: Callable[[str, np.ndarray], Any] = lambda _, array: array
    ) -> Variables:
        """Initial variables, fixed by the seed.

        Args:
          seed: of all random numbers.
          put: what becomes of each NumPy array, by its path, before the next one is drawn: the
            host need not hold them all.
        """
        shapes = {path: leaf.shape for path, leaf in flatten(self.abstract).items()}
        arrays = {
            path: put(path, draw(path, shapes[path], initial, seed=seed))
            for path, initial in self.initial.items()
        }
        return unflatten(arrays, self.abstract)

    def trained(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Return the part of parameters, or of batch statistics, that training changes."""
        return {k: v for k, v in tree.items() if k != "backbone" or not self.frozen_backbone}

    def apply(
        self,
        variables: Variables,
        images: Array,
        *,
        train: bool = False,
        key: Array | None = None,
    ) -> Outputs:
        """Run a forward pass.

        A frozen backbone is the same in training as in use: it has no dropout, and normalises by
        its running statistics, which stay.

        Logits agree with the labels' groups, but that in training no label's is capped by its
        parent's.

        Args:
          variables: the model's numbers.
          images: [B, H, W, 3], uint8, or float that is already normalised; with `reads_features`
            [B, h, w, C], what the backbone would give.
          train: normalise by the batch and update the running statistics.
          key: randomness of dropout; None turns dropout off.
        """
        module, draws = self.module(variables), None if key is None else Draws(key)
        with _recomputed(module.backbone) if self.remat else contextlib.nullcontext():
            if self.reads_features:
                features = images
            elif self.frozen_backbone:
                features = module.feature_map(images)
            else:
                features = module.feature_map(images, train=train, draws=draws)
        logits = consistent(module.head(features, draws=draws), self.groups, train=train)
        return Outputs(logits, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)), features)

    @property
    def groups(self) -> Groups:
        """Return the labels' groups, with which all scores agree."""
        return Groups(self.config.parents, self.config.exclusive)

    @property
    def has_evidence(self) -> bool:
        """Return whether the head has attention maps, as the ML-Decoder has."""
        return self.outline.head.has_evidence

    def evidence(
        self, variables: Variables, features: Float[Array, "B h w C"]
    ) -> Float[Array, "B Q h w"]:
        """Return where each query of the ML-Decoder attends; see `MLDecoder.evidence`."""
        head: Any = self.module(variables).head
        return head.evidence(features)

    def module(self, variables: Variables) -> Classifier:
        """The Flax module with these numbers; its `backbone` and `head` can be called alone."""
        numbers = jax.tree.map(_on_device, variables)
        module = nnx.merge(self.graphdef, numbers.params, numbers.batch_stats)
        module.set_attributes(kernels=self.kernels)
        if self.norm_groups > 1:  # not every network has batch norms
            module.set_attributes(norm_groups=self.norm_groups, raise_if_not_found=False)
        return module


def outline(build: Callable[[], T]) -> tuple[T, nnx.GraphDef, dict[str, Any]]:
    """Return a module that is no network of images, without its numbers, and their shapes."""
    module = nnx.eval_shape(build)
    graphdef, params = nnx.split(module, nnx.Param)
    return module, graphdef, nnx.to_pure_dict(params)


def call(graphdef: nnx.GraphDef, params: dict[str, Any], *inputs: Array) -> Array:
    """Return what such a module gives with these numbers."""
    return nnx.merge(graphdef, params)(*inputs)


def _on_device(array: Any) -> Any:
    """Return JAX's array of NumPy's, which those of files are; shapes alone stay shapes."""
    return jnp.asarray(array) if isinstance(array, np.ndarray) else array


@contextlib.contextmanager
def _recomputed(backbone: Backbone) -> Iterator[None]:
    """Inside, the blocks of the backbone keep only their inputs for the gradient."""
    swapped = []
    for path in itertools.chain(*backbone.parts.stages):
        *owners, name = path.split("/")
        owner = functools.reduce(getattr, owners, backbone)
        swapped.append((owner, name, getattr(owner, name)))
        setattr(owner, name, Recomputed(getattr(owner, name)))
    yield
    for owner, name, block in swapped:  # statistics are read under the blocks' own paths
        setattr(owner, name, block)


class Recomputed(nnx.Module):
    """A block of which only the input is kept for the gradient (Chen et al., 2016)."""

    def __init__(self, block: nnx.Module) -> None:
        self.block = block

    def __call__(self, x: Array, **options: Any) -> Array:
        return nnx.remat(lambda block, x: block(x, **options))(self.block, x)


class Model:
    """A network with its numbers: the handle that users hold."""

    def __init__(self, network: Network, variables: Variables) -> None:
        self.replace(network, variables)

    def replace(self, network: Network, variables: Variables) -> None:
        """Become another model; what is called is compiled anew."""
        self.network = network
        self.variables = variables
        self._predict = jax.jit(partial(_logits_and_stats, network), static_argnames="train")

    def __call__(
        self, images: Array | np.ndarray, train: bool = False, *, key: Array | None = None
    ) -> Float[Array, "B K"]:
        """Logits of `images` [B, H, W, 3], uint8, or float that is already normalised.

        With `train`, batch statistics are used and updated; dropout needs a `key`.

        Raises:
          ValueError: the images have another rank, channel count or type.
        """
        images = jnp.asarray(images)
        kind = images.dtype
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images must be [batch, height, width, 3], not {images.shape}")
        if kind != jnp.uint8 and not jnp.issubdtype(kind, jnp.floating):
            raise ValueError(f"images must be uint8, or float already normalised, not {kind}")
        logits, stats = self._predict(self.variables, images, train=train, key=key)
        if train:
            self.variables = Variables(self.variables.params, stats)
        return logits


def _logits_and_stats(
    network: Network, variables: Variables, images: Array, *, train: bool, key: Array | None
) -> tuple[Array, dict[str, Any]]:
    # Not the feature map: as an output of a compiled program it would take memory.
    network = network.on(jax.local_devices()[:1])  # known when it is traced, not before
    outputs = network.apply(variables, images, train=train, key=key)
    return outputs.logits, outputs.batch_stats


def flatten(variables: Variables) -> dict[str, Any]:
    """Return every array, or its shape, by its path; parameters and statistics share none."""
    return by_path(variables.params) | by_path(variables.batch_stats)


def unflatten(arrays: dict[str, Any], like: Variables) -> Variables:
    """Return the inverse of `flatten`, for a model shaped as `like`."""
    return Variables(*(map_by_path(lambda path, _: arrays[path], tree) for tree in like))
