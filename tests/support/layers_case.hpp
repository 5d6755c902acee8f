#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>
#include <vector>

#include "common/check.hpp"
#include "kernels/cuda/attention/attention.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/random.hpp"
#include "kernels/cuda/layers/sm90_layers.hpp"
#include "kernels/cuda/products/gemm.hpp"
#include "kernels/cuda/products/sm90_small_gemm.hpp"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::testing {

// Some layers with random weights, and two ways through them: LayerRunner, and the kernels that it
// stands for, one by one. For a GPU test and a benchmark.
class LayersCase {
 public:
  using Bf16 = kernels::cuda::Bf16;

  struct Activations {
    Activations(const kernels::EncoderShape& s, std::int64_t rows)
        : x(rows, s.hidden_size),
          qkv(rows, s.attention.qkv_width()),
          attention(rows, s.attention.q_width()),
          mlp(rows, s.intermediate_size),
          gate_up(rows, 2 * s.intermediate_size) {}
    struct Rows {
      Rows(std::int64_t rows, std::int64_t row_width)
          : width(row_width), buffer(bytes(rows), "a test") {
        kernels::cuda::cuda_check(cudaMemset(buffer.data(), 0, buffer.bytes()));
      }
      std::size_t bytes(std::int64_t rows) const {
        return static_cast<std::size_t>(rows * width) * sizeof(Bf16);
      }
      Bf16* data() { return buffer.as<Bf16>(); }
      std::vector<std::uint16_t> host(std::int64_t rows) {
        std::vector<std::uint16_t> values(static_cast<std::size_t>(rows * width));
        kernels::cuda::cuda_check(cudaDeviceSynchronize());
        kernels::cuda::cuda_check(
            cudaMemcpy(values.data(), buffer.data(), bytes(rows), cudaMemcpyDeviceToHost));
        return values;
      }
      std::int64_t width;
      kernels::cuda::DeviceBuffer buffer;
    };
    Rows x, qkv, attention, mlp, gate_up;
  };

  LayersCase(const kernels::EncoderShape& encoder_shape, int num_layers)
      : shape(encoder_shape),
        properties(current()),
        runner(shape, properties.major * 10 + properties.minor, properties.multiProcessorCount),
        plan_(kernels::cuda::plan_attention(shape.attention,
                                            properties.major * 10 + properties.minor,
                                            properties.multiProcessorCount)),
        gemm_("/dev/null"),
        squares_(kernels::cuda::kLayersRowsMax * sizeof(float), "a test"),
        rope_(static_cast<std::size_t>(kPositions) * 128 * sizeof(float), "a test"),
        lists_(2 * kSequencesMax * sizeof(std::int32_t), "a test"),
        tiles_(kernels::cuda::attention_tiles_bytes(plan_, kernels::cuda::kLayersRowsMax,
                                                    kSequencesMax),
               "a test") {
    kernels::cuda::launch_rope_table(rope_.as<float>(), kPositions, 1e6, nullptr);
    for (int i = 0; i < num_layers; ++i) make_layer();
    kernels::cuda::cuda_check(cudaDeviceSynchronize());
    runner.set_layers(layers_, nullptr);
  }

  // Sequences of these lengths, from now on.
  void set_lengths(std::span<const std::int32_t> lengths) {
    std::vector<std::int32_t> cu_seqlens{0}, lists;
    for (const std::int32_t length : lengths) {
      lists.push_back(cu_seqlens.back());
      cu_seqlens.push_back(cu_seqlens.back() + length);
    }
    rows = cu_seqlens.back();
    num_sequences_ = static_cast<std::int64_t>(lengths.size());
    CHECK(num_sequences_ <= kSequencesMax && rows <= kernels::cuda::kLayersRowsMax);
    lists.insert(lists.end(), lengths.begin(), lengths.end());
    kernels::cuda::copy_to_device(lists_.data(), lists.data(), lists.size() * sizeof lists[0]);
    std::vector<std::int32_t> positions;
    for (const std::int32_t length : lengths) {
      for (std::int32_t i = 0; i < length; ++i) positions.push_back(i);
    }
    positions_ = std::make_unique<kernels::cuda::DeviceBuffer>(positions.size() * 4, "a test");
    kernels::cuda::copy_to_device(positions_->data(), positions.data(), positions.size() * 4);
    std::vector<std::byte> list(kernels::cuda::attention_tiles_bytes(plan_, rows, num_sequences_) +
                                64);
    counts_ = kernels::cuda::build_attention_tiles(plan_, cu_seqlens, list);
    kernels::cuda::copy_to_device(tiles_.data(), list.data(),
                                  kernels::cuda::attention_tiles_bytes(counts_));
  }

