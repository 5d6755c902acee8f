// Matrix products of at most 64 rows on Hopper, and of up to 128 in two parts.
//
// Such a product is bound by reading the weight once, so the weight's rows are spread evenly over
// all SMs (tiles of up to 64 rows, the number chosen per shape) and every block keeps most of its
// shared memory filled with slices on their way. The weight's rows are the 64 rows of wgmma, the
// activations its 16, 32 or 64 columns; rows that a narrower tile lacks compute garbage that nobody
// stores. k is never split: sums have the order, and so the bits, of a large product.
//
// Weights do not depend on the kernel before this one, so a block starts to load them before that
// kernel has ended (see dependent_launch.cuh) and only then waits for the activations.

#include <algorithm>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/dependent_launch.cuh"
#include "kernels/cuda/base/tensor_map.hpp"
#include "kernels/cuda/products/sm90_small_gemm.hpp"
#include "kernels/cuda/ptx/sm90_mbarrier.cuh"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/ptx/sm90_tma.cuh"
#include "kernels/cuda/ptx/sm90_wgmma.cuh"
#include "kernels/cuda/ptx/sm90_wgmma_narrow.cuh"
#include "kernels/cuda/rows/row_math.cuh"

namespace tessera::kernels::cuda {
namespace {

using Form = Product::Form;

constexpr int kSlice = 64;  // of k: 128 bytes, one swizzled row
constexpr int kSlices = 4;  // of one stage
constexpr int kStagesMax = 16;
constexpr int kThreads = 128 + 32;  // one warpgroup multiplies, one more warp loads
constexpr int kSharedBytesMax = 220 << 10;
constexpr int kSwizzleRow = 128;
constexpr int kGroupBytes = 8 * kSwizzleRow;
// For the alignment, and behind the last slice, of which a product reads 64 rows even if it has
// less.
constexpr int kSlackBytes = 1024 + 64 * kSwizzleRow;

struct Problem {
  CUtensorMap weight;  // box: 64 of k x tile_rows
  CUtensorMap in;      // box: 64 of k x tokens x kSlices
  __nv_bfloat16* out;
  const float* mean_squares;
  int rows, n, k;
  int tile_rows;     // of the weight, at most 64
  int weight_bytes;  // of one slice in shared memory
  int parts;         // of the tokens, kTokens each, side by side in blocks that share weight rows
  int num_tiles;     // of all parts
  int stages;
};

struct Barriers {
  std::uint64_t full[kStagesMax], empty[kStagesMax];
};

// Position in the ring of stages; their number is known at the launch only.
struct Ring {
  int stage = 0;
  int parity = 0;
  __device__ void advance(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <int kTokens>
class Block {
 public:
  __device__ Block(const Problem& p, unsigned char* stages, Barriers& barriers)
      : p_(p), stages_(sm90::shared_address(stages)), barriers_(barriers) {
    steps_ = p.k / (kSlice * kSlices);
    const int tiles =
        (p.num_tiles - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
        static_cast<int>(gridDim.x);
    all_steps_ = tiles * steps_;
  }

  // One thread. The weights of the first round go out before the activations are there.
  __device__ void produce() {
    const int early = min(p_.stages, all_steps_);
    for (int i = 0; i < early; ++i) {
      sm90::mbarrier_arrive_expect_tx(full(i), stage_bytes());
      load_weight(i, i);
    }
    wait_for_previous_kernel();
    for (int i = 0; i < early; ++i) {
      load_in(i, i);
    }
    Ring ring;
    for (int i = early; i < all_steps_; ++i) {
      sm90::mbarrier_wait(empty(ring.stage), ring.parity);
      sm90::mbarrier_arrive_expect_tx(full(ring.stage), stage_bytes());
      load_weight(i, ring.stage);
      load_in(i, ring.stage);
      ring.advance(p_.stages);
    }
  }

  // One warpgroup.
  template <Form kForm>
  __device__ void consume() {
    const int lane = static_cast<int>(threadIdx.x % 32);
    Ring ring;
    for (int tile = static_cast<int>(blockIdx.x); tile < p_.num_tiles;
         tile += static_cast<int>(gridDim.x)) {
      float d[kTokens / 8][4] = {};
      int previous = -1;
      for (int step = 0; step < steps_; ++step) {
        sm90::mbarrier_wait(full(ring.stage), ring.parity);
        multiply(d, ring.stage);
        sm90::warpgroup_wait<1>();
        if (previous >= 0) {
          release(previous, lane);
        }
        previous = ring.stage;
        ring.advance(p_.stages);
      }
      finish_products(d);
      release(previous, lane);
      wait_for_previous_kernel();
      store<kForm>(d, tile, lane);
    }
  }

 private:
  __device__ std::uint32_t full(int stage) const {
    return sm90::shared_address(&barriers_.full[stage]);
  }
  __device__ std::uint32_t empty(int stage) const {
    return sm90::shared_address(&barriers_.empty[stage]);
  }
  __device__ std::uint32_t weight_at(int stage) const {
    return stages_ +
           static_cast<std::uint32_t>(stage * kSlices * (p_.weight_bytes + kTokens * kSwizzleRow));
  }
  __device__ std::uint32_t in_at(int stage) const {
    return weight_at(stage) + static_cast<std::uint32_t>(kSlices * p_.weight_bytes);
  }
  // Boxes that stick out of the matrix count whole: the copy engine fills them with zeros.
  __device__ int stage_bytes() const { return kSlices * (p_.tile_rows + kTokens) * kSwizzleRow; }

  __device__ void load_weight(int i, int stage) const {
    const int row = tile_of(i) / p_.parts * p_.tile_rows;
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      sm90::tma_load(weight_at(stage) + static_cast<std::uint32_t>(slice * p_.weight_bytes),
                     &p_.weight, full(stage), (i % steps_ * kSlices + slice) * kSlice, row, 0);
    }
  }
  __device__ void load_in(int i, int stage) const {
    const int token = tile_of(i) % p_.parts * kTokens;
    sm90::tma_load(in_at(stage), &p_.in, full(stage), 0, token, i % steps_ * kSlices);
  }
  __device__ int tile_of(int step) const {
    return static_cast<int>(blockIdx.x) + step / steps_ * static_cast<int>(gridDim.x);
  }

  __device__ void multiply(float (&d)[kTokens / 8][4], int stage) const {
    sm90::warpgroup_arrive();
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      const std::uint64_t w = sm90::wgmma_descriptor(
          weight_at(stage) + static_cast<std::uint32_t>(slice * p_.weight_bytes), kGroupBytes, 0);
      const std::uint64_t x = sm90::wgmma_descriptor(
          in_at(stage) + static_cast<std::uint32_t>(slice * kTokens * kSwizzleRow), kGroupBytes, 0);
#pragma unroll
      for (int i = 0; i < kSlice / 16; ++i) {  // 16 of k are 32 bytes of a row
        sm90::wgmma_narrow<kTokens>(d, w + i * 2, x + i * 2);
      }
    }
    sm90::warpgroup_commit();
  }

  __device__ static void finish_products(float (&d)[kTokens / 8][4]) {
    sm90::warpgroup_wait<0>();
#pragma unroll
    for (int n = 0; n < kTokens / 8; ++n) {
      asm volatile("" : "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])::"memory");
    }
  }

  __device__ void release(int stage, int lane) const {
    __syncwarp();
    if (lane == 0) sm90::mbarrier_arrive(empty(stage));
  }

  // d[t][2 h + j] is row 16 * warp + lane / 4 + 8 h of the weight's tile and token 8 t + lane % 4 *
  // 2
  // + j, so gate (h = 0) and up (h = 1) of one output lie in one lane.
  template <Form kForm>
  __device__ void store(float (&d)[kTokens / 8][4], int part_tile, int lane) const {
    const int tile = part_tile / p_.parts;
    const int first_token = part_tile % p_.parts * kTokens;
    const int row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
#pragma unroll
    for (int t = 0; t < kTokens / 8; ++t) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int token = first_token + t * 8 + lane % 4 * 2 + j;
        if (token >= p_.rows) {
          continue;
        }
        if constexpr (kForm == Form::kSwiglu) {
          const int column = tile * p_.tile_rows + row - lane / 4;
          if (row < p_.tile_rows && column < p_.n) {
            float gate = d[t][j];
            float up = d[t][2 + j];
            round_pair_to_bf16(gate, up);
            const float scale = row_scale(p_.mean_squares[token]);
            p_.out[std::int64_t{token} * (p_.n / 2) + column / 2 + lane / 4] =
                __float2bfloat16(silu_times(gate, up, scale));
          }
        } else {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int column = tile * p_.tile_rows + row + 8 * h;
            if (row + 8 * h < p_.tile_rows && column < p_.n) {
              __nv_bfloat16* out = p_.out + std::int64_t{token} * p_.n + column;
              __nv_bfloat16 product = __float2bfloat16(d[t][2 * h + j]);
              if constexpr (kForm == Form::kAdd) {
                product = __float2bfloat16(__bfloat162float(product) + __bfloat162float(*out));
              }
              *out = product;
            }
          }
        }
      }
    }
  }

