"""What every model in the registry promises, and what a backbone of one file gets from that."""

import json
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax.extend.core import Literal
from jax.sharding import AbstractMesh

from mlcls_jax import models, parallel
from mlcls_jax.commands import plan
from mlcls_jax.config import Model as ModelConfig
from mlcls_jax.config import Optimizer
from mlcls_jax.errors import ConfigError
from mlcls_jax.inference.bundle import read_bundle
from mlcls_jax.inference.exports import onnx, stablehlo
from mlcls_jax.models import registry
from mlcls_jax.models.backbones import efficientnet, tresnet
from mlcls_jax.models.backbones.vit import ViT, ViTConfig
from mlcls_jax.models.counting import count_macs
from mlcls_jax.models.family import Parts
from mlcls_jax.models.network import Network, Variables, flatten, unflatten
from mlcls_jax.models.pixels import CLIP, HALVES, IMAGENET, SATELLITE
from mlcls_jax.models.weight_names import to_ours, to_theirs
from mlcls_jax.models.weights import load, save, to_foreign
from mlcls_jax.models.weights.sources import find, sources
from mlcls_jax.planning.compile_report import report
from mlcls_jax.planning.costs import Layout, count
from mlcls_jax.training.optimizer import make_optimizer
from tests.helpers import mini_swin, tiny_vit, toy_backbone
from tests.helpers.bundles import write_small
from tests.helpers.tiers import slow

# Vision transformers are one network: two blocks of each family show what its options bring.
TINY = ("CLIP_tiny", "DINOv3_tiny", "EVA_tiny", "SigLIP_tiny")
SIZES = {name: s for family in registry.FAMILIES.values() for name, s in family.variants.items()}
OPTIONS = {  # without what changes no more than a number
    replace(s, grid=1, patch_size=1, depth=1): n
    for n, s in SIZES.items()
    if isinstance(s, ViTConfig)
}
VARIANTS = (*(n for n, s in SIZES.items() if not isinstance(s, ViTConfig)), *OPTIONS.values())
VARIANTS += ("Toy", "CLIP_vit_base_patch16_224", *TINY)
# What a whole family shares is seen at its first variant, the only one in the fast tier, or at a
# smaller one of ours; timm's own EfficientNets have the blocks of the others.
OTHERS = [f for name, f in registry.FAMILIES.items() if name == "CLIP" or f.build is not ViT]
SMALLER = {"EfficientNetB0": "EfficientNet_tiny", "TResNet_M": "TResNet_tiny"}
FIRST = tuple(
    SMALLER.get(name, name)
    for name in (*(next(iter(family.variants)) for family in OTHERS), "Toy", *TINY)
    if name != "efficientnet_b0"
)
# Built of other blocks than the first variant of their family.
OTHER_BLOCKS = ("PP-HGNetV2-B4", "ResNet50", "MobileNetV3_small_x0_35", "mobilenetv3_small_050",
                "EfficientNetV2_B0")  # fmt: skip
# With a block of each kind.
TINY_EFFICIENTNET = efficientnet.EfficientNetConfig(
    stages=(
        efficientnet.Stage("plain", 1, 3, 1, 1, 8),
        efficientnet.Stage("fused", 2, 3, 2, 4, 16),
        efficientnet.Stage("depthwise", 1, 5, 2, 1, 16),
        efficientnet.Stage("depthwise", 1, 3, 2, 4, 16),
    ),
    out_channels=32,
)
DIVISORS = 2, 8  # the tensor devices for which docs/scaling.md promises a division


@pytest.fixture(scope="module", autouse=True)
def tiny(toy):
    """Small variants of families whose first is large for a compiled check."""
    with pytest.MonkeyPatch.context() as patch:
        for name in TINY[1:]:
            tiny_vit.register(patch, name.removesuffix("_tiny"))
        mini_swin.register(patch)
        patch.setitem(efficientnet.VARIANTS, "EfficientNet_tiny", TINY_EFFICIENTNET)
        tiny = tresnet.TResNetConfig(blocks=(1, 1, 1, 1), width=8)
        patch.setitem(tresnet.VARIANTS, "TResNet_tiny", tiny)
        yield


