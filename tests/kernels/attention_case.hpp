#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "common/check.hpp"
#include "kernels/cuda/attention/attention.hpp"
#include "tests/support/attention_reference.hpp"

namespace tessera::testing {

inline void require(cudaError_t error) {
  if (error != cudaSuccess) throw FatalError(cudaGetErrorString(error));
}

class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes) : bytes_(bytes) { require(cudaMalloc(&data_, bytes)); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data_); }
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_;
};

// One packed batch of random activations on the GPU, its attention, and the check of the result
// against double precision on the host. Used by the test and by the benchmark.
class AttentionCase {
 public:
  // `score_scale` multiplies the queries: larger values make the softmax sharper.
  AttentionCase(const kernels::cuda::AttentionPlan& plan, std::vector<std::int32_t> seqlens,
                unsigned seed, float score_scale = 1.0F)
      : plan_(plan),
        seqlens_(std::move(seqlens)),
        cu_seqlens_(prefix_sums(seqlens_)),
        qkv_host_(random_activations(seed, score_scale)),
        qkv_(qkv_host_.size() * 2),
        out_(static_cast<std::size_t>(rows() * plan.shape.q_width()) * 2),
        tiles_(kernels::cuda::attention_tiles_bytes(plan, rows(), num_sequences())) {
    require(cudaMemcpy(qkv_.data(), qkv_host_.data(), qkv_.bytes(), cudaMemcpyHostToDevice));
    std::vector<std::byte> list(tiles_.bytes());
    counts_ = build_attention_tiles(plan_, cu_seqlens_, list);
    require(cudaMemcpy(tiles_.data(), list.data(), attention_tiles_bytes(counts_),
                       cudaMemcpyHostToDevice));
  }

  std::int64_t total_tokens() const { return cu_seqlens_.back(); }
  std::int64_t num_sequences() const { return static_cast<std::int64_t>(seqlens_.size()); }
  // Products of the lower triangles only.
  double flops() const {
    double sum = 0;
    for (const std::int32_t n : seqlens_) sum += 0.5 * n * (n + 1.0);
    return 4 * sum * static_cast<double>(plan_.shape.q_width());
  }
  double bytes() const {
    return 2.0 *
           static_cast<double>(total_tokens() * (plan_.shape.qkv_width() + plan_.shape.q_width()));
  }
  std::span<const std::uint16_t> qkv() const { return qkv_host_; }
  std::int64_t first_token(std::int64_t sequence) const {
    return cu_seqlens_[static_cast<std::size_t>(sequence)];
  }

  // Takes the first rows of other activations of the same width.
  void set_qkv(std::span<const std::uint16_t> values) {
    std::copy_n(values.begin(), std::min(values.size(), qkv_host_.size()), qkv_host_.begin());
    require(cudaMemcpy(qkv_.data(), qkv_host_.data(), qkv_.bytes(), cudaMemcpyHostToDevice));
  }
  void use_bounds() { counts_ = max_attention_tiles(plan_, rows(), num_sequences()); }

  void launch(cudaStream_t stream = nullptr) {
    launch_attention(plan_,
                     {.out = static_cast<__nv_bfloat16*>(out_.data()),
                      .qkv = static_cast<const __nv_bfloat16*>(qkv_.data()),
                      .rows = rows(),
                      .tiles = tiles_.data(),
                      .counts = counts_},
                     stream);
  }

  // Fills the output with NaN first, so that a row that nothing writes is seen.
  std::vector<std::uint16_t> run() {
    require(cudaMemset(out_.data(), 0xFF, out_.bytes()));
    launch();
    std::vector<std::uint16_t> out(out_.bytes() / 2);
    require(cudaMemcpy(out.data(), out_.data(), out_.bytes(), cudaMemcpyDeviceToHost));
    return out;
  }