  const Problem& p_;
  std::uint32_t stages_;
  Barriers& barriers_;
  int steps_;      // of one tile
  int all_steps_;  // of this block
};

template <int kTokens, Form kForm>
__global__ void __launch_bounds__(kThreads, 1)
    small_gemm_kernel(const __grid_constant__ Problem p) {
  extern __shared__ unsigned char raw[];
  __shared__ Barriers barriers;
  allow_next_kernel();
  const std::uint32_t misaligned = sm90::shared_address(raw) & 1023;
  unsigned char* stages = raw + ((1024 - misaligned) & 1023);
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.stages; ++i) {
      sm90::mbarrier_init(sm90::shared_address(&barriers.full[i]), 1);
      sm90::mbarrier_init(sm90::shared_address(&barriers.empty[i]), 4);
    }
    sm90::mbarrier_fence_init();
  }
  __syncthreads();
  Block<kTokens> block(p, stages, barriers);
  if (threadIdx.x >= 128) {
    if (threadIdx.x == 128) block.produce();
  } else {
    block.template consume<kForm>();
  }
}

// The number of weight rows of a tile that spreads n rows most evenly over the SMs; among equals
// the larger, which reads the activations less often.
int choose_tile_rows(std::int64_t n, int unit, int num_sms) {
  int best = 0;
  double best_share = 0;
  for (int rows = 64; rows >= unit; rows -= unit) {
    const std::int64_t tiles = (n + rows - 1) / rows;
    const std::int64_t rounds = (tiles + num_sms - 1) / num_sms;
    const double share = static_cast<double>(n) / static_cast<double>(rounds * num_sms * rows);
    if (share > best_share + 0.02) {
      best = rows;
      best_share = share;
    }
  }
  return best;
}

