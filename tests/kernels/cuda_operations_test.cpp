#include <algorithm>
#include <limits>
#include <span>

#include "kernels/cuda/attention/last_attention.hpp"
#include "kernels/cuda/products/gemm.hpp"
#include "kernels/cuda/rows/rows.hpp"
#include "tests/kernels/gpu.hpp"
#include "tests/support/operation_reference.hpp"

namespace tessera::testing {
namespace {

using namespace kernels::cuda;  // what is tested

// Results are rounded to bf16 once: 2^-9 at most, about a third of it on average.
constexpr double kTolerance = 2.5e-3;
constexpr float kEps = 1e-6F;
constexpr double kTheta = 1e6;
const Bf16* bf16(DeviceArray<std::uint16_t>& array) { return array.data<Bf16>(); }

std::span<const std::uint16_t> row(const std::vector<std::uint16_t>& values, std::size_t index,
                                   std::size_t width) {
  return std::span(values).subspan(index * width, width);
}

class CudaOperations : public GpuTest {};

TEST_F(CudaOperations, EmbeddingCopiesRows) {
  constexpr std::size_t kHidden = 2560;
  const std::vector<std::uint16_t> table = random_bf16(50 * kHidden, 1);
  const std::vector<std::int32_t> ids = {49, 0, 7, 7, 12};
  DeviceArray<std::uint16_t> device_table(table);
  DeviceArray<std::int32_t> device_ids(ids);
  DeviceArray<std::uint16_t> out(ids.size() * kHidden);
  launch_embedding(out.data<Bf16>(), bf16(device_table), device_ids.data(), 5, kHidden, nullptr);
  const std::vector<std::uint16_t> actual = out.host();
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(row(actual, i, kHidden),
                                   row(table, static_cast<std::size_t>(ids[i]), kHidden)));
  }
}

TEST_F(CudaOperations, MeanSquaresOfEveryWidth) {
  for (const std::size_t hidden : {8UL, 64UL, 256UL, 264UL, 1024UL, 2560UL, 4096UL, 8192UL}) {
    constexpr std::size_t kRows = 9;
    const std::vector<std::uint16_t> x = random_bf16(kRows * hidden, 2, 30);
    DeviceArray<std::uint16_t> device_x(x);
    DeviceArray<float> out(std::vector<float>(kRows + 1, -1));
    constexpr float kLargeEps = 100;
    launch_mean_squares(out.data(), bf16(device_x), kRows, static_cast<std::int64_t>(hidden),
                        kLargeEps, nullptr);
    const std::vector<float> actual = out.host();
    for (std::size_t i = 0; i < kRows; ++i) {
      double sum = 0;
      for (const double value : widen(row(x, i, hidden))) sum += value * value;
      const double expected = sum / static_cast<double>(hidden) + kLargeEps;
      EXPECT_NEAR(actual[i] / expected, 1, 1e-6) << "width " << hidden << ", row " << i;
    }
    EXPECT_EQ(actual[kRows], -1);
  }
}

TEST_F(CudaOperations, ColumnsAreScaled) {
  constexpr std::size_t kRows = 777, kCols = 264;
  const std::vector<std::uint16_t> weight = random_bf16(kRows * kCols, 2);
  const std::vector<float> norm = random_weights(kCols, 3);
  DeviceArray<std::uint16_t> device(weight);
  DeviceArray<float> device_norm(norm);
  launch_scale_columns(device.data<Bf16>(), device_norm.data(), kRows, kCols, nullptr);
  std::vector<std::uint16_t> expected;
  for (std::size_t i = 0; i < weight.size(); ++i) {
    expected.push_back(float_to_bf16(bf16_to_float(weight[i]) * norm[i % kCols]));
  }
  EXPECT_EQ(device.host(), expected);
}

