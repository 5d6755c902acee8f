// Matrix products with fused epilogues beside cuBLASLt's product and the kernel that would follow.
//   fused_gemm_bench [--rows N,N,...] [--repeats N] [--tune 0] [--kept-up SECONDS] [--compare]
// Each shape of the three models: checks chosen outputs against double precision, counts those
// (of sums all) whose bits differ from cuBLASLt's (plain / fused), then prints microseconds
// (medians) and TFLOP/s of
//   ours plain | cuBLASLt plain | ours fused | cuBLASLt + kernel
// cuBLASLt's algorithm is the fastest of its proposals, or with --tune 0 its first one. --compare
// times torch's product with the compiled kernel behind it as well and prints a table. --kept-up
// adds the same four, each without a pause for that long before it is timed for as long.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu_timer.hpp"
#include "bench/peers.hpp"
#include "bench/program.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/random.hpp"
#include "kernels/cuda/base/resources.hpp"
#include "kernels/cuda/products/fused_choice.hpp"
#include "kernels/cuda/products/gemm.hpp"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/rows/rows.hpp"
#include "tests/support/operation_reference.hpp"

namespace tessera::bench {
namespace {

using namespace kernels::cuda;  // NOLINT: a program of its own

constexpr double kTheta = 1e6;
constexpr std::int64_t kPositions = 8192;

struct Shape {
  const char* name;
  std::int64_t n, k;
  FusedKind kind;
  int num_q = 0, num_k = 0;  // heads to normalise
};
constexpr Shape kShapes[] = {
    {"0.6B gate_up", 6144, 1024, FusedKind::kSwiglu},
    {"0.6B qkv", 4096, 1024, FusedKind::kHeads, 16, 8},
    {"4B gate_up", 19456, 2560, FusedKind::kSwiglu},
    {"4B qkv", 6144, 2560, FusedKind::kHeads, 32, 8},
    {"8B gate_up", 24576, 4096, FusedKind::kSwiglu},
    {"8B qkv", 6144, 4096, FusedKind::kHeads, 32, 8},
    {"0.6B o", 1024, 2048, FusedKind::kSum},
    {"0.6B down", 1024, 3072, FusedKind::kSum},
    {"4B o", 2560, 4096, FusedKind::kSum},
    {"4B down", 2560, 9728, FusedKind::kSum},
    {"8B o", 4096, 4096, FusedKind::kSum},
    {"8B down", 4096, 12288, FusedKind::kSum},
};

template <typename T>
std::vector<T> to_host(DeviceBuffer& buffer, std::size_t count) {
  std::vector<T> values(count);
  cuda_check(cudaMemcpy(values.data(), buffer.data(), count * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

// The operands of one shape and both ways to compute it.
class Case {
 public:
  Case(const Shape& shape, std::int64_t rows, Gemm& gemm, int num_sms, cudaStream_t stream)
      : shape_(shape),
        rows_(rows),
        gemm_(gemm),
        num_sms_(num_sms),
        stream_(stream),
        in_(static_cast<std::size_t>(rows * shape.k) * 2, "input"),
        weight_(static_cast<std::size_t>(shape.n * shape.k) * 2, "weight"),
        product_(static_cast<std::size_t>(rows * shape.n) * 2, "product"),
        fused_(static_cast<std::size_t>(rows * shape.n) * 2, "fused output"),
        unfused_(static_cast<std::size_t>(rows * shape.n) * 2, "unfused output"),
        positions_(static_cast<std::size_t>(rows) * 4, "positions"),
        norms_(2 * 128 * 4, "norms"),
        squares_(static_cast<std::size_t>(rows) * 4, "mean squares"),
        rope_table_(kPositions * 128 * 4, "rotation table") {
    launch_fill_random(in_.as<Bf16>(), rows * shape.k, 1, stream);
    launch_fill_random(weight_.as<Bf16>(), shape.n * shape.k, 2, stream,
                       3.0F / std::sqrt(static_cast<float>(shape.k)));
    launch_rope_table(rope_table_.as<float>(), kPositions, kTheta, stream);
    launch_mean_squares(squares_.as<float>(), in_.as<Bf16>(), rows, shape.k, 1e-6F, stream);
    host_norms_ = testing::random_weights(256, 3);
    host_positions_.resize(static_cast<std::size_t>(rows));
    std::mt19937 random(4);
    for (std::int32_t& p : host_positions_) p = static_cast<std::int32_t>(random() % kPositions);
    cuda_check(
        cudaMemcpy(norms_.data(), host_norms_.data(), norms_.bytes(), cudaMemcpyHostToDevice));
    cuda_check(cudaMemcpy(positions_.data(), host_positions_.data(), positions_.bytes(),
                          cudaMemcpyHostToDevice));
  }

  bool is_swiglu() const { return shape_.kind == FusedKind::kSwiglu; }
  bool is_sum() const { return shape_.kind == FusedKind::kSum; }
  std::int64_t out_width() const { return is_swiglu() ? shape_.n / 2 : shape_.n; }

  void run_cublas(Bf16* out, bool accumulate = false) {
    gemm_.multiply({.form = accumulate ? Product::Form::kAdd : Product::Form::kStore,
                    .out = out,
                    .in = in_.as<Bf16>(),
                    .weight = weight_.as<Bf16>(),
                    .rows = rows_,
                    .n = shape_.n,
                    .k = shape_.k},
                   stream_);
  }
  void run_plain() {
    launch_fused_gemm(product(Product::Form::kStore, product_.as<Bf16>()), num_sms_, stream_);
  }
  void run_fused() {
    if (is_sum()) {
      launch_fused_gemm(product(Product::Form::kAdd, fused_.as<Bf16>()), num_sms_, stream_);
    } else if (is_swiglu()) {
      launch_fused_gemm(product(Product::Form::kSwiglu, fused_.as<Bf16>()), num_sms_, stream_);
    } else {
      launch_qk_norm_rope_gemm(product(Product::Form::kStore, fused_.as<Bf16>()),
                               {.num_q = shape_.num_q,
                                .num_k = shape_.num_k,
                                .q_norm = norms_.as<float>(),
                                .k_norm = norms_.as<float>(512),
                                .positions = positions_.as<std::int32_t>(),
                                .rope_table = rope_table_.as<float>()},
                               num_sms_, stream_);
    }
  }
  void run_unfused() {
    if (is_sum()) {
      run_cublas(unfused_.as<Bf16>(), true);
    } else if (is_swiglu()) {
      run_cublas(product_.as<Bf16>());
      launch_swiglu(unfused_.as<Bf16>(), product_.as<Bf16>(), squares_.as<float>(), rows_,
                    shape_.n / 2, stream_);
    } else {
      run_cublas(unfused_.as<Bf16>());
      launch_qk_norm_rope({.heads = unfused_.as<Bf16>(),
                           .row_stride = shape_.n,
                           .rows = rows_,
                           .num_q = shape_.num_q,
                           .num_k = shape_.num_k,
                           .num_v = shape_.num_k,
                           .q_norm = norms_.as<float>(),
                           .k_norm = norms_.as<float>(512),
                           .mean_squares = squares_.as<float>(),
                           .positions = positions_.as<std::int32_t>(),
                           .rope_table = rope_table_.as<float>()},
                          stream_);
    }
  }
  void tune() {
    for (const bool accumulate : {false, true}) {
      if (accumulate && !is_sum()) continue;
      gemm_.tune({.weight = weight_.as<Bf16>(),
                  .n = shape_.n,
                  .k = shape_.k,
                  .accumulate = accumulate,
                  .max_rows = rows_,
                  .only_largest = true},
                 product_.as<Bf16>(), in_.as<Bf16>(), stream_);
    }
  }

  // How many outputs of the plain and of the fused product differ in their bits from cuBLASLt's
  // and from those of the kernel behind it.
  std::pair<std::size_t, std::size_t> differing() {
    run_plain();
    run_cublas(unfused_.as<Bf16>());
    const auto width = static_cast<std::size_t>(shape_.n);
    const std::size_t plain = count_different(product_, unfused_, width);
    if (is_sum()) {
      launch_fill_random(fused_.as<Bf16>(), rows_ * shape_.n, 6, stream_);
      launch_fill_random(unfused_.as<Bf16>(), rows_ * shape_.n, 6, stream_);
    } else {
      cuda_check(cudaMemsetAsync(fused_.data(), 0xFF, fused_.bytes(), stream_));
    }
    run_fused();
    run_unfused();
    return {plain, count_different(fused_, unfused_, static_cast<std::size_t>(out_width()))};
  }

  // Relative error of some heads or columns against double precision.
  double error() {
    if (is_sum()) return 0;  // compared bit by bit
    const auto in = to_host<std::uint16_t>(in_, static_cast<std::size_t>(rows_ * shape_.k));
    const auto weight =
        to_host<std::uint16_t>(weight_, static_cast<std::size_t>(shape_.n * shape_.k));
    const auto out = to_host<std::uint16_t>(fused_, static_cast<std::size_t>(rows_ * out_width()));
    // Of the normalised row.
    const auto dot = [&](std::int64_t row, std::int64_t column) {
      double sum = 0, squares = 0;
      for (std::int64_t i = 0; i < shape_.k; ++i) {
        const double x = testing::bf16_to_float(in[static_cast<std::size_t>(row * shape_.k + i)]);
        sum += x * testing::bf16_to_float(weight[static_cast<std::size_t>(column * shape_.k + i)]);
        squares += x * x;
      }
      return sum / std::sqrt(squares / static_cast<double>(shape_.k) + 1e-6);
    };
    std::mt19937 random(5);
    double worst = 0;
    for (int sample = 0; sample < 24; ++sample) {
      const std::int64_t row = sample < 2 ? rows_ - 1 : static_cast<std::int64_t>(random()) % rows_;
      const std::int64_t head = static_cast<std::int64_t>(random()) % (out_width() / 128);
      std::vector<double> expected(128), actual(128);
      for (std::int64_t i = 0; i < 128; ++i) {
        const std::int64_t column = head * 128 + i;
        const std::int64_t gate = column / kGateUpGroup * 2 * kGateUpGroup + column % kGateUpGroup;
        const auto at = static_cast<std::size_t>(i);
        expected[at] =
            is_swiglu() ? testing::swiglu_reference(dot(row, gate), dot(row, gate + kGateUpGroup))
                        : dot(row, column);
        actual[at] =
            testing::bf16_to_float(out[static_cast<std::size_t>(row * out_width() + column)]);
      }
      if (!is_swiglu() && head < shape_.num_q + shape_.num_k) {
        norm_and_rotate(expected, head, host_positions_[static_cast<std::size_t>(row)]);
      }
      worst = std::max(worst, testing::relative_error(actual, expected));
    }
    return worst;
  }

 private:
  std::size_t count_different(DeviceBuffer& a, DeviceBuffer& b, std::size_t width) {
    cuda_check(cudaStreamSynchronize(stream_));
    const std::size_t count = static_cast<std::size_t>(rows_) * width;
    const auto x = to_host<std::uint16_t>(a, count), y = to_host<std::uint16_t>(b, count);
    std::size_t different = 0;
    for (std::size_t i = 0; i < count; ++i) different += x[i] != y[i];
    return different;
  }

  Product product(Product::Form form, Bf16* out) {
    return {.form = form,
            .out = out,
            .in = in_.as<Bf16>(),
            .weight = weight_.as<Bf16>(),
            .mean_squares = squares_.as<float>(),
            .rows = rows_,
            .n = shape_.n,
            .k = shape_.k};
  }

  void norm_and_rotate(std::vector<double>& x, std::int64_t head, std::int32_t position) const {
    double sum = 0;
    for (const double value : x) sum += value * value;
    const std::size_t first = head < shape_.num_q ? 0 : 128;
    for (std::size_t i = 0; i < 128; ++i) {
      x[i] *= host_norms_[first + i] / std::sqrt(sum / 128 + 1e-6);
    }
    for (std::size_t i = 0; i < 64; ++i) {
      const double angle = position * std::pow(kTheta, -static_cast<double>(i) / 64);
      const double a = x[i], b = x[i + 64];
      x[i] = a * std::cos(angle) - b * std::sin(angle);
      x[i + 64] = b * std::cos(angle) + a * std::sin(angle);
    }
  }

 public:
  Bf16* product() { return product_.as<Bf16>(); }

 private:
  Shape shape_;
  std::int64_t rows_;
  Gemm& gemm_;
  int num_sms_;
  cudaStream_t stream_;
  DeviceBuffer in_, weight_, product_, fused_, unfused_, positions_, norms_, squares_, rope_table_;
  std::vector<float> host_norms_;
  std::vector<std::int32_t> host_positions_;
};

struct Options {
  std::vector<std::int64_t> rows;
  int repeats = 10;
  bool tune = true;
  double kept_up_s = 0;  // 0: not measured
};

std::string label(const Shape& shape, std::int64_t rows) {
  return std::string(shape.name).append(" M").append(std::to_string(rows));
}

// The fused product's median in `fused_us`; false where it is wrong.
bool measure(const Shape& shape, std::int64_t rows, const Options& options, double& fused_us) {
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, 0));
  const Stream stream = make_stream();
  Gemm gemm("");
  Case c(shape, rows, gemm, properties.multiProcessorCount, stream.get());
  if (options.tune) c.tune();
  const auto [plain_bits, fused_bits] = c.differing();
  const double error = c.error();
  const std::vector<std::function<void(cudaStream_t)>> ways = {
      [&](cudaStream_t) { c.run_plain(); }, [&](cudaStream_t) { c.run_cublas(c.product()); },
      [&](cudaStream_t) { c.run_fused(); }, [&](cudaStream_t) { c.run_unfused(); }};
  const auto times = times_in_turns_us(ways, options.repeats, stream.get());
  const auto median = [&](std::size_t i) { return times[i][times[i].size() / 2]; };
  const double plain = median(0), cublas = median(1), unfused = median(3);
  fused_us = median(2);
  const double flops = 2e-6 * static_cast<double>(rows * shape.n * shape.k);
  std::printf(
      "%-20s error %.1e  other bits %zu / %zu  plain %7.1f us %4.0f TF/s | cuBLASLt %7.1f "
      "%4.0f | fused %7.1f %4.0f | cuBLASLt + kernel %7.1f  saved %4.1f %%\n",
      label(shape, rows).c_str(), error, plain_bits, fused_bits, plain, flops / plain, cublas,
      flops / cublas, fused_us, flops / fused_us, unfused, 100 * (1 - fused_us / unfused));
  if (options.kept_up_s > 0) {
    std::printf("%-20s kept up, us:", "");
    for (const auto& way : ways) {
      std::printf(" %9.1f",
                  1e6 * kept_up_s(way, stream.get(), options.kept_up_s, options.kept_up_s));
    }
    std::printf("\n");
  }
  return error < 1e-2;
}

void compare(const Options& options, const std::map<std::string, double>& ours) {
  std::string list;
  for (const std::int64_t rows : options.rows) {
    if (!list.empty()) list += ",";
    list += std::to_string(rows);
  }
  const Peers peers = Peers::run("kernels.py", {"--fused", list});
  if (peers.empty()) return;
  std::printf("us (times ours)            ours     torch.compile\n");
  for (const auto& [name, us] : ours) {
    const double torch = peers.find(name, "torch");
    std::printf("%-20s %10.1f %s\n", name.c_str(), us, beside(torch, torch / us).c_str());
  }
}

bool run(int argc, char** argv) {
  const Flags flags(argc, argv, {"--rows", "--repeats", "--tune", "--kept-up"});
  const Options options{.rows = flags.numbers("--rows", {16384, 8192, 4096, 2048, 1000}),
                        .repeats = static_cast<int>(flags.number("--repeats", 10)),
                        .tune = flags.number("--tune", 1) != 0,
                        .kept_up_s = std::atof(flags.text("--kept-up", "0").c_str())};
  std::map<std::string, double> fused_us;
  const bool right = measure_all(kShapes, [&](const Shape& shape) {
    return measure_all(options.rows, [&](std::int64_t rows) {
      return measure(shape, rows, options, fused_us[label(shape, rows)]);
    });
  });
  if (flags.has("--compare")) compare(options, fused_us);
  return right;
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  return tessera::bench::run_program("fused_gemm_bench",
                                     [&] { return tessera::bench::run(argc, argv); });
}
