#pragma once

// The products of layers_sm90.cu. The weight's rows are the rows of the matrix instructions, the
// activations their columns; rows that a tile lacks compute garbage that nobody stores. Up to
// kFewTokens tokens the instruction is mma.sync, above wgmma; both give the same bits. k is never
// split, so sums have the order, and the bits, of a large product. Every block has all activations
// in shared memory, so it measures the rows that it has to normalise while it multiplies them.

#include "kernels/cuda/layers/sm90_layers_device.cuh"
#include "kernels/cuda/layers/sm90_layers_loaders.cuh"
#include "kernels/cuda/ptx/sm80_mma.cuh"
#include "kernels/cuda/ptx/sm90_mbarrier.cuh"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/ptx/sm90_warpgroup.cuh"
#include "kernels/cuda/ptx/sm90_wgmma.cuh"
#include "kernels/cuda/ptx/sm90_wgmma_narrow.cuh"
#include "kernels/cuda/rows/row_math.cuh"

namespace tessera::kernels::cuda::layers {

// Up to so many tokens sums are short of latency, not of tensor cores.
constexpr int kFewTokens = 32;

enum class Form : std::uint8_t { kStore, kAdd, kSwiglu };

// One warpgroup.
template <int kTokens>
class Consumer {
 public:
  static constexpr bool kFew = kTokens <= kFewTokens;

  // mean_squares: [kTokens], shared by the warpgroup.
  __device__ Consumer(const Parameters& p, const Stages<kTokens>& stages, float* mean_squares)
      : p_(p),
        stages_(stages),
        mean_squares_(mean_squares),
        lane_(static_cast<int>(threadIdx.x % 32)),
        warp_row_(static_cast<int>(threadIdx.x) / 32 * 16) {}

  __device__ void run() {
    for (int step = p_.begin; step < p_.end; ++step) {
      switch (step_of(step)) {
        case LayerStep::kQkv:
          multiply<1, Form::kStore>(step, p_.qkv);
          break;
        case LayerStep::kO:
        case LayerStep::kDown:
          multiply<1, Form::kAdd>(step, p_.x);
          break;
        case LayerStep::kGateUp:
          gate_up(step);
          break;
        default:
          break;
      }
    }
  }

 private:
  template <int kTiles>
  using Sums = float[kTiles][kTokens / 8][4];

  __device__ void gate_up(int step) {
    const int rows = p_.products[2].tile_rows;
    if (rows <= 64) {
      multiply<1, Form::kSwiglu>(step, p_.mlp);
    } else if (rows <= 128) {
      multiply<2, Form::kSwiglu>(step, p_.mlp);
    } else {
      multiply<3, Form::kSwiglu>(step, p_.mlp);
    }
  }

  template <int kTiles, Form kForm>
  __device__ void multiply(int step, __nv_bfloat16* out) {
    const Product product = p_.products[product_of(step)];
    Sums<kTiles> d = {};
    __nv_bfloat16 before[kForm == Form::kAdd ? kTokens / 2 : 1];
    if constexpr (kForm == Form::kAdd) load(before, product, out);
    // Products of the residual stream normalise its rows behind the sum.
    constexpr bool kNorm = kForm != Form::kAdd;
    Squares<kNorm> squares = {};
    if constexpr (kFew) {
      multiply_few<kTiles>(d, squares, product, step);
    } else {
      multiply_many<kTiles>(d, squares, product, step);
    }
    if constexpr (kNorm) finish(squares, product, kForm == Form::kStore);
    store<kTiles, kForm>(d, before, product, out);
    sm90::named_barrier_sync(kConsumerBarrier, kConsumers);
    if (threadIdx.x == 0) {
      announce(p_, step);
      trace(p_, step, 1);
    }
  }

  // For stage i of a product, which is the ring's current one.
  __device__ void wait(int step, int i) const {
    sm90::mbarrier_wait(stages_.full(ring_.stage), ring_.parity);
    if (i == 0 && threadIdx.x == 0) trace(p_, step, 0);
  }
  // The same for all lanes.
  __device__ bool is_there() const {
    return __all_sync(~0U, sm90::mbarrier_test_wait(stages_.full(ring_.stage), ring_.parity));
  }