template <int kTokens, Form kForm>
void launch(const Product& a, int num_sms, cudaStream_t stream) {
  const int parts = static_cast<int>((a.rows + kTokens - 1) / kTokens);
  const int tile_rows = choose_tile_rows(a.n, kForm == Form::kSwiglu ? 16 : 4, num_sms / parts);
  const int weight_bytes = (tile_rows + 7) / 8 * 8 * kSwizzleRow;
  const int stage_bytes = kSlices * (weight_bytes + kTokens * kSwizzleRow);
  const int stages = std::min(kStagesMax, (kSharedBytesMax - kSlackBytes) / stage_bytes);
  const auto slices = static_cast<std::uint64_t>(a.k / kSlice);
  const auto row_bytes = static_cast<std::uint64_t>(a.k) * 2;
  const auto n = static_cast<std::uint64_t>(a.n);
  const auto rows = static_cast<std::uint64_t>(a.rows);
  const Problem problem{
      .weight = make_tensor_map({.data = a.weight,
                                 .size = {static_cast<std::uint64_t>(a.k), n, 1},
                                 .stride_bytes = {row_bytes, row_bytes * n},
                                 .box = {kSlice, static_cast<std::uint32_t>(tile_rows), 1}}),
      .in = make_tensor_map({.data = a.in,
                             .size = {kSlice, rows, slices},
                             .stride_bytes = {row_bytes, kSlice * 2},
                             .box = {kSlice, kTokens, kSlices}}),
      .out = a.out,
      .mean_squares = a.mean_squares,
      .rows = static_cast<int>(a.rows),
      .n = static_cast<int>(a.n),
      .k = static_cast<int>(a.k),
      .tile_rows = tile_rows,
      .weight_bytes = weight_bytes,
      .parts = parts,
      .num_tiles = static_cast<int>((a.n + tile_rows - 1) / tile_rows) * parts,
      .stages = stages};
  const std::size_t shared_bytes = static_cast<std::size_t>(stages * stage_bytes + kSlackBytes);
  cuda_check(cudaFuncSetAttribute(small_gemm_kernel<kTokens, kForm>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shared_bytes)));
  launch_dependent(small_gemm_kernel<kTokens, kForm>,
                   dim3(static_cast<unsigned>(std::min(problem.num_tiles, num_sms))),
                   dim3(kThreads), shared_bytes, stream, problem);
}

template <Form kForm>
void launch_form(const Product& a, int num_sms, cudaStream_t stream) {
  if (a.rows <= 8) {
    launch<8, kForm>(a, num_sms, stream);
  } else if (a.rows <= 16) {
    launch<16, kForm>(a, num_sms, stream);
  } else if (a.rows <= 24) {
    launch<24, kForm>(a, num_sms, stream);
  } else if (a.rows <= 32) {
    launch<32, kForm>(a, num_sms, stream);
  } else if (a.rows <= 48) {
    launch<48, kForm>(a, num_sms, stream);
  } else {
    launch<64, kForm>(a, num_sms, stream);
  }
}

}  // namespace

bool small_gemm_supports(int compute_capability, std::int64_t rows, std::int64_t n,
                         std::int64_t k) {
  return rows <= kSmallGemmRowsMax && parted_gemm_supports(compute_capability, rows, n, k);
}

bool parted_gemm_supports(int compute_capability, std::int64_t rows, std::int64_t n,
                          std::int64_t k) {
  return compute_capability == 90 && rows <= kPartedGemmRowsMax && n % 16 == 0 &&
         k % (kSlices * kSlice) == 0;
}

void launch_small_gemm(const Product& a, int num_sms, cudaStream_t stream) {
  CHECK(a.form != Form::kSwiglu || a.mean_squares != nullptr);
  CHECK(a.rows <= kPartedGemmRowsMax && a.n % 16 == 0 && a.k % (kSlices * kSlice) == 0);
  if (a.rows == 0) {
    return;
  }
  switch (a.form) {
    case Form::kStore:
      return launch_form<Form::kStore>(a, num_sms, stream);
    case Form::kAdd:
      return launch_form<Form::kAdd>(a, num_sms, stream);
    case Form::kSwiglu:
      return launch_form<Form::kSwiglu>(a, num_sms, stream);
  }
}

}  // namespace tessera::kernels::cuda