  // The largest relative error ||out - reference|| / ||reference|| over (token, head) pairs: all of
  // them in a small batch, about `max_dots` / seqlen random ones and every sequence's last token
  // otherwise. Infinite when an output is not finite or a row behind the batch was written.
  double worst_error(std::span<const std::uint16_t> out, double max_dots = 2e6) {
    const auto width = static_cast<std::size_t>(plan_.shape.q_width());
    const auto written = static_cast<std::size_t>(total_tokens()) * width;
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (i < written ? !std::isfinite(bf16_to_float(out[i])) : out[i] != 0xFFFF) return INFINITY;
    }
    double all_dots = 0;
    for (const std::int32_t n : seqlens_) all_dots += 0.5 * n * n;
    const double share = max_dots / (all_dots * static_cast<double>(plan_.shape.num_q_heads));
    std::mt19937 random(1);
    std::uniform_real_distribution<double> uniform;
    double worst = 0;
    for (std::size_t sequence = 0; sequence < seqlens_.size(); ++sequence) {
      for (std::int32_t t = cu_seqlens_[sequence]; t < cu_seqlens_[sequence + 1]; ++t) {
        const bool last = t + 1 == cu_seqlens_[sequence + 1];
        for (std::int64_t head = 0; head < plan_.shape.num_q_heads; ++head) {
          if (uniform(random) > (last ? std::max(share, 0.1) : share)) continue;
          worst = std::max(worst, error(out, cu_seqlens_[sequence], t, head));
        }
      }
    }
    return worst;
  }

 private:
  static constexpr std::int64_t kRowsBehind = 3;  // must stay as they are
  std::int64_t rows() const { return cu_seqlens_.back() + kRowsBehind; }

  static std::vector<std::int32_t> prefix_sums(const std::vector<std::int32_t>& seqlens) {
    std::vector<std::int32_t> sums{0};
    for (const std::int32_t n : seqlens) sums.push_back(sums.back() + n);
    return sums;
  }

  // Normal values, drawn for the first megabytes and repeated with an odd period behind them.
  std::vector<std::uint16_t> random_activations(unsigned seed, float score_scale) const {
    const auto width = static_cast<std::size_t>(plan_.shape.qkv_width());
    const auto q_width = static_cast<std::size_t>(plan_.shape.q_width());
    std::vector<std::uint16_t> values(static_cast<std::size_t>(rows()) * width);
    const std::size_t drawn_rows = std::min<std::size_t>(values.size() / width, 1531);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < drawn_rows * width; ++i) {
      values[i] = float_to_bf16(normal(random) * (i % width < q_width ? score_scale : 1.0F));
    }
    for (std::size_t i = drawn_rows * width; i < values.size(); i += drawn_rows * width) {
      std::copy_n(values.begin(), std::min(drawn_rows * width, values.size() - i),
                  values.begin() + static_cast<std::ptrdiff_t>(i));
    }
    return values;
  }

  double error(std::span<const std::uint16_t> out, std::int64_t first, std::int64_t token,
               std::int64_t head) const {
    const std::vector<double> expected =
        attention_reference(plan_.shape, qkv_host_, first, token, head);
    const std::uint16_t* actual = out.data() + token * plan_.shape.q_width() + head * 128;
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      difference += std::pow(bf16_to_float(actual[i]) - expected[i], 2);
      norm += expected[i] * expected[i];
    }
    return std::sqrt(difference / norm);
  }

  kernels::cuda::AttentionPlan plan_;
  std::vector<std::int32_t> seqlens_;
  std::vector<std::int32_t> cu_seqlens_;
  std::vector<std::uint16_t> qkv_host_;
  DeviceMemory qkv_;
  DeviceMemory out_;
  DeviceMemory tiles_;
  kernels::cuda::AttentionTileCounts counts_;
};

// The plan for the current device; throws FatalError where there is none.
inline kernels::cuda::AttentionPlan device_plan(std::int64_t q_heads, std::int64_t kv_heads) {
  cudaDeviceProp properties{};
  require(cudaGetDeviceProperties(&properties, 0));
  return kernels::cuda::plan_attention({.num_q_heads = q_heads, .num_kv_heads = kv_heads},
                                       properties.major * 10 + properties.minor,
                                       properties.multiProcessorCount);
}

}  // namespace tessera::testing