  // The same residual stream, as before the first layer.
  void start(Activations& a, std::uint64_t seed) {
    kernels::cuda::launch_fill_random(a.x.data(), rows * shape.hidden_size, seed, nullptr, 2);
    kernels::cuda::cuda_check(cudaDeviceSynchronize());
  }

  void run_at_once(Activations& a, int begin, int end, cudaStream_t stream,
                   std::uint64_t* trace = nullptr) {
    runner.launch({.begin = begin,
                   .end = end,
                   .rows = rows,
                   .x = a.x.data(),
                   .qkv = a.qkv.data(),
                   .attention = a.attention.data(),
                   .mlp = a.mlp.data(),
                   .eps = kEps,
                   .positions = positions_->as<std::int32_t>(),
                   .first_rows = lists_.as<std::int32_t>(),
                   .num_rows = lists_.as<std::int32_t>() + num_sequences_,
                   .num_sequences = num_sequences_,
                   .rope_table = rope_.as<float>(),
                   .trace = trace},
                  stream);
  }

  void run_one_by_one(Activations& a, int begin, int end, cudaStream_t stream) {
    for (int step = begin; step < end; ++step) {
      run_step(a, layers_[static_cast<std::size_t>(step / kernels::cuda::kLayerSteps)],
               static_cast<kernels::cuda::LayerStep>(step % kernels::cuda::kLayerSteps), stream);
    }
  }

  int num_steps() const { return static_cast<int>(layers_.size()) * kernels::cuda::kLayerSteps; }
  double layer_bytes() const {
    const double h = static_cast<double>(shape.hidden_size);
    return 2 * h *
           static_cast<double>(shape.attention.qkv_width() + shape.attention.q_width() +
                               3 * shape.intermediate_size);
  }

  const kernels::EncoderShape shape;
  const cudaDeviceProp properties;
  kernels::cuda::LayerRunner runner;
  std::int64_t rows = 0;

 private:
  static constexpr std::int64_t kPositions = 4096;
  static constexpr std::int64_t kSequencesMax = 128;
  static constexpr float kEps = 1e-6F;

  static cudaDeviceProp current() {
    cudaDeviceProp properties{};
    kernels::cuda::cuda_check(cudaGetDeviceProperties(&properties, 0));
    return properties;
  }

