// Whole layers of a short batch in one launch.
//
// One block an SM, all resident, clusters of four. In each block one warpgroup multiplies, two
// warps load weights and activations, two read weights ahead, and four do what lies between the
// products. Steps wait for each other through counters in device memory. A weight is used once and
// by one block only, at the rate of the memory: while the blocks wait for a step's last one or for
// attention, weights of the products to come are on their way into shared memory and, when that is
// full, into the L2 cache.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>
#include <vector>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/tensor_map.hpp"
#include "kernels/cuda/layers/sm90_layers.hpp"
#include "kernels/cuda/layers/sm90_layers_loaders.cuh"
#include "kernels/cuda/layers/sm90_layers_product.cuh"
#include "kernels/cuda/layers/sm90_layers_rows.cuh"
#include "kernels/cuda/ptx/sm90_cluster.cuh"
#include "kernels/cuda/ptx/sm90_mbarrier.cuh"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/ptx/sm90_warpgroup.cuh"

namespace tessera::kernels::cuda {
namespace layers {
namespace {

constexpr int kLoaders = kConsumers + kHelpers;  // the first thread of four warps
constexpr int kThreads = kLoaders + 64 + kReaders;

__device__ void init_barriers(const Parameters& p, Barriers& barriers) {
  constexpr int kWarps = kConsumers / 32;
  for (int i = 0; i < p.stages; ++i) {
    sm90::mbarrier_init(sm90::shared_address(&barriers.full[i]), 1);
    sm90::mbarrier_init(sm90::shared_address(&barriers.empty[i]), kWarps);
    sm90::mbarrier_init(sm90::shared_address(&barriers.empty_in_all[i]), kWarps * p.cluster);
  }
  sm90::mbarrier_fence_init();
}

template <int kTokens>
__global__ void __launch_bounds__(kThreads, 1) layers_kernel(const __grid_constant__ Parameters p) {
  extern __shared__ unsigned char raw[];
  __shared__ Barriers barriers;
  __shared__ AttentionMemory<kTokens> helper_memory;
  __shared__ float mean_squares[kTokens];
  __shared__ ReadAhead ahead;
  const std::uint32_t start = sm90::shared_address(raw);
  const Stages<kTokens> stages(p, start + ((1024 - (start & 1023)) & 1023), barriers);
  if (threadIdx.x == 0) {
    init_barriers(p, barriers);
    ahead.loaded = 0;
  }
  __syncthreads();
  sm90::cluster_sync();
  const auto thread = static_cast<int>(threadIdx.x);
  // Together what 168 registers of each thread are, which the launch has.
  if (thread < kConsumers) {
    sm90::reg_alloc<224>();
    Consumer<kTokens>(p, stages, mean_squares).run();
  } else if (thread < kLoaders) {
    sm90::reg_alloc<224>();
    Helper<kTokens>(p, helper_memory, thread - kConsumers).run();
  } else {
    sm90::reg_dealloc<56>();
    if (thread == kLoaders) load_weights(p, stages, ahead);
    if (thread == kLoaders + 32) load_activations(p, stages);
    if (thread >= kLoaders + 64) read_ahead(p, ahead, thread - kLoaders - 64);
  }
  __syncthreads();
  sm90::cluster_sync();  // none leaves while others reach into its memory
}

}  // namespace
}  // namespace layers

namespace {

using layers::Product;

constexpr int kSharedBytesMax = 227 << 10;
constexpr int kStageBytesMin = 48 << 10;
constexpr int kTilesMax = 3;  // of 64 rows, of a block's share of gate and up

struct Shares {
  int rows[layers::kProducts];  // of a block
  bool fit;
};

struct ProductSize {
  std::int64_t n, k;
};

std::array<ProductSize, layers::kProducts> product_sizes(const EncoderShape& s) {
  return {{{s.attention.qkv_width(), s.hidden_size},
           {s.hidden_size, s.attention.q_width()},
           {2 * s.intermediate_size, s.hidden_size},
           {s.hidden_size, s.intermediate_size}}};
}

Shares divide(const EncoderShape& shape, int blocks) {
  Shares shares{.fit = true};
  const auto sizes = product_sizes(shape);
  for (int i = 0; i < layers::kProducts; ++i) {
    const std::int64_t unit = i == 2 ? 16 : 8;  // pairs of gate and up stay together
    const std::int64_t rows = (sizes[i].n + unit * blocks - 1) / (unit * blocks) * unit;
    shares.rows[i] = static_cast<int>(rows);
    shares.fit = shares.fit && rows <= (i == 2 ? 64 * kTilesMax : 64) && sizes[i].n % 16 == 0 &&
                 sizes[i].k % layers::kSlice == 0;
  }
  return shares;
}

bool suits(const AttentionShape& heads) {
  const std::int64_t group = heads.num_q_heads / heads.num_kv_heads;
  return heads.head_dim == layers::kHeadWidth && heads.num_q_heads % heads.num_kv_heads == 0 &&
         std::has_single_bit(static_cast<std::uint64_t>(group)) && group <= layers::kQueryRows;
}

// As many slices a stage as fit beside the widest product's one.
void plan_stages(layers::Parameters& p, const EncoderShape& shape, const Shares& shares,
                 int tokens) {
  const auto sizes = product_sizes(shape);
  p.stage_bytes = kStageBytesMin;
  for (int i = 0; i < layers::kProducts; ++i) {
    p.products[i] = {.n = static_cast<int>(sizes[i].n),
                     .k = static_cast<int>(sizes[i].k),
                     .tile_rows = shares.rows[i]};
    p.stage_bytes = std::max(p.stage_bytes, (shares.rows[i] + tokens) * layers::kSwizzleRow);
  }
  for (Product& product : p.products) {
    const int slices = product.k / layers::kSlice;
    const int slice_bytes = (product.tile_rows + tokens) * layers::kSwizzleRow;
    product.slice_count = 0;
    while (product.slice_count + 1 < (product.tile_rows > 64 ? 3 : layers::kSliceCounts) &&
           slices % (2 << product.slice_count) == 0 &&
           (2 << product.slice_count) * slice_bytes <= p.stage_bytes) {
      ++product.slice_count;
    }
    product.stages = slices >> product.slice_count;
  }
}

// Rows of k elements as slices of 64, of which a copy brings so many at once.
CUtensorMap sliced_map(const __nv_bfloat16* data, std::int64_t rows, std::int64_t k,
                       std::int64_t box_rows, int box_slices) {
  return make_tensor_map({.data = data,
                          .size = {layers::kSlice, static_cast<std::uint64_t>(rows),
                                   static_cast<std::uint64_t>(k / layers::kSlice)},
                          .stride_bytes = {static_cast<std::uint64_t>(k) * 2, layers::kSlice * 2},
                          .box = {layers::kSlice, static_cast<std::uint32_t>(box_rows),
                                  static_cast<std::uint32_t>(box_slices)}});
}

cudaLaunchConfig_t config_of(int blocks, int threads, int shared_bytes,
                             cudaLaunchAttribute& attribute, int cluster, cudaStream_t stream) {
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return config;
}

// What is left of an SM's shared memory beside the kernel's own.
template <int kTokens>
int ring_bytes() {
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, layers::layers_kernel<kTokens>));
  return kSharedBytesMax - static_cast<int>(attributes.sharedSizeBytes) - 1024;
}