  // Partial sums of squares of the activations, as norm.cu has them: a thread takes the same piece
  // of sixteen bytes of each slice. Where a row's pieces lie swizzled they do so alike in all.
  static constexpr int kPieces = kTokens * kSquareLanes;
  static constexpr int kPiecesOfThread = (kPieces + kConsumers - 1) / kConsumers;
  template <bool kNorm>
  struct Squares {
    float sums[kNorm ? kPiecesOfThread : 1][kSquareGroups];  // the next slice's first
  };
  __device__ static int piece_of(int i) { return static_cast<int>(threadIdx.x) + i * kConsumers; }

  __device__ static void turn(float (&sums)[kSquareGroups], float first) {
#pragma unroll
    for (int g = 0; g + 1 < kSquareGroups; ++g) sums[g] = sums[g + 1];
    sums[kSquareGroups - 1] = first;
  }

  template <bool kNorm>
  __device__ void measure(Squares<kNorm>& squares, const Product& product, int slice) const {
    if constexpr (kNorm) {
      const std::uint32_t pieces = stages_.activations(product, ring_.stage) +
                                   static_cast<std::uint32_t>(slice * kTokens * kSwizzleRow);
#pragma unroll
      for (int i = 0; i < kPiecesOfThread; ++i) {
        if (piece_of(i) < kPieces) {
          const auto at = pieces + static_cast<std::uint32_t>(piece_of(i) * 16);
          turn(squares.sums[i], add_squares(squares.sums[i][0], sm90::load_shared(at)));
        }
      }
    }
  }

  // The mean squares, for the warpgroup and, of what becomes qkv, for RoPE.
  __device__ void finish(Squares<true>& squares, const Product& product, bool is_qkv) const {
#pragma unroll
    for (int i = 0; i < kPiecesOfThread; ++i) {
      if (piece_of(i) >= kPieces) continue;  // whole warps
      float(&sums)[kSquareGroups] = squares.sums[i];
      for (int g = product.k / kSlice; g % kSquareGroups != 0; ++g) turn(sums, sums[0]);
      const float m = mean_square(
          __fadd_rn(__fadd_rn(sums[0], sums[1]), __fadd_rn(sums[2], sums[3])), product.k, p_.eps);
      const int row = piece_of(i) / kSquareLanes;
      if (lane_ % kSquareLanes != 0) continue;
      mean_squares_[row] = m;
      if (is_qkv && blockIdx.x == 0) p_.mean_squares[row] = m;
    }
    sm90::named_barrier_sync(kConsumerBarrier, kConsumers);
  }

  template <int kTiles, bool kNorm>
  __device__ void multiply_many(Sums<kTiles>& d, Squares<kNorm>& squares, const Product& product,
                                int step) {
    int previous = -1;
    for (int i = 0; i < product.stages; ++i) {
      wait(step, i);
      multiply_stage<kTiles>(d, product);
      sm90::warpgroup_wait<1>();
      if (previous >= 0) release(previous);
      for (int slice = 0; slice < product.slices(); ++slice) measure(squares, product, slice);
      previous = ring_.stage;
      ring_.advance(p_.stages);
    }
    sm90::warpgroup_wait<0>();
    keep<kTiles>(d);
    release(previous);
  }

  // Operands of 32 columns of k: half a slice.
  template <int kTiles>
  struct Operands {
    std::uint32_t weights[kTiles][2][4];
    std::uint32_t activations[kTokens / 8][4];
  };

  // By mma.sync: the chain of dependent products along k, which is what bounds a small tile, is
  // shorter than wgmma's.
  template <int kTiles, bool kNorm>
  __device__ void multiply_few(Sums<kTiles>& d, Squares<kNorm>& squares, const Product& product,
                               int step) {
    if (warp_row_ >= product.tile_rows) {
      for (int i = 0; i < product.stages; ++i) {
        wait(step, i);
        for (int slice = 0; slice < product.slices(); ++slice) measure(squares, product, slice);
        release(ring_.stage);
        ring_.advance(p_.stages);
      }
    } else if (kTiles == 1 && product.slice_count == 3) {
      multiply_slices<kTiles, 8>(d, squares, product, step);
    } else if (product.slice_count == 2) {
      multiply_slices<kTiles, 4>(d, squares, product, step);
    } else if (product.slice_count == 1) {
      multiply_slices<kTiles, 2>(d, squares, product, step);
    } else {
      multiply_slices<kTiles, 1>(d, squares, product, step);
    }
  }