@pytest.fixture(
    scope="module",
    params=[
        *FIRST,
        *(slow(name) for name in VARIANTS if name not in FIRST),
        *(f"{name}_ML" for name in FIRST),
        *(f"Toy{suffix}" for suffix in registry.HEADS if suffix != "_ML"),
    ],
)
def network(request):
    return network_of(request.param)


@cache  # several tests look at the same
def network_of(name):
    return Network.of(ModelConfig(name=name, num_classes=80))


def under(part, path):
    return f"{path}/".startswith(f"backbone/{part}/")


def test_parts_hold_every_parameter_and_each_block_is_one_deeper_than_the_next(network):
    parts, flat = network.outline.backbone.parts, flatten(network.abstract)
    levels = [parts.outputs, *reversed(parts.stages), parts.stem]
    assert parts.stages and parts.stem
    for depth, level in enumerate(levels):
        for part in level:
            held = {path: network.depths[path] for path in flat if under(part, path)}
            assert held and set(held.values()) == {depth}, part
    assert network.depths.keys() == {path for path in flat if path.startswith("backbone/")}


def test_tensor_devices_divide_what_they_share(network):
    shapes = flatten(network.abstract)
    for path, axis in network.tensor_axes.items():
        assert all(shapes[path].shape[axis] % count == 0 for count in DIVISORS), path
    placed = flatten(
        parallel.shardings(network.abstract, AbstractMesh((1, 1, 2), parallel.AXES),
                           network.tensor_axes)
    )  # fmt: skip
    shared = {path: x.spec.index("tensor") for path, x in placed.items() if "tensor" in x.spec}
    large = {p for p in network.tensor_axes if shapes[p].size >= parallel.MIN_SHARDED}
    assert shared == {path: network.tensor_axes[path] for path in large}
    assert bool(shared) or not network.has_evidence  # an ML-Decoder shares its matrices


SHARES = {"query": 1, "key_value": 2}  # of three in one matrix