// Heads are products of rows that are yet to be normalised.
TEST_F(CudaOperations, QkNormRopeScalesValues) {
  for (const auto& [num_q, num_k] : {std::pair{32, 8}, {16, 8}, {4, 2}, {1, 1}, {0, 8}, {32, 0}}) {
    constexpr std::size_t kRows = 5;
    constexpr std::size_t kHead = 128;
    const auto heads = static_cast<std::size_t>(num_q + num_k);
    constexpr int kValues = 2;
    const std::size_t stride = (heads + kValues + 1) * kHead;  // the last head stays as it is
    const std::vector<std::int32_t> positions = {0, 1, 77, 8191, 32767};
    const std::vector<std::uint16_t> in = random_bf16(kRows * stride, 4, 3);
    const std::vector<float> q_norm = random_weights(kHead, 5);
    const std::vector<float> k_norm = random_weights(kHead, 6);
    const std::vector<float> squares = {1, 0.01F, 3e6F, 40, 1e-5F};
    DeviceArray<float> device_squares(squares);
    DeviceArray<std::uint16_t> device(in);
    DeviceArray<std::int32_t> device_positions(positions);
    DeviceArray<float> device_q(q_norm);
    DeviceArray<float> device_k(k_norm);
    DeviceArray<float> table(32768 * kHead);
    launch_rope_table(table.data(), 32768, kTheta, nullptr);
    launch_qk_norm_rope({.heads = device.data<Bf16>(),
                         .row_stride = static_cast<std::int64_t>(stride),
                         .rows = kRows,
                         .num_q = num_q,
                         .num_k = num_k,
                         .num_v = kValues,
                         .q_norm = num_q > 0 ? device_q.data() : nullptr,
                         .k_norm = num_k > 0 ? device_k.data() : nullptr,
                         .mean_squares = device_squares.data(),
                         .positions = device_positions.data(),
                         .rope_table = table.data(),
                         .eps = kEps},
                        nullptr);
    const std::vector<std::uint16_t> actual = device.host();
    for (std::size_t i = 0; i < kRows * stride / kHead; ++i) {
      const std::size_t head = i % (stride / kHead), token = i / (stride / kHead);
      if (head == heads + kValues) {
        EXPECT_TRUE(std::ranges::equal(row(actual, i, kHead), row(in, i, kHead)));
        continue;
      }
      std::vector<double> expected = widen(row(in, i, kHead));
      for (double& value : expected) value /= std::sqrt(static_cast<double>(squares[token]));
      if (head < heads) {
        const auto& norm = head < static_cast<std::size_t>(num_q) ? q_norm : k_norm;
        expected = norm_rope_reference(expected, norm, kEps, positions[token], kTheta);
      }
      EXPECT_LT(relative_error(widen(row(actual, i, kHead)), expected), kTolerance)
          << num_q << " + " << num_k << " heads, row " << token << ", head " << head;
    }
  }
}

TEST_F(CudaOperations, SwigluOfInterleavedColumns) {
  for (const std::size_t width : {8UL, 768UL, 9728UL}) {
    constexpr std::size_t kRows = 7;
    std::vector<std::uint16_t> in = random_bf16(kRows * 2 * width, 7, 4);
    in[0] = float_to_bf16(-200);  // exp overflows
    in[1] = float_to_bf16(1e38F);
    in[9] = float_to_bf16(0.5F);
    const std::vector<float> squares = {1, 0.25F, 4, 9, 0.01F, 100, 2};
    DeviceArray<float> device_squares(squares);
    DeviceArray<std::uint16_t> device(in);
    DeviceArray<std::uint16_t> out(kRows * width);
    launch_swiglu(out.data<Bf16>(), bf16(device), device_squares.data(), kRows,
                  static_cast<std::int64_t>(width), nullptr);
    std::vector<double> expected;
    for (std::size_t i = 0; i < kRows * width; ++i) {
      const std::size_t gate = i / 8 * 16 + i % 8;
      const double scale = 1 / std::sqrt(static_cast<double>(squares[i / width]));
      expected.push_back(
          swiglu_reference(scale * bf16_to_float(in[gate]), scale * bf16_to_float(in[gate + 8])));
    }
    std::vector<double> actual = widen(out.host());
    EXPECT_TRUE(std::isfinite(actual[0]));
    EXPECT_NEAR(actual[1] / expected[1], 1, 4e-3);
    actual[1] = expected[1] = 0;
    EXPECT_LT(relative_error(actual, expected), kTolerance) << "width " << width;
  }
}

TEST_F(CudaOperations, LastAttentionOverAllLengths) {
  const std::vector<std::int32_t> lengths = {1, 0, 2, 15, 16, 17, 64, 65, 300, 1, 2049};
  std::vector<std::int32_t> cu_seqlens = {0};
  for (const std::int32_t n : lengths) cu_seqlens.push_back(cu_seqlens.back() + n);
  const auto tokens = static_cast<std::size_t>(cu_seqlens.back());
  for (const auto& [num_q, num_kv] : {std::pair{32, 8}, {16, 8}, {4, 4}, {6, 2}, {16, 2}}) {
    const auto q_heads = static_cast<std::size_t>(num_q);
    const auto kv_heads = static_cast<std::size_t>(num_kv);
    const std::vector<std::uint16_t> q = random_bf16(lengths.size() * q_heads * 128, 8, 2);
    const std::vector<std::uint16_t> kv = random_bf16(tokens * 2 * kv_heads * 128, 9);
    DeviceArray<std::uint16_t> device_q(q);
    DeviceArray<std::uint16_t> device_kv(kv);
    DeviceArray<std::int32_t> first_keys({cu_seqlens.begin(), cu_seqlens.end() - 1});
    DeviceArray<std::int32_t> num_keys(lengths);
    DeviceArray<std::uint16_t> out(q.size());
    launch_last_attention({.out = out.data<Bf16>(),
                           .q = bf16(device_q),
                           .kv = bf16(device_kv),
                           .first_keys = first_keys.data(),
                           .num_keys = num_keys.data(),
                           .num_sequences = static_cast<std::int64_t>(lengths.size()),
                           .num_q = num_q,
                           .num_kv = num_kv},
                          nullptr);
    const std::vector<std::uint16_t> actual = out.host();
    for (std::size_t i = 0; i < lengths.size() * q_heads; ++i) {
      const std::size_t sequence = i / q_heads;
      const std::size_t kv_head = i % q_heads / (q_heads / kv_heads);
      if (lengths[sequence] == 0) {
        EXPECT_EQ(actual[i * 128], 0);
        continue;
      }
      std::vector<std::vector<double>> keys;
      std::vector<std::vector<double>> values;
      for (std::int32_t t = cu_seqlens[sequence]; t < cu_seqlens[sequence + 1]; ++t) {
        const std::size_t first = static_cast<std::size_t>(t) * 2 * kv_heads;
        keys.push_back(widen(row(kv, first + kv_head, 128)));
        values.push_back(widen(row(kv, first + kv_heads + kv_head, 128)));
      }
      EXPECT_LT(
          relative_error(widen(row(actual, i, 128)), query_reference(row(q, i, 128), keys, values)),
          kTolerance)
          << num_q << " / " << num_kv << " heads, length " << lengths[sequence];
    }
  }
}

