#include "bench/engine/limit.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "bench/gpu_timer.hpp"
#include "kernels/cuda/attention/attention.hpp"
#include "kernels/cuda/base/bf16.hpp"
#include "kernels/cuda/base/random.hpp"
#include "kernels/cuda/products/gemm.hpp"

namespace tessera::bench {
namespace {

using namespace kernels::cuda;

kernels::AttentionShape shape_of(const ModelConfig& config) {
  return {.num_q_heads = config.num_attention_heads, .num_kv_heads = config.num_key_value_heads};
}

struct RandomRows : DeviceBuffer {
  RandomRows(std::int64_t rows, std::int64_t width, float scale)
      : DeviceBuffer(static_cast<std::size_t>(rows * width) * sizeof(Bf16), "the limit's probe") {
    launch_fill_random(as<Bf16>(), rows * width, 1, nullptr, scale);
    cuda_check(cudaDeviceSynchronize());
  }
};

// One of a layer's products, with operands of its own.
class Product {
 public:
  Product(Gemm& gemm, std::int64_t rows, std::int64_t n, std::int64_t k)
      : gemm_(gemm),
        rows_(rows),
        n_(n),
        k_(k),
        in_(rows, k, 1),
        weight_(n, k, 0.03F),
        out_(rows, n, 1) {
    gemm.tune(
        {.weight = weight_.as<Bf16>(), .n = n, .k = k, .max_rows = rows, .only_largest = true},
        out_.as<Bf16>(), in_.as<Bf16>(), nullptr);
  }
  void run(cudaStream_t stream) {
    gemm_.multiply({.out = out_.as<Bf16>(),
                    .in = in_.as<Bf16>(),
                    .weight = weight_.as<Bf16>(),
                    .rows = rows_,
                    .n = n_,
                    .k = k_},
                   stream);
  }

 private:
  Gemm& gemm_;
  std::int64_t rows_, n_, k_;
  RandomRows in_, weight_, out_;
};

double copy_rate() {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  DeviceBuffer from(kBytes, "the limit's probe");
  DeviceBuffer to(kBytes, "the limit's probe");
  const double us = median_us([&](int, cudaStream_t stream) {
    cuda_check(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream));
  });
  return 2e6 * kBytes / us;
}

}  // namespace

struct LimitProbe::Layer {
  Gemm gemm{""};
  std::vector<std::unique_ptr<Product>> products;
  Stream stream = make_stream();
};

LimitProbe::LimitProbe(const ModelConfig& config, std::int64_t rows)
    : config_(config), rows_(rows), layer_(std::make_unique<Layer>()) {
  const std::array<std::array<std::int64_t, 2>, 4> sizes = {
      {{config.q_width() + 2 * config.kv_width(), config.hidden_size},
       {config.hidden_size, config.q_width()},
       {2 * config.intermediate_size, config.hidden_size},
       {config.hidden_size, config.intermediate_size}}};
  for (const auto& [n, k] : sizes) {
    layer_->products.push_back(std::make_unique<Product>(layer_->gemm, rows, n, k));
  }
  copy_bytes_per_s_ = copy_rate();
}

LimitProbe::~LimitProbe() = default;

ProductRates LimitProbe::product_rates() const {
  ProductRates rates;
  for (const auto& product : layer_->products) {
    rates.burst_s += median_us([&](int, cudaStream_t stream) { product->run(stream); }, 3, 7) / 1e6;
  }
  rates.kept_up_s = kept_up_s(
      [&](cudaStream_t stream) {
        for (const auto& product : layer_->products) product->run(stream);
      },
      layer_->stream.get());
  const double per_token =
      static_cast<double>(config_.num_hidden_layers) / static_cast<double>(rows_);
  rates.burst_s *= per_token;
  rates.kept_up_s *= per_token;
  return rates;
}

double LimitProbe::weight_bytes() const {
  return 2.0 *
         static_cast<double>(config_.linear_parameters_per_layer() * config_.num_hidden_layers);
}

PassLimit LimitProbe::limit(const std::vector<PackedBatch>& batches) const {
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, 0));
  const AttentionPlan plan = plan_attention(
      shape_of(config_), properties.major * 10 + properties.minor, properties.multiProcessorCount);
  PassLimit limit{.products = product_rates()};
  for (const PackedBatch& batch : batches) {
    const auto tokens = static_cast<std::int64_t>(batch.ids.size());
    limit.tokens += static_cast<double>(tokens);
    RandomRows qkv(tokens, plan.shape.qkv_width(), 1);
    RandomRows out(tokens, plan.shape.q_width(), 1);
    std::vector<std::byte> list(attention_tiles_bytes(
        plan, tokens, static_cast<std::int64_t>(batch.cu_seqlens.size()) - 1));
    const AttentionTileCounts counts = build_attention_tiles(plan, batch.cu_seqlens, list);
    DeviceBuffer tiles(list.size(), "the limit's probe");
    copy_to_device(tiles.data(), list.data(), list.size());
    const double us = median_us(
        [&](int, cudaStream_t stream) {
          launch_attention(plan,
                           {.out = out.as<Bf16>(),
                            .qkv = qkv.as<Bf16>(),
                            .rows = tokens,
                            .tiles = tiles.data(),
                            .counts = counts},
                           stream);
        },
        2, 3);
    limit.attention_s += us / 1e6 * static_cast<double>(config_.num_hidden_layers);
  }
  return limit;
}

}  // namespace tessera::bench