def test_every_tensor_has_one_name_and_one_shape_in_files_of_each_origin(network):
    flat = flatten(network.abstract)
    assert network.foreign_names
    for table in network.foreign_names.values():
        assert table.keys() == flat.keys()
        keys = [(key, SHARES.get(f.layout)) for f in table.values() for key in f.keys]
        assert len(keys) == len(set(keys))
        for path, foreign in table.items():
            array = np.broadcast_to(np.float32(0), flat[path].shape)
            there = to_theirs(array, foreign.layout)
            if foreign.layout in SHARES:  # read only
                there = np.zeros((3 * array.shape[-1] // SHARES[foreign.layout], len(array)))
                there = there[:, 0] if array.ndim == 1 else there
            assert to_ours(there, foreign.layout, array.shape).shape == array.shape, path


def test_the_head_states_where_features_enter_and_which_vector_counts_the_labels(network):
    flat, head = flatten(network.abstract), network.outline.head
    if head.entry is not None:
        assert flat[f"head/{head.entry}"].shape[-2] == network.outline.backbone.channels
    assert flat[f"head/{head.label_bias}"].shape == (80,)


@pytest.mark.parametrize("name", [*FIRST, *map(slow, OTHER_BLOCKS)])
def test_blocks_are_met_in_their_order_and_each_is_recomputed_when_asked(name):
    network = network_of(name)
    parts = network.outline.backbone.parts
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

    def trace(remat):
        apply = partial(replace(network, remat=remat).apply, train=True)
        return jax.make_jaxpr(apply)(network.abstract, image).jaxpr

    plain, recomputed = trace(False), trace(True)
    names = dict(zip(plain.invars[:-1], paths_of(network), strict=True))
    used = [v for e in plain.eqns for v in e.invars if not isinstance(v, Literal) and v in names]
    order = list(dict.fromkeys(names[v] for v in used))  # of their first uses
    levels = [
        [order.index(path) for path in order if any(under(part, path) for part in level)]
        for level in (parts.stem, *parts.stages, parts.outputs)
        if level
    ]
    assert all(max(one) < min(other) for one, other in pairwise(levels))
    count = [sum(map(recomputes_a_block, j.eqns)) for j in (plain, recomputed)]
    assert count == [0, sum(map(len, parts.stages))]


def recomputes_a_block(equation):
    """A GELU is recomputed always, and is a few operations."""
    return "remat" in equation.primitive.name and len(equation.params["jaxpr"].eqns) > 10


def paths_of(network):
    """All paths in the order in which a traced function takes their arrays."""
    leaves = jax.tree_util.tree_flatten_with_path(network.abstract)[0]
    return [jax.tree_util.keystr(path[1:], simple=True, separator="/") for path, _ in leaves]


@pytest.mark.parametrize("name", FIRST)
def test_layer_decay_gives_each_block_the_same_share_of_the_next_ones_rate(name):
    network = network_of(name)
    parts, flat = network.outline.backbone.parts, flatten(network.abstract)
    scalars = unflatten(dict.fromkeys(flat, jnp.zeros(())), network.abstract).params
    network = replace(network, abstract=Variables(scalars, {}))
    options = Optimizer(name="momentum", weight_decay=0.0, layer_decay=0.5)
    optimizer = make_optimizer(options, lambda _: 1.0, network)
    ones = jax.tree.map(jnp.ones_like, scalars)
    updates = flatten(Variables(optimizer.update(ones, optimizer.init(scalars), scalars)[0], {}))
    rates = [
        {float(-u) for path, u in updates.items() if under(part, path)} - {0.0}  # not trained
        for level in (parts.stem, *parts.stages)
        for part in level[-1:]
    ]
    assert rates == [{0.5 ** (len(rates) - i)} for i in range(len(rates))]


def test_a_parameter_outside_the_parts_is_refused():
    parts = Parts(stem=("a",), stages=(("b",), ("c", "d/e")), outputs=("f",))
    found = parts.depths(["a/kernel", "b", "d/e/kernel", "f"])
    assert found == {"a/kernel": 3, "b": 2, "d/e/kernel": 1, "f": 0}
    with pytest.raises(ValueError, match=r"^d/kernel: is in 0 of the parts"):
        parts.depths(["a/kernel", "d/kernel"])


# A tenth of what a narrow ConvNeXt or Swin computes is not in products: norms, GELU.
@pytest.mark.parametrize(
    "name",
    [
        *(f"{name}_ML" for name in FIRST if not name.startswith(("ConvNeXt", "Swin", *TINY))),
        slow("ConvNeXt_base_ML"),
        slow("SwinTransformer_tiny_patch4_window7_224_ML"),
    ],
)
def test_counted_operations_are_those_of_the_compiler(name):
    network, image = network_of(name), jax.ShapeDtypeStruct((1, 448, 448, 3), jnp.float32)
    scores = jax.jit(lambda variables, images: network.apply(variables, images)[0])
    flops = scores.lower(network.abstract, image).cost_analysis()["flops"]
    assert flops == pytest.approx(2 * count_macs(network, 448), rel=0.05)


@pytest.mark.parametrize(
    "name",
    ["PP-LCNet_x0_25", "PP-LCNet_x0_25_ML", "PP-HGNetV2-B0", "MobileNetV3_small_x0_35",
     "mobilenetv3_small_050", "ConvNeXt_atto", slow("ConvNeXtV2_atto"),
     "EfficientNet_tiny", slow("RegNetY_200MF"), "TResNet_tiny", slow("ResNet18_vd"),
     slow("ResNet18"), *TINY, "CLIP_tiny_ML", "Swin_mini", "SwinV2_mini", "Toy", "Toy_ML"],
)  # fmt: skip
def test_import_export_import_is_bit_identical(tmp_path, name):
    model = models.create(name, num_classes=5, seed=3)
    for origin in sorted({"paddle", "timm"} & model.network.foreign_names.keys()):
        table = model.network.foreign_names[origin]
        flat = {
            path: np.full(value.shape, table[path].constant, np.float32)
            if table[path].key is None
            else np.random.default_rng(0).normal(size=value.shape).astype(np.float32)
            for path, value in flatten(model.variables).items()
        }
        load(model, flat)
        first = to_foreign(model, origin)
        for path in (tmp_path / "w.pdparams", tmp_path / "w.safetensors"):
            save(model, path, origin)
            other = models.create(name, num_classes=5, seed=4)
            loaded = load(other, path)
            assert loaded.origin == origin and not loaded.initial and not loaded.ignored
            second = to_foreign(other, origin)
            assert second.keys() == first.keys()
            for key in first:
                np.testing.assert_array_equal(first[key], second[key])


# Attention is a dozen nodes; everywhere else a layer is a convolution, an activation and a sum.
@pytest.mark.parametrize(
    ("name", "bound"),
    [("PP-LCNet_x0_25_ML", 3), ("PP-HGNetV2-B0", 3),
     slow("MobileNetV3_small_x0_35", 3), slow("EfficientNet_tiny", 5), slow("TResNet_tiny", 8),
     slow("ConvNeXtV2_atto", 8),
     ("ResNet18", 3), ("CLIP_tiny_ML", 6), ("Toy", 3)],
)  # fmt: skip
def test_onnx_files_have_few_nodes_per_layer(name, bound, tmp_path):
    bundle = read_bundle(write_small(tmp_path / "bundle", name, size=(64, 64)))
    layers = sum(path.endswith("kernel") for path in bundle.model.network.initial)
    scores = partial(bundle.scores, bundle.model.variables)
    assert len(onnx.convert(scores, bundle.image_size).graph.node) <= bound * layers


@pytest.mark.parametrize(
    "name",
     ["Toy", "Toy_ML", slow("Toy_CSRA"), slow("Toy_Q2L"), slow("ConvNeXt_atto"),
     slow("ConvNeXtV2_atto_ML"), slow("SwinV2_mini_ML"), slow("TResNet_tiny"),
     slow("EVA_tiny")],
)  # fmt: skip
def test_a_new_backbone_is_exported(name, tmp_path):
    bundle = read_bundle(write_small(tmp_path / "bundle", name, size=(64, 64)))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    expected = np.asarray(bundle.scores(bundle.model.variables, jnp.asarray(images)))
    stablehlo.write(bundle, tmp_path / "model.stablehlo")
    given = stablehlo.load(tmp_path / "model.stablehlo")(images)
    np.testing.assert_allclose(given, expected, atol=1e-4)
    session = onnxruntime.InferenceSession(onnx.export_onnx(bundle, tmp_path / "model.onnx"))
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("twin", "name"),
    [("lcnet_100_ML", "PP-LCNet_x1_0_ML"), ("hgnetv2_b4", "PP-HGNetV2-B4"),
     ("resnet50", "ResNet50"), ("vit_small_patch16_224_ML", "ViT_small_patch16_224_ML"),
     ("convnext_tiny", "ConvNeXt_tiny"), ("tf_efficientnet_b0_ML", "EfficientNetB0_ML"),
     ("swinv2_base_window12to24_192to384", "SwinTransformerV2_base_patch4_window24_384")],
)  # fmt: skip
def test_timms_name_of_a_network_means_the_same_network(twin, name):
    shapes = [jax.tree.map(lambda x: x.shape, network_of(n).abstract) for n in (twin, name)]
    assert shapes[0] == shapes[1]
    assert sources(twin) == sources(name)


def test_names_of_an_origin_that_a_family_lacks_are_not_written():
    model = models.create("Toy", num_classes=2)
    with pytest.raises(ValueError, match="^origin 'paddle': there are timm$"):
        to_foreign(model, "paddle")


def test_a_new_backbone_is_planned():
    command = "--model Toy_ML --kind v5e --chips 4 --tensor 2 --size 64 --no-compile"
    table = plan.run(command.split())
    assert "Toy_ML, 64 x 64, 80 labels" in table and "activations" in table
    counted = count(ModelConfig(name="Toy", num_classes=7, image_size=(64, 64)))
    # Of each pair of layers on 4 x 4, 2 x 2 cells and so on: what goes in and what comes out.
    assert counted.exchanged == 2 * 64 * (16 * 16 + 8 * 8 + 4 * 4) * 4


@pytest.mark.slow
def test_the_plan_of_a_new_backbone_is_what_its_step_compiles_to():
    model = ModelConfig(name="Toy", num_classes=7, image_size=(64, 64))
    compiled = report(model, Layout(1, 1, 1), batch=2)
    assert compiled.flops / 2 == pytest.approx(count(model).flops, rel=0.25)


@pytest.mark.parametrize(
    "name",
    [
        "PP-LCNet_x0_25_ML",
        "PP-HGNetV2-B0_ML",
        "ResNet50_ML",
        "CLIP_vit_base_patch32_224_ML",
        "Swin_mini",
    ],
)
def test_no_weight_depends_on_the_image_size(name):
    values: dict = {"name": name, "num_classes": 5}
    small, large = (
        flatten(Network.of(ModelConfig(**values, image_size=(side, side))).abstract)
        for side in (64, 128)
    )
    assert small == large  # so a training may be finished at a larger size


def test_a_network_is_given_pixels_with_the_statistics_of_its_family(tmp_path, monkeypatch):
    family = replace(toy_backbone.FAMILY, pixels=lambda name: HALVES)
    monkeypatch.setitem(registry.FAMILIES, "Toy", family)
    bundle = read_bundle(write_small(tmp_path / "bundle", "Toy", size=(32, 32)))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    normalised = (images / 255 - 0.5) / 0.5
    np.testing.assert_allclose(bundle.model(images), bundle.model(normalised), atol=1e-4)
    described = json.loads((tmp_path / "bundle" / "inference.json").read_text())
    assert described["preprocess"]["std"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "statistics"),
    [("vit_small_patch16_224_ML", HALVES), ("ViT_small_patch8_224", IMAGENET),
     ("CLIP_vit_base_patch16_224", IMAGENET), ("vit_base_patch16_clip_224", CLIP),
     ("vit_large_patch14_clip_224", HALVES), ("vit_large_patch14_clip_quickgelu_224", CLIP),
     ("vit_base_patch16_siglip_224", HALVES), ("eva02_tiny_patch14_336_ML", CLIP),
     ("eva_giant_patch14_560", IMAGENET), ("deit3_small_patch16_224", IMAGENET),
     ("convnext_xxlarge", CLIP), ("convnext_xxlarge.clip_laion2b_soup_ML", CLIP)],
)  # fmt: skip
def test_pixels_of_networks_are_those_of_timm(name, statistics):
    assert registry.pixels(name) == statistics


@pytest.mark.parametrize(
    ("name", "variant", "statistics"),
    [
        ("convnext_tiny.fb_in22k_ML", "ConvNeXt_tiny", IMAGENET),
        ("vit_base_patch16_224.dino", None, IMAGENET),
        ("vit_base_patch16_224.augreg_in21k_CSRA", None, HALVES),
        ("resnet50.bamboo", "ResNet50", IMAGENET),
        ("vit_large_patch16_dinov3.sat493m", None, SATELLITE),
    ],
)
def test_a_name_of_timm_may_have_the_tag_of_its_weights(name, variant, statistics):
    """All 583 tags that timm 1.0.31 has for these networks had its statistics."""
    assert variant in (None, registry.find_variant(name)[1])
    assert registry.pixels(name) == statistics
    whole, _ = registry.split_name(name)
    assert find("auto", name).address == find("timm", name).address == f"hf://timm/{whole}"
    with pytest.raises(ConfigError, match="did you mean"):
        registry.find_variant(f"{name[:4]}x{name[4:]}")