  // Each half slice is read while the one before is multiplied, that of the next stage too if the
  // stage is there by then.
  template <int kTiles, int kSlices, bool kNorm>
  __device__ void multiply_slices(Sums<kTiles>& d, Squares<kNorm>& squares, const Product& product,
                                  int step) {
    Operands<kTiles> operands[2];
    wait(step, 0);
    read_half<kTiles>(operands[0], product, 0);
    for (int i = 0; i < product.stages; ++i) {
#pragma unroll
      for (int half = 0; half + 1 < 2 * kSlices; ++half) {
        read_half<kTiles>(operands[(half + 1) % 2], product, half + 1);
        if (half % 2 == 0) measure(squares, product, half / 2);
        multiply_half<kTiles>(d, operands[half % 2]);
      }
      const int stage = ring_.stage;
      ring_.advance(p_.stages);
      const bool more = i + 1 < product.stages;
      const bool there = more && is_there();
      if (there) read_half<kTiles>(operands[0], product, 0);
      multiply_half<kTiles>(d, operands[1]);
      release(stage);
      if (more && !there) {
        wait(step, i + 1);
        read_half<kTiles>(operands[0], product, 0);
      }
    }
  }

  template <int kTiles>
  __device__ static void multiply_half(Sums<kTiles>& d, const Operands<kTiles>& operands) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int n = 0; n < kTokens / 8; ++n) {
          multiply_16x8(d[tile][n], operands.weights[tile][k], operands.activations[n][2 * k],
                        operands.activations[n][2 * k + 1]);
        }
      }
    }
  }

  // From the ring's current stage.
  template <int kTiles>
  __device__ void read_half(Operands<kTiles>& operands, const Product& product, int half) const {
    const int slice = half / 2;
    const std::uint32_t row = stages_.weights(ring_.stage) +
                              static_cast<std::uint32_t>(slice * product.weight_bytes() +
                                                         (warp_row_ + lane_ % 16) * kSwizzleRow);
    const std::uint32_t token =
        stages_.activations(product, ring_.stage) +
        static_cast<std::uint32_t>((slice * kTokens + lane_ % 8) * kSwizzleRow);
    read<kTiles>(operands, row, token, half % 2);
  }

  // Rows of 128 bytes lie swizzled: piece c of sixteen bytes of row r at c ^ r % 8.
  template <int kTiles>
  __device__ void read(Operands<kTiles>& operands, std::uint32_t row, std::uint32_t token,
                       int half) const {
    const int swizzle = lane_ % 8;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const auto piece =
          static_cast<std::uint32_t>(((half * 4 + k * 2 + lane_ / 16) ^ swizzle) * 16);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        load_matrices(operands.weights[tile][k],
                      row + piece + static_cast<std::uint32_t>(tile * 64 * kSwizzleRow));
      }
    }
    const auto piece = static_cast<std::uint32_t>(((half * 4 + lane_ / 8) ^ swizzle) * 16);
