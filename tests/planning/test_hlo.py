"""Programs for chips that are not here: what their text tells, and how they are asked for."""

import pytest

from mlcls_jax.config import Model
from mlcls_jax.errors import ConfigError
from mlcls_jax.planning import hlo
from mlcls_jax.planning.compile_report import Report, compile_step
from mlcls_jax.planning.costs import Layout, count, exchange
from mlcls_jax.planning.search import largest
from mlcls_jax.planning.topologies import COMPILERS, gpu_target, is_installed, tpu_shape

HLO = """
  %all-reduce.3 = f32[8,2]{1,0} all-reduce(%a), replica_groups={{0,1,2,3}}, to_apply=%sum
  %all-gather.1 = (bf16[16]{0}, f32[4]{0}) all-gather(%a, %b), replica_groups=[2,4]<=[8]
  %rs = f32[6]{0} reduce-scatter(%a), replica_groups=mesh['x'=2,'y'=3] {'y'}, to_apply=%sum
  %all-to-all = f32[8]{0} all-to-all(%a), replica_groups=mesh['x'=2,'y'=4] {'x','y':(1)2}
  %p = pred[5]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
  %f = f32[9]{0} fusion(%all-reduce.3), kind=kLoop
"""


def test_exchanges_are_read_from_a_compiled_program():
    assert hlo.find_collectives(HLO) == [
        ("all-reduce", 2 * 64 * 3 / 4, 4, False),
        ("all-gather", (32 + 16) * 3 / 4, 4, False),
        ("reduce-scatter", 24 * 2, 3, False),
        ("all-to-all", 32 * 3 / 4, 4, False),
        ("collective-permute", 5, 2, False),
    ]


TPU = """HloModule step, input_output_alias={ {0}: (0, {}, may-alias), {1}: (2, {}, must-alias) }
%fused_computation.7 (p: bf16[8,4]) -> bf16[8,16] {
  %all-gather.2 = bf16[8,16]{1,0} all-gather(%p), channel_id=5, replica_groups=[1,4]<=[4]
}
%async_collective_fusion.1 (p: bf16[8,4]) -> bf16[8,16] {
  %all-gather.3 = bf16[8,16]{1,0} all-gather(%p), channel_id=5, replica_groups=[1,4]<=[4]
}
%all-reduce-scatter.4 (p: f32[64]) -> f32[16] {
  %all-reduce.9 = f32[64]{0} all-reduce(%p), channel_id=6, replica_groups=[1,4]<=[4], to_apply=%sum
}
%all-reduce-scatter.5 (p: f32[64], q: f32[8]) -> (f32[16], f32[2]) {
  %all-reduce.8 = (f32[64], f32[8]) all-reduce(%p, %q), channel_id=6, replica_groups=[1,4]<=[4]
}

ENTRY %main (p: bf16[512,8]) -> bf16[512,8] {
  %a = bf16[512,8,128]{2,1,0:T(8,128)(2,1)} fusion(%p), metadata={"estimated_cycles":"100"}
  %b = (f32[256,512,1]{1,0,2:T(8,128)}, f32[2]{0}) fusion(%a), metadata={"estimated_cycles":"20"}
  %c = bf16[512,512,8]{2,1,0:T(8,128)(2,1)} copy(%a)
  %d = f32[512,512,8]{2,1,0:T(8,128)S(1)} fusion(%a)
  %r = f32[2]{0} all-reduce(%d), channel_id=9, replica_groups=[1,4]<=[4], to_apply=%sum
}
"""


def test_the_tpu_compiler_repeats_an_exchange_and_fuses_scatters():
    assert hlo.find_collectives(TPU) == [
        ("all-gather", 8 * 16 * 2 * 3 / 4, 4, True),
        ("reduce-scatter", 64 * 4 * 3 / 4, 4, False),
        ("reduce-scatter", (64 + 8) * 4 * 3 / 4, 4, False),  # on the same channel
        ("all-reduce", 2 * 8 * 3 / 4, 4, False),
    ]