  Bf16* make_matrix(std::int64_t n, std::int64_t k) {
    const auto bytes = static_cast<std::size_t>(n * k) * sizeof(Bf16);
    memory_.push_back(std::make_unique<kernels::cuda::DeviceBuffer>(bytes, "a test"));
    kernels::cuda::launch_fill_random(memory_.back()->as<Bf16>(), n * k, memory_.size(), nullptr,
                                      0.04F);
    return memory_.back()->as<Bf16>();
  }
  float* make_norm(std::int64_t width) {
    std::vector<float> values(static_cast<std::size_t>(width));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = 0.5F + static_cast<float>(i * 37 % 64) / 64;
    }
    memory_.push_back(std::make_unique<kernels::cuda::DeviceBuffer>(values.size() * 4, "a test"));
    kernels::cuda::copy_to_device(memory_.back()->data(), values.data(), values.size() * 4);
    return memory_.back()->as<float>();
  }
  void make_layer() {
    const kernels::AttentionShape& heads = shape.attention;
    const std::int64_t h = shape.hidden_size;
    layers_.push_back({.qkv = make_matrix(heads.qkv_width(), h),
                       .o = make_matrix(h, heads.q_width()),
                       .gate_up = make_matrix(2 * shape.intermediate_size, h),
                       .down = make_matrix(h, shape.intermediate_size),
                       .q_norm = make_norm(128),
                       .k_norm = make_norm(128)});
  }

  void run_step(Activations& a, const kernels::cuda::LayerPointers& layer,
                kernels::cuda::LayerStep step, cudaStream_t stream) {
    using Step = kernels::cuda::LayerStep;
    const kernels::AttentionShape& heads = shape.attention;
    switch (step) {
      case Step::kQkv:
        measure(a, stream);
        return multiply(a.qkv, a.x, layer.qkv, false, stream);
      case Step::kRope:
        return kernels::cuda::launch_qk_norm_rope({.heads = a.qkv.data(),
                                                   .row_stride = heads.qkv_width(),
                                                   .rows = rows,
                                                   .num_q = static_cast<int>(heads.num_q_heads),
                                                   .num_k = static_cast<int>(heads.num_kv_heads),
                                                   .num_v = static_cast<int>(heads.num_kv_heads),
                                                   .q_norm = layer.q_norm,
                                                   .k_norm = layer.k_norm,
                                                   .mean_squares = squares_.as<float>(),
                                                   .positions = positions_->as<std::int32_t>(),
                                                   .rope_table = rope_.as<float>(),
                                                   .eps = kEps},
                                                  stream);
      case Step::kAttention:
        return kernels::cuda::launch_attention(plan_,
                                               {.out = a.attention.data(),
                                                .qkv = a.qkv.data(),
                                                .rows = rows,
                                                .tiles = tiles_.data(),
                                                .counts = counts_},
                                               stream);
      case Step::kO:
        return multiply(a.x, a.attention, layer.o, true, stream);
      case Step::kGateUp:
        return gate_up(a, layer, stream);
      case Step::kDown:
        return multiply(a.x, a.mlp, layer.down, true, stream);
    }
  }

  bool few(std::int64_t n, std::int64_t k) const {
    return kernels::cuda::small_gemm_supports(properties.major * 10 + properties.minor, rows, n, k);
  }

  void multiply(Activations::Rows& out, Activations::Rows& in, const Bf16* weight, bool add,
                cudaStream_t stream) {
    using Form = kernels::cuda::Product::Form;
    const Form form = add ? Form::kAdd : Form::kStore;
    if (few(out.width, in.width)) {
      return kernels::cuda::launch_small_gemm({.form = form,
                                               .out = out.data(),
                                               .in = in.data(),
                                               .weight = weight,
                                               .rows = rows,
                                               .n = out.width,
                                               .k = in.width},
                                              properties.multiProcessorCount, stream);
    }
    gemm_.multiply({.form = form,
                    .out = out.data(),
                    .in = in.data(),
                    .weight = weight,
                    .rows = rows,
                    .n = out.width,
                    .k = in.width},
                   stream);
  }

  void measure(Activations& a, cudaStream_t stream) {
    kernels::cuda::launch_mean_squares(squares_.as<float>(), a.x.data(), rows, shape.hidden_size,
                                       kEps, stream);
  }

  void gate_up(Activations& a, const kernels::cuda::LayerPointers& layer, cudaStream_t stream) {
    measure(a, stream);
    if (few(a.gate_up.width, a.x.width)) {
      return kernels::cuda::launch_small_gemm({.form = kernels::cuda::Product::Form::kSwiglu,
                                               .out = a.mlp.data(),
                                               .in = a.x.data(),
                                               .weight = layer.gate_up,
                                               .mean_squares = squares_.as<float>(),
                                               .rows = rows,
                                               .n = a.gate_up.width,
                                               .k = a.x.width},
                                              properties.multiProcessorCount, stream);
    }
    multiply(a.gate_up, a.x, layer.gate_up, false, stream);
    kernels::cuda::launch_swiglu(a.mlp.data(), a.gate_up.data(), squares_.as<float>(), rows,
                                 shape.intermediate_size, stream);
  }

  kernels::cuda::AttentionPlan plan_;
  kernels::cuda::Gemm gemm_;
  kernels::cuda::DeviceBuffer squares_, rope_, lists_, tiles_;
  std::unique_ptr<kernels::cuda::DeviceBuffer> positions_;
  std::vector<std::unique_ptr<kernels::cuda::DeviceBuffer>> memory_;
  std::vector<kernels::cuda::LayerPointers> layers_;
  kernels::cuda::AttentionTileCounts counts_;
  std::int64_t num_sequences_ = 0;
};

inline constexpr kernels::EncoderShape kShape06B{
    .attention = {.num_q_heads = 16, .num_kv_heads = 8},
    .hidden_size = 1024,
    .intermediate_size = 3072};
inline constexpr kernels::EncoderShape kShape4B{.attention = {.num_q_heads = 32, .num_kv_heads = 8},
                                                .hidden_size = 2560,
                                                .intermediate_size = 9728};
inline constexpr kernels::EncoderShape kShape8B{.attention = {.num_q_heads = 32, .num_kv_heads = 8},
                                                .hidden_size = 4096,
                                                .intermediate_size = 12288};

}  // namespace tessera::testing