#pragma unroll
    for (int n = 0; n < kTokens / 8; ++n) {
      load_matrices(operands.activations[n],
                    token + piece + static_cast<std::uint32_t>(n * 8 * kSwizzleRow));
    }
  }

  template <int kTiles>
  __device__ void multiply_stage(Sums<kTiles>& d, const Product& product) const {
    constexpr int kTileBytes = 64 * kSwizzleRow;
    const std::uint32_t weights = stages_.weights(ring_.stage);
    const std::uint32_t activations = stages_.activations(product, ring_.stage);
#pragma unroll 1
    for (int slice = 0; slice < product.slices(); ++slice) {
      const std::uint64_t w = sm90::wgmma_descriptor(
          weights + static_cast<std::uint32_t>(slice * product.weight_bytes()), kGroupBytes, 0);
      const std::uint64_t x = sm90::wgmma_descriptor(
          activations + static_cast<std::uint32_t>(slice * kTokens * kSwizzleRow), kGroupBytes, 0);
      sm90::warpgroup_arrive();
#pragma unroll
      for (int i = 0; i < kSlice / 16; ++i) {  // 16 of k are 32 bytes of a row
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          sm90::wgmma_narrow<kTokens>(d[tile], w + tile * (kTileBytes / 16) + i * 2, x + i * 2);
        }
      }
    }
    sm90::warpgroup_commit();
  }

  // Keeps the compiler from reading the sums before the wait in front of this.
  template <int kTiles>
  __device__ static void keep(Sums<kTiles>& d) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int n = 0; n < kTokens / 8; ++n) {
        float(&q)[4] = d[tile][n];
        asm volatile("" : "+f"(q[0]), "+f"(q[1]), "+f"(q[2]), "+f"(q[3])::"memory");
      }
    }
  }

  // Lane i tells block i of the cluster.
  __device__ void release(int stage) const {
    __syncwarp();
    if (lane_ == 0) sm90::mbarrier_arrive(stages_.empty(stage));
    if (lane_ < p_.cluster) sm90::mbarrier_arrive_cluster(stages_.empty_in_all(stage), lane_);
  }

  // The sums [t][2 h + j] are row 16 * warp + lane / 4 + 8 h of the weight's tile and token 8 t +
  // lane % 4 * 2 + j, so gate (h = 0) and up (h = 1) of one output lie in one lane.
  __device__ int token_of(int t, int j) const { return t * 8 + lane_ % 4 * 2 + j; }
  __device__ bool is_inside(const Product& product, int row, int column) const {
    return row < product.tile_rows && column < product.n;
  }

  // What the product will be added to. This thread alone writes it, in the steps before too.
  template <int kCount>
  __device__ void load(__nv_bfloat16 (&before)[kCount], const Product& product,
                       const __nv_bfloat16* out) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int row = warp_row_ + lane_ / 4 + i / 2 % 2 * 8;
      const int column = static_cast<int>(blockIdx.x) * product.tile_rows + row;
      const int token = token_of(i / 4, i % 2);
      before[i] = __float2bfloat16(0.0F);
      if (is_inside(product, row, column) && token < p_.rows) {
        before[i] = __ldcg(out + std::int64_t{token} * product.n + column);
      }
    }
  }

  template <int kTiles, Form kForm, int kCount>
  __device__ void store(Sums<kTiles>& d, const __nv_bfloat16 (&before)[kCount],
                        const Product& product, __nv_bfloat16* out) const {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int row = tile * 64 + warp_row_ + lane_ / 4;
      const int column = static_cast<int>(blockIdx.x) * product.tile_rows + row;
#pragma unroll
      for (int i = 0; i < kTokens / 4; ++i) {
        const int token = token_of(i / 2, i % 2);
        if (token >= p_.rows) continue;
        float* sums = d[tile][i / 2];
        if constexpr (kForm == Form::kSwiglu) {
          if (is_inside(product, row, column)) {
            float gate = sums[i % 2];
            float up = sums[2 + i % 2];
            round_pair_to_bf16(gate, up);
            const float scale = row_scale(mean_squares_[token]);
            out[std::int64_t{token} * (product.n / 2) + (column - lane_ / 4) / 2 + lane_ / 4] =
                __float2bfloat16(silu_times(gate, up, scale));
          }
        } else {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            if (!is_inside(product, row + 8 * h, column + 8 * h)) continue;
            __nv_bfloat16 value = __float2bfloat16(sums[2 * h + i % 2]);
            if constexpr (kForm == Form::kAdd) {
              value = __float2bfloat16(__bfloat162float(value) +
                                       __bfloat162float(before[i / 2 * 4 + 2 * h + i % 2]));
            } else if (column + 8 * h >= (p_.num_q + p_.num_kv) * kHeadWidth) {
              value = __float2bfloat16(
                  __fmul_rn(__bfloat162float(value), row_scale(mean_squares_[token])));
            }
            out[std::int64_t{token} * product.n + column + 8 * h] = value;
          }
        }
      }
    }
  }

  const Parameters& p_;
  const Stages<kTokens>& stages_;
  float* const mean_squares_;
  const int lane_, warp_row_;
  Ring ring_;
};

}  // namespace tessera::kernels::cuda::layers