def test_cycles_padding_and_donation_are_read():
    assert hlo.estimated_cycles(TPU) == 120
    # a and b fill their tiles; of c's lanes 8 of 128 are used; d stays inside the core.
    full, padded = 512 * 8 * 128 * 2 + 256 * 512 * 4, 512 * 512 * 128 * 2
    assert hlo.padding(TPU) == (full + padded) / (full + 512 * 512 * 8 * 2)
    assert hlo.count_donated(TPU) == 2
    assert hlo.count_float64(TPU) == hlo.count_callbacks(TPU) == 0
    host = '  %x = f64[3]{0} custom-call(%a), custom_call_target="xla_ffi_python_cpu_callback"\n'
    assert hlo.count_float64(host) == hlo.count_callbacks(host) == 1


GPU = """HloModule step
ENTRY %main (p: f32[4]) -> f32[4] {
  %s = ((f32[4]{0}), (f32[16]{0})) all-gather-start(%p), channel_id=1, replica_groups=[1,4]<=[4]
  %w = f32[4]{0} fusion(%p), kind=kLoop
  %d = f32[16]{0} all-gather-done(%s), metadata={op_name="x(%y)"}
  %s.1 = f32[4]{0} all-reduce-start(%w), channel_id=2, replica_groups=[1,4]<=[4], to_apply=%sum
  %d.1 = f32[4]{0} all-reduce-done(%s.1)
}
"""


def test_the_cuda_compiler_tells_start_and_end_of_an_exchange():
    assert hlo.find_collectives(GPU) == [
        ("all-gather", 64 * 3 / 4, 4, True),
        ("all-reduce", 2 * 16 * 3 / 4, 4, False),
    ]


@pytest.mark.parametrize(
    ("limit", "guess", "grain"), [(0, 5, 1), (1, 9, 1), (100, 64, 8), (100, 333, 8), (64, 64, 8)]
)
def test_the_largest_batch_is_found_by_bisection(limit, guess, grain):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= limit

    assert largest(fits, guess, grain=grain) == limit // grain * grain
    assert len(set(tried)) == len(tried) < 12 and min(tried) > 0


def test_slices_have_the_shapes_that_are_offered():
    flat = [tpu_shape("v5e", 2**n) for n in range(9)]
    assert flat == ["1x1", "1x2", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"]
    deep = [tpu_shape("v5p", 2**n) for n in range(9)]
    assert "-".join(deep) == "1x1x1-2x1x1-2x2x1-2x2x2-2x2x4-2x4x4-4x4x4-4x4x8-4x8x8"
    with pytest.raises(ConfigError, match="--chips=6: there is no such slice of v5e"):
        tpu_shape("v5e", 6)


def test_gpus_are_described_by_their_generation():
    assert "Compute Capability 9.0a" in gpu_target("H200")
    assert "major: 8 feature_extension: NONE" in gpu_target("A100")


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(COMPILERS["tpu"]), reason="libtpu is not installed")
def test_the_step_for_four_tpus_is_as_it_should_be(tmp_path):
    """Compiled by the real compiler; half a minute of CPU time."""
    narrow = {"embed_dim": 256, "hidden_dim": 512, "image_size": (64, 64), "dtype": "bfloat16"}
    model = Model(name="PP-LCNet_x0_25_ML", num_classes=80, **narrow)
    layout, program = Layout(1, 4, 1), tmp_path / "step.hlo"
    report = compile_step(model, layout, 64, kind="v5e", program=program)
    assert isinstance(report, Report)
    assert report.donated == report.state_arrays
    assert report.float64 == report.callbacks == 0
    assert report.argument_bytes < report.peak_bytes
    assert report.cycles and report.padding < 1.5
    # Forms for TPUs, although the process has CPUs: depthwise convolutions are no shifted products.
    assert "feature_group_count=64" in program.read_text()
    # Large gradients are scattered by sums, not around a ring; what is summed whole are small ones,
    # one large one of this narrow head, and the sums of batch normalisations.
    kinds = ("all-reduce", "reduce-scatter", "collective-permute", "all-gather")
    sent = {kind: sum(c.sent for c in report.collectives if c.kind == kind) for kind in kinds}
    counted = exchange(count(model), layout)
    assert sent["all-gather"] > 0.4 * counted.parameters
    scattered = counted.gradients - counted.summed
    assert sent["reduce-scatter"] > 0.8 * scattered and not sent["collective-permute"]
    assert sent["reduce-scatter"] + sent["all-reduce"] < 0.65 * (2 * scattered + counted.summed)