// Loads the kernels' code, so that no launch has to.
template <int... kTokens>
void prepare_kernels() {
  (cuda_check(cudaFuncSetAttribute(layers::layers_kernel<kTokens>,
                                   cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   ring_bytes<kTokens>())),
   ...);
}

// How many blocks the GPU holds at once in clusters of so many.
int resident_blocks(int cluster) {
  constexpr int kTokens = 24;
  const auto kernel = layers::layers_kernel<kTokens>;
  const int bytes = ring_bytes<kTokens>();
  cudaLaunchAttribute attribute{};
  const cudaLaunchConfig_t config =
      config_of(cluster, layers::kThreads, bytes, attribute, cluster, nullptr);
  int clusters = 0;
  cuda_check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config));
  return clusters * cluster;
}

}  // namespace

LayerRunner::LayerRunner(const EncoderShape& shape, int compute_capability, int num_sms)
    : shape_(shape), memory_(kDeviceBytes, "the layers of short batches") {
  static_assert(kLayersMax * (sizeof(layers::LayerEntry) +
                              kLayerSteps * layers::kCounterStride * sizeof(unsigned)) +
                    kLayersRowsMax * sizeof(float) <=
                kDeviceBytes);
  if (compute_capability != 90 || !suits(shape.attention)) return;
  prepare_kernels<8, 16, 24, 32, 48, 64>();
  for (const int cluster : {4, 2, 1}) {
    const int blocks = std::min(resident_blocks(cluster), num_sms) / cluster * cluster;
    if (divide(shape, blocks).fit) {
      num_blocks_ = blocks;
      cluster_ = cluster;
      return;
    }
  }
}

// A block lists its items of attention; there are at most rows * kv heads of them.
bool LayerRunner::supports(std::int64_t rows) const {
  return num_blocks_ > 0 && rows > 0 && rows <= kLayersRowsMax &&
         rows * shape_.attention.num_kv_heads <= std::int64_t{num_blocks_} * layers::kItemsMax;
}