TEST_F(CudaOperations, PoolGivesUnitVectorsAndFlags) {
  for (const std::size_t hidden : {256UL, 1024UL, 2560UL}) {
    constexpr std::size_t kRows = 4;
    std::vector<std::uint16_t> x = random_bf16(kRows * hidden, 10, 100);
    x[hidden + 3] = float_to_bf16(std::numeric_limits<float>::infinity());
    x[2 * hidden + hidden - 1] = 0x7FC0;                                          // NaN
    std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(3 * hidden), hidden, 0);  // no direction
    const std::vector<float> weight = random_weights(hidden, 11);
    DeviceArray<std::uint16_t> device_x(x);
    DeviceArray<float> device_weight(weight);
    DeviceArray<float> vectors(kRows * hidden);
    DeviceArray<std::uint8_t> finite(kRows);
    std::vector<double> expected = rms_norm_reference(row(x, 0, hidden), weight, kEps);
    for (const bool unit : {false, true}) {
      launch_pool(vectors.data(), finite.data(), bf16(device_x), device_weight.data(), kRows,
                  static_cast<std::int64_t>(hidden), kEps, unit, nullptr);
      EXPECT_EQ(finite.host(), (std::vector<std::uint8_t>{1, 0, 0, 0}));
      double norm = 0;
      for (const double value : expected) norm += value * value;
      for (double& value : expected) value /= unit ? std::sqrt(norm) : 1;
      std::vector<float> actual = vectors.host();
      actual.resize(hidden);
      EXPECT_LT(relative_error(actual, expected), 1e-6);
    }
  }
}

TEST_F(CudaOperations, ProductsAndSums) {
  Gemm gemm("");
  for (const auto& [rows, n, k] : {std::tuple{1, 64, 64},
                                   {16, 256, 128},
                                   {37, 6144, 2560},
                                   {300, 264, 1032},
                                   {1000, 1024, 3072},
                                   {2500, 512, 256}}) {
    const auto count = [](int a, int b) {
      return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
    };
    const std::vector<std::uint16_t> in = random_bf16(count(rows, k), 12);
    const std::vector<std::uint16_t> weight = random_bf16(count(n, k), 13, 0.05F);
    const std::vector<std::uint16_t> before = random_bf16(count(rows, n), 14);
    for (const bool accumulate : {false, true}) {
      DeviceArray<std::uint16_t> device_in(in);
      DeviceArray<std::uint16_t> device_weight(weight);
      DeviceArray<std::uint16_t> out(before);
      gemm.multiply({.form = accumulate ? Product::Form::kAdd : Product::Form::kStore,
                     .out = out.data<Bf16>(),
                     .in = bf16(device_in),
                     .weight = bf16(device_weight),
                     .rows = rows,
                     .n = n,
                     .k = k},
                    nullptr);
      const std::vector<std::uint16_t> actual = out.host();
      std::vector<double> expected;
      std::vector<double> sampled;
      for (std::size_t i = 0; i < actual.size(); i += 1 + actual.size() / 3000) {
        double sum = accumulate ? bf16_to_float(before[i]) : 0;
        const auto a = row(in, i / static_cast<std::size_t>(n), static_cast<std::size_t>(k));
        const auto b = row(weight, i % static_cast<std::size_t>(n), static_cast<std::size_t>(k));
        for (std::size_t j = 0; j < a.size(); ++j) {
          sum += static_cast<double>(bf16_to_float(a[j])) * bf16_to_float(b[j]);
        }
        expected.push_back(sum);
        sampled.push_back(bf16_to_float(actual[i]));
      }
      EXPECT_LT(relative_error(sampled, expected), kTolerance)
          << rows << " x " << n << " x " << k << (accumulate ? ", added" : "");
    }
  }
}

}  // namespace
}  // namespace tessera::testing
