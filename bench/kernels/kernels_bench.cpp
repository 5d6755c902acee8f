// Times every kernel of the CUDA backend except attention at the shapes of the three model sizes,
// beside the rates that the GPU itself reaches: a device-to-device copy and the largest product.
// Each kernel's result is checked on sampled rows first.
//
//   kernels_bench [--tokens 16384] [--models 0.6B,4B,8B] [--cache FILE] [--products 1] [--compare]
//
// --compare times torch.compile's kernels and torch's products as well and prints a table.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/gpu_timer.hpp"
#include "bench/peers.hpp"
#include "bench/program.hpp"
#include "kernels/cuda/attention/last_attention.hpp"
#include "kernels/cuda/base/random.hpp"
#include "kernels/cuda/products/gemm.hpp"
#include "kernels/cuda/products/sm90_small_gemm.hpp"
#include "kernels/cuda/rows/rows.hpp"
#include "tests/support/operation_reference.hpp"

namespace tessera::bench {
namespace {

using namespace kernels::cuda;
using tessera::testing::bf16_to_float;
using tessera::testing::norm_rope_reference;
using tessera::testing::relative_error;
using tessera::testing::swiglu_reference;
using tessera::testing::widen;

struct Model {
  const char* name;
  std::int64_t hidden, q_heads, kv_heads, intermediate;
  int layers;
  std::int64_t q_width() const { return q_heads * kHeadDim; }
  std::int64_t kv_width() const { return kv_heads * kHeadDim; }
  std::int64_t qkv_width() const { return q_width() + 2 * kv_width(); }
};
constexpr Model kModels[] = {
    {"0.6B", 1024, 16, 8, 3072, 28}, {"4B", 2560, 32, 8, 9728, 36}, {"8B", 4096, 32, 8, 12288, 36}};
constexpr int kRotate = 4;  // buffer sets, together larger than the cache
constexpr float kEps = 1e-6F;
constexpr double kTolerance = 4e-3;

struct Options {
  std::int64_t tokens = 16384;
  std::string models = "0.6B,4B,8B";
  std::string cache;
  bool products = true;
  bool compare = false;
};

// Random activations that rotate.
class Rows {
 public:
  Rows(std::int64_t rows, std::int64_t width, float scale = 2) : width_(width) {
    for (int i = 0; i < kRotate; ++i) {
      sets_.push_back(std::make_unique<DeviceBuffer>(
          static_cast<std::size_t>(rows * width) * sizeof(Bf16), "a benchmark"));
      launch_fill_random((*this)[i], rows * width, static_cast<std::uint64_t>(i) + 1, nullptr,
                         scale);
    }
    cuda_check(cudaDeviceSynchronize());
  }
  Bf16* operator[](int i) const { return sets_[static_cast<std::size_t>(i % kRotate)]->as<Bf16>(); }
  std::vector<std::uint16_t> row(int set, std::int64_t row) const {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(width_));
    cuda_check(cudaDeviceSynchronize());
    cuda_check(cudaMemcpy(values.data(), (*this)[set] + row * width_, values.size() * 2,
                          cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  std::int64_t width_;
  std::vector<std::unique_ptr<DeviceBuffer>> sets_;
};

std::unique_ptr<DeviceBuffer> ones(std::int64_t count) {
  const std::vector<float> values(static_cast<std::size_t>(count), 1.0F);
  auto buffer = std::make_unique<DeviceBuffer>(values.size() * sizeof(float), "norm weights");
  copy_to_device(buffer->data(), values.data(), buffer->bytes());
  return buffer;
}

class Kernels {
 public:
  explicit Kernels(const Options& options)
      : options_(options), tokens_(options.tokens), gemm_(options.cache) {}

  bool run() {
    copy_ceiling();
    const std::string list = std::string(",").append(options_.models).append(",");
    for (const Model& model : kModels) {
      if (list.find(std::string(",").append(model.name).append(",")) != std::string::npos) {
        model_ = model.name;
        memory_bound(model);
        if (options_.products) products(model);
        small(model);
      }
    }
    std::printf("%s\n", wrong_ == 0 ? "all checks passed" : "SOME CHECKS FAILED");
    if (options_.compare) compare();
    return wrong_ == 0;
  }

 private:
  void check(const char* what, double error) {
    if (!(error < kTolerance)) {
      std::printf("  WRONG %s: relative error %.2e\n", what, error);
      ++wrong_;
    }
  }
  void keep(const std::string& what, double us) {
    figures_.emplace_back(std::string(model_).append(" ").append(what), us);
  }
  void report(const char* what, double us, double bytes) {
    keep(what, us);
    const double rate = bytes / us / 1e6;
    std::printf("  %-22s %8.1f us  %5.2f TB/s  %3.0f %% of the copy\n", what, us, rate,
                100 * rate / copy_rate_);
  }

  void copy_ceiling() {
    constexpr std::size_t kBytes = std::size_t{2} << 30;
    DeviceBuffer from(kBytes, "a benchmark");
    DeviceBuffer to(kBytes, "a benchmark");
    launch_fill_random(from.as<Bf16>(), kBytes / 2, 1, nullptr);
    cuda_check(cudaDeviceSynchronize());
    const double us = median_us([&](int, cudaStream_t stream) {
      cuda_check(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream));
    });
    copy_rate_ = 2.0 * kBytes / us / 1e6;
    std::printf("device-to-device copy: %.2f TB/s read and written\n", copy_rate_);
  }

  void memory_bound(const Model& m) {
    std::printf("%s, %ld tokens\n", m.name, tokens_);
    const double tokens = static_cast<double>(tokens_);
    norm(m, tokens);
    rope(m, tokens);
    swiglu(m, tokens);
    last_attention(m);
  }

  void norm(const Model& m, double tokens) {
    const Rows x(tokens_, m.hidden);
    DeviceBuffer out(static_cast<std::size_t>(tokens_) * sizeof(float), "mean squares");
    const auto launch = [&](int i, cudaStream_t stream) {
      launch_mean_squares(out.as<float>(), x[i], tokens_, m.hidden, kEps, stream);
    };
    launch(0, nullptr);
    std::vector<float> squares(static_cast<std::size_t>(tokens_));
    cuda_check(cudaMemcpy(squares.data(), out.data(), out.bytes(), cudaMemcpyDeviceToHost));
    double expected = 0;
    for (const double value : widen(x.row(0, tokens_ - 1))) expected += value * value;
    expected = expected / static_cast<double>(m.hidden) + kEps;
    check("RMSNorm", std::abs(squares.back() / expected - 1));
    report("RMSNorm", median_us(launch), tokens * 2.0 * static_cast<double>(m.hidden));
  }

  void rope(const Model& m, double tokens) {
    const Rows qkv(tokens_, m.qkv_width());
    const auto unit = ones(kHeadDim);
    const auto squares = ones(tokens_);
    DeviceBuffer table(static_cast<std::size_t>(tokens_) * kHeadDim * sizeof(float), "RoPE");
    launch_rope_table(table.as<float>(), tokens_, 1e6, nullptr);
    std::vector<std::int32_t> positions(static_cast<std::size_t>(tokens_));
    for (std::size_t i = 0; i < positions.size(); ++i) {
      positions[i] = static_cast<std::int32_t>(i % 512);
    }
    DeviceBuffer device_positions(positions.size() * 4, "positions");
    copy_to_device(device_positions.data(), positions.data(), positions.size() * 4);
    const auto launch = [&](int i, cudaStream_t stream) {
      launch_qk_norm_rope({.heads = qkv[i],
                           .row_stride = m.qkv_width(),
                           .rows = tokens_,
                           .num_q = static_cast<int>(m.q_heads),
                           .num_k = static_cast<int>(m.kv_heads),
                           .num_v = static_cast<int>(m.kv_heads),
                           .q_norm = unit->as<float>(),
                           .k_norm = unit->as<float>(),
                           .mean_squares = squares->as<float>(),
                           .positions = device_positions.as<std::int32_t>(),
                           .rope_table = table.as<float>()},
                          stream);
    };
    auto before = qkv.row(0, tokens_ - 1);
    launch(0, nullptr);
    auto after = qkv.row(0, tokens_ - 1);
    before.resize(kHeadDim);
    after.resize(kHeadDim);
    const std::vector<float> weight(kHeadDim, 1.0F);
    check("QK-norm + RoPE",
          relative_error(widen(after),
                         norm_rope_reference(before, weight, kEps, positions.back(), 1e6)));
    report("QK-norm + RoPE", median_us(launch), tokens * 4.0 * static_cast<double>(m.qkv_width()));
  }

  void swiglu(const Model& m, double tokens) {
    const Rows gate_up(tokens_, 2 * m.intermediate);
    const Rows out(tokens_, m.intermediate);
    const auto squares = ones(tokens_);
    const auto launch = [&](int i, cudaStream_t stream) {
      launch_swiglu(out[i], gate_up[i], squares->as<float>(), tokens_, m.intermediate, stream);
    };
    launch(0, nullptr);
    const auto in = widen(gate_up.row(0, tokens_ - 1));
    std::vector<double> expected;
    for (std::size_t i = 0; i < in.size() / 2; ++i) {
      expected.push_back(swiglu_reference(in[i / 8 * 16 + i % 8], in[i / 8 * 16 + i % 8 + 8]));
    }
    check("SwiGLU", relative_error(widen(out.row(0, tokens_ - 1)), expected));
    report("SwiGLU", median_us(launch), tokens * 6.0 * static_cast<double>(m.intermediate));
  }

  void last_attention(const Model& m) {
    const Rows kv(32768, 2 * m.kv_width());
    const Rows q(1024, m.q_width());
    const Rows out(1024, m.q_width());
    for (const int length : {32, 1024, 32768}) {
      const int count = 32768 / length;
      std::vector<std::int32_t> extents;
      for (int i = 0; i < count; ++i) extents.push_back(i * length);
      extents.resize(static_cast<std::size_t>(2 * count), length);
      DeviceBuffer device(extents.size() * 4, "extents");
      copy_to_device(device.data(), extents.data(), extents.size() * 4);
      const double us = median_us([&](int i, cudaStream_t stream) {
        launch_last_attention({.out = out[i],
                               .q = q[i],
                               .kv = kv[i],
                               .first_keys = device.as<std::int32_t>(),
                               .num_keys = device.as<std::int32_t>() + count,
                               .num_sequences = count,
                               .num_q = static_cast<int>(m.q_heads),
                               .num_kv = static_cast<int>(m.kv_heads)},
                              stream);
      });
      const std::string what =
          "last query, " + std::to_string(count) + " x " + std::to_string(length);
      report(what.c_str(), us, 32768.0 * 4.0 * static_cast<double>(m.kv_width()));
    }
  }

  struct Weight {
    const char* name;
    std::int64_t n, k;
    bool accumulate;
  };

  // The four products of a layer, at several row counts, with the proposal that cuBLASLt puts first
  // and with the one that was fastest.
  void products(const Model& m) {
    const Weight all[] = {{"qkv", m.qkv_width(), m.hidden, false},
                          {"o +=", m.hidden, m.q_width(), true},
                          {"gate, up", 2 * m.intermediate, m.hidden, false},
                          {"down +=", m.hidden, m.intermediate, true}};
    for (const Weight& p : all) {
      const Rows in(tokens_, p.k, 1);
      const Rows out(tokens_, p.n, 1);
      DeviceBuffer weight(static_cast<std::size_t>(p.n * p.k) * 2 * kRotate, "weights");
      launch_fill_random(weight.as<Bf16>(), p.n * p.k * kRotate, 9, nullptr, 0.03F);
      Gemm first("");
      const Gemm::Tuning tuning{.weight = weight.as<Bf16>(),
                                .n = p.n,
                                .k = p.k,
                                .accumulate = p.accumulate,
                                .max_rows = tokens_};
      gemm_.tune(tuning, out[0], in[0], nullptr);
      std::printf("  %-9s", p.name);
      for (const std::int64_t rows : {std::int64_t{16}, std::int64_t{128}, std::int64_t{512},
                                      std::int64_t{2048}, std::int64_t{6000}, tokens_}) {
        const auto time = [&](Gemm& gemm) {
          return median_us(
              [&](int i, cudaStream_t stream) {
                gemm.multiply({.form = p.accumulate ? kernels::cuda::Product::Form::kAdd
                                                    : kernels::cuda::Product::Form::kStore,
                               .out = out[i],
                               .in = in[i],
                               .weight = weight.as<Bf16>() + i % kRotate * p.n * p.k,
                               .rows = rows,
                               .n = p.n,
                               .k = p.k},
                              stream);
              },
              4, 5);
        };
        const double flops = 2.0 * static_cast<double>(rows * p.n * p.k);
        const double plain = time(first);
        const double tuned = time(gemm_);
        keep(std::string(p.name).append(", ").append(std::to_string(rows)).append(" rows"), tuned);
        std::printf(" | %5ld: %6.1f us %3.0f>%3.0f", rows, tuned, flops / plain / 1e6,
                    flops / tuned / 1e6);
      }
      std::printf(" TFLOP/s\n");
    }
    gemm_.save();
  }

  // What one layer's small kernels cost a short query, launched back to back.
  void small(const Model& m) {
    constexpr std::int64_t kRows = 24;
    const Rows x(kRows, 2 * m.intermediate);
    const Rows out(kRows, 2 * m.intermediate);
    const auto squares = ones(kRows);
    const double norm_us = median_us(
        [&](int i, cudaStream_t stream) {
          launch_mean_squares(squares->as<float>(), x[i], kRows, m.hidden, kEps, stream);
        },
        50);
    const double swiglu_us = median_us(
        [&](int i, cudaStream_t stream) {
          launch_swiglu(out[i], x[i], squares->as<float>(), kRows, m.intermediate, stream);
        },
        50);
    short_products(m);
    std::printf("  %ld rows: RMSNorm %.1f us, SwiGLU %.1f us\n", kRows, norm_us, swiglu_us);
  }

  // One short query's products, bound by reading the weights, of which four sets rotate.
  void short_products(const Model& m) {
    using Form = kernels::cuda::Product::Form;
    const Weight all[] = {{"qkv", m.qkv_width(), m.hidden, false},
                          {"o +=", m.hidden, m.q_width(), true},
                          {"gate, up", 2 * m.intermediate, m.hidden, false},
                          {"down +=", m.hidden, m.intermediate, true}};
    for (const Weight& p : all) {
      const Rows in(64, p.k, 1);
      const Rows out(64, p.n, 1);
      const auto squares = ones(64);
      DeviceBuffer weight(static_cast<std::size_t>(p.n * p.k) * 2 * kRotate, "weights");
      launch_fill_random(weight.as<Bf16>(), p.n * p.k * kRotate, 9, nullptr, 0.03F);
      cuda_check(cudaDeviceSynchronize());
      const bool gated = p.n == 2 * m.intermediate;
      for (const std::int64_t rows : {8, 24, 64}) {
        const double us = median_us(
            [&](int i, cudaStream_t stream) {
              launch_small_gemm({.form = p.accumulate ? Form::kAdd
                                         : gated      ? Form::kSwiglu
                                                      : Form::kStore,
                                 .out = out[i],
                                 .in = in[i],
                                 .weight = weight.as<Bf16>() + i % kRotate * p.n * p.k,
                                 .mean_squares = squares->as<float>(),
                                 .rows = rows,
                                 .n = p.n,
                                 .k = p.k},
                                132, stream);
            },
            40);
        const std::string what = std::string(p.name) + ", " + std::to_string(rows) + " rows";
        report(what.c_str(), us, 2.0 * static_cast<double>(p.n * p.k));
      }
    }
  }

  // Of what the peers have too.
  void compare() const {
    const Peers peers = Peers::run(
        "kernels.py", {"--tokens", std::to_string(tokens_), "--models", options_.models});
    if (peers.empty()) return;
    std::printf("us (times ours)                  ours             torch\n");
    for (const auto& [what, us] : figures_) {
      const double torch = peers.find(what, "torch");
      if (torch > 0) {
        std::printf("%-26s %10.1f %s\n", what.c_str(), us, beside(torch, torch / us).c_str());
      }
    }
  }

  Options options_;
  std::int64_t tokens_;
  std::string model_;                                    // being measured
  std::vector<std::pair<std::string, double>> figures_;  // microseconds
  Gemm gemm_;
  double copy_rate_ = 1;
  int wrong_ = 0;
};

Options parse(int argc, char** argv) {
  const Flags flags(argc, argv, {"--tokens", "--models", "--cache", "--products"});
  Options options;
  options.tokens = flags.number("--tokens", options.tokens);
  options.models = flags.text("--models", options.models);
  options.cache = flags.text("--cache");
  options.products = flags.number("--products", 1) != 0;
  options.compare = flags.has("--compare");
  return options;
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  return run_program("kernels_bench", [&] { return Kernels(parse(argc, argv)).run(); });
}