void LayerRunner::set_layers(std::span<const LayerPointers> layers, cudaStream_t stream) {
  CHECK(num_blocks_ > 0 && layers.size() <= kLayersMax);
  const Shares shares = divide(shape_, num_blocks_);
  const auto sizes = product_sizes(shape_);
  std::vector<layers::LayerEntry> entries;
  for (const LayerPointers& layer : layers) {
    const __nv_bfloat16* weights[] = {layer.qkv, layer.o, layer.gate_up, layer.down};
    layers::LayerEntry entry{.q_norm = layer.q_norm, .k_norm = layer.k_norm};
    for (int i = 0; i < layers::kProducts; ++i) {
      entry.matrices[i] = weights[i];
      for (int count = 0; count < layers::kSliceCounts; ++count) {
        entry.weights[i][count] =
            sliced_map(weights[i], sizes[i].n, sizes[i].k, shares.rows[i], 1 << count);
      }
    }
    entries.push_back(entry);
  }
  cuda_check(cudaMemcpyAsync(memory_.data(), entries.data(), entries.size() * sizeof entries[0],
                             cudaMemcpyHostToDevice, stream));
  cuda_check(cudaStreamSynchronize(stream));
  num_layers_ = static_cast<int>(layers.size());
}

template <int kTokens>
void LayerRunner::launch_tokens(const LayersArguments& a, cudaStream_t stream) {
  const AttentionShape& heads = shape_.attention;
  layers::Parameters p{
      .layers = memory_.as<layers::LayerEntry>(),
      .begin = a.begin,
      .end = a.end,
      .rows = static_cast<int>(a.rows),
      .cluster = cluster_,
      .eps = a.eps,
      .x = a.x,
      .qkv = a.qkv,
      .attention = a.attention,
      .mlp = a.mlp,
      .done = memory_.as<unsigned>(kLayersMax * sizeof(layers::LayerEntry)),
      .mean_squares = memory_.as<float>(kDeviceBytes - kLayersRowsMax * sizeof(float)),
      .positions = a.positions,
      .first_rows = a.first_rows,
      .num_rows = a.num_rows,
      .num_sequences = static_cast<int>(a.num_sequences),
      .num_q = static_cast<int>(heads.num_q_heads),
      .num_kv = static_cast<int>(heads.num_kv_heads),
      .log2_group = std::countr_zero(static_cast<unsigned>(heads.num_q_heads / heads.num_kv_heads)),
      .rope_table = a.rope_table,
      .scale_log2 =
          std::numbers::log2e_v<float> / std::sqrt(static_cast<float>(layers::kHeadWidth)),
      .trace = a.trace};
  plan_stages(p, shape_, divide(shape_, num_blocks_), kTokens);
  const __nv_bfloat16* in[] = {a.x, a.attention, a.x, a.mlp};
  for (int i = 0; i < layers::kProducts; ++i) {
    p.in[i] = sliced_map(in[i], a.rows, p.products[i].k, kTokens,
                         std::max((1 << p.products[i].slice_count) / cluster_, 1));
  }
  // The last slices of a stage are read as if they had 64 rows; what lies behind the ring is the
  // kernel's own.
  constexpr int kBehind = 64 * layers::kSwizzleRow;
  const int bytes = ring_bytes<kTokens>();
  p.stages = std::min(layers::kStagesMax, (bytes - 1024 - kBehind) / p.stage_bytes);
  CHECK(p.stages >= 2);
  cuda_check(cudaMemsetAsync(
      p.done, 0,
      static_cast<std::size_t>(a.end - a.begin) * layers::kCounterStride * sizeof(unsigned),
      stream));
  cudaLaunchAttribute attribute{};
  const cudaLaunchConfig_t config =
      config_of(num_blocks_, layers::kThreads, bytes, attribute, cluster_, stream);
  cuda_check(cudaLaunchKernelEx(&config, layers::layers_kernel<kTokens>, p));
}

void LayerRunner::launch(const LayersArguments& a, cudaStream_t stream) {
  CHECK(supports(a.rows) && a.begin < a.end && a.end <= num_layers_ * kLayerSteps);
  if (a.rows <= 8) {
    launch_tokens<8>(a, stream);
  } else if (a.rows <= 16) {
    launch_tokens<16>(a, stream);
  } else if (a.rows <= 24) {
    launch_tokens<24>(a, stream);
  } else if (a.rows <= 32) {
    launch_tokens<32>(a, stream);
  } else if (a.rows <= 48) {
    launch_tokens<48>(a, stream);
  } else {
    launch_tokens<64>(a, stream);
  }
}

}  // namespace tessera::kernels::cuda
