#pragma once

// The steps between the products of layers_sm90.cu, by four warps of every block: QK-norm and RoPE
// of eight heads a warp, and attention. Arithmetic and order of every sum are those of rope.cu, so
// the bits are the same.

#include "kernels/cuda/layers/sm90_layers_attention.cuh"
#include "kernels/cuda/layers/sm90_layers_device.cuh"
#include "kernels/cuda/ptx/sm90_warpgroup.cuh"

namespace tessera::kernels::cuda::layers {

template <int kTokens>
class Helper {
 public:
  using Memory = AttentionMemory<kTokens>;

  __device__ Helper(const Parameters& p, Memory& memory, int thread)
      : p_(p), memory_(memory), thread_(thread), warp_(thread / 32), lane_(thread % 32) {}

  __device__ void run() {
    if (thread_ == 0) list_items();
    sync();
    for (int step = p_.begin; step < p_.end; ++step) {
      const LayerEntry& layer = p_.layers[step / kLayerSteps];
      switch (step_of(step)) {
        case LayerStep::kRope:
          rope(step, layer);
          break;
        case LayerStep::kAttention:
          attend(step);
          break;
        default:
          break;
      }
    }
  }

 private:
  __device__ static void sync() { sm90::named_barrier_sync(kHelperBarrier, kHelpers); }

  __device__ void begin(int step) const {
    if (thread_ == 0) {
      wait_for_step_before(p_, step);
      trace(p_, step, 0);
    }
    sync();
  }
  __device__ void finish(int step) const {
    sync();
    if (thread_ == 0) {
      announce(p_, step);
      trace(p_, step, 1);
    }
  }

  // QK-norm and RoPE

  // Eight heads of one row at a time, four lanes each.
  __device__ void rope(int step, const LayerEntry& layer) {
    const int t = lane_ % 4;
    const int num_heads = p_.num_q + p_.num_kv;
    const int units = (p_.rows * num_heads + 7) / 8;
    const auto blocks = static_cast<int>(gridDim.x);
    if (static_cast<int>(blockIdx.x) < units) {
      begin(step);
      for (int unit = static_cast<int>(blockIdx.x) + warp_ * blocks; unit < units;
           unit += kHelperWarps * blocks) {
        // Lanes without a head work on a copy of the last one, so that the warp stays whole.
        const int number = unit * 8 + lane_ / 4;
        const int at = min(number, p_.rows * num_heads - 1);
        const int row = at / num_heads, index = at % num_heads;
        __nv_bfloat16* own = p_.qkv + std::int64_t{row} * row_stride(p_) + index * kHeadWidth;
        const float* angles = p_.rope_table + std::int64_t{__ldg(p_.positions + row)} * kHeadWidth;
        HeadRow held;
        held.load(own, t);
        held.norm_and_rotate(index < p_.num_q ? layer.q_norm : layer.k_norm, angles, p_.eps,
                             __ldcg(p_.mean_squares + row), t);
        if (number == at) held.store(own, t);
      }
    }
    finish(step);
  }

  // attention

  // The same for all layers.
  __device__ void list_items() {
    AttentionMemory<kTokens>& list = memory_;
    const int positions = kQueryRows >> p_.log2_group;
    const auto blocks = static_cast<int>(gridDim.x);
    int unit = 0;
    list.num_items = 0;
    for (int i = 0; i < p_.num_sequences; ++i) {
      const int first_row = __ldg(p_.first_rows + i), num_rows = __ldg(p_.num_rows + i);
      for (int position = 0; position < num_rows; position += positions) {
        for (int kv_head = 0; kv_head < p_.num_kv; ++kv_head, ++unit) {
          if (unit % blocks == static_cast<int>(blockIdx.x)) {
            list.items[list.num_items++] = {first_row, num_rows, position, kv_head};
          }
        }
      }
    }
  }

  __device__ void attend(int step) {
    const AttentionMemory<kTokens>& list = memory_;
    if (list.num_items > 0) {
      begin(step);
      Attention<kTokens> attention(p_, memory_, thread_);
      for (int i = 0; i < list.num_items; ++i) attention.run(list.items[i]);
    }
    finish(step);
  }

  const Parameters& p_;
  Memory& memory_;
  const int thread_, warp_, lane_;
};

}  // namespace tessera::kernels::cuda::layers
