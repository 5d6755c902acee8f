#include <algorithm>
#include <cmath>

#include "kernels/cuda/products/gemm.hpp"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/rows/rows.hpp"
#include "tests/kernels/gpu.hpp"
#include "tests/support/operation_reference.hpp"

namespace tessera::testing {
namespace {

using namespace kernels::cuda;  // what is tested
using Form = Product::Form;

constexpr double kTolerance = 8e-3;  // the product and the result are rounded to bf16
constexpr double kTheta = 1e6;
constexpr std::int64_t kRowCounts[] = {1, 63, 128, 129, 300};

class FusedGemm : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    cudaDeviceProp properties{};
    cuda_check(cudaGetDeviceProperties(&properties, 0));
    num_sms_ = properties.multiProcessorCount;
    if (!fused_gemm_supports(properties.major * 10 + properties.minor, 256, 256)) {
      std::puts("ALL TESTS SKIPPED: no Hopper GPU");
      GTEST_SKIP() << "no Hopper GPU";
    }
  }

  int num_sms_ = 0;
};

// Operands, and the exact product row by row.
struct Operands {
  Operands(std::int64_t rows, std::int64_t n, std::int64_t k)
      : k_(static_cast<std::size_t>(k)),
        n_(static_cast<std::size_t>(n)),
        in_host(random_bf16(static_cast<std::size_t>(rows) * k_, 1)),
        weight_host(random_bf16(n_ * k_, 2, 1.0F / std::sqrt(static_cast<float>(k)))),
        squares_host(positive(random_weights(static_cast<std::size_t>(rows), 3))),
        in(in_host),
        weight(weight_host),
        squares(squares_host) {}

  // As mean squares are.
  static std::vector<float> positive(std::vector<float> values) {
    for (float& value : values) value = std::abs(value) + 0.1F;
    return values;
  }

  // By the row's scale.
  std::vector<double> row(std::size_t index) const {
    std::vector<double> out(n_);
    for (std::size_t column = 0; column < n_; ++column) {
      for (std::size_t i = 0; i < k_; ++i) {
        out[column] += static_cast<double>(bf16_to_float(in_host[index * k_ + i])) *
                       bf16_to_float(weight_host[column * k_ + i]);
      }
      out[column] /= std::sqrt(static_cast<double>(squares_host[index]));
    }
    return out;
  }

  Product product(Product::Form form, DeviceArray<std::uint16_t>& out, std::int64_t rows) {
    return {.form = form,
            .out = out.data<Bf16>(),
            .in = in.data<Bf16>(),
            .weight = weight.data<Bf16>(),
            .mean_squares = squares.data(),
            .rows = rows,
            .n = static_cast<std::int64_t>(n_),
            .k = static_cast<std::int64_t>(k_)};
  }

  std::size_t k_, n_;
  std::vector<std::uint16_t> in_host, weight_host;
  std::vector<float> squares_host;
  DeviceArray<std::uint16_t> in, weight;
  DeviceArray<float> squares;
};

std::vector<double> output_row(const std::vector<std::uint16_t>& out, std::size_t index,
                               std::size_t width) {
  return widen(std::span(out).subspan(index * width, width));
}

// Row counts on both sides of a tile; the rows behind the last one stay untouched.
TEST_F(FusedGemm, SwigluOfEveryRowCount) {
  constexpr std::size_t kColumns = 512, kOut = kColumns / 2;
  for (const std::int64_t rows : kRowCounts) {
    Operands operands(rows, kColumns, 320);
    DeviceArray<std::uint16_t> out(static_cast<std::size_t>(rows + 2) * kOut);
    launch_fused_gemm(operands.product(Form::kSwiglu, out, rows), num_sms_, nullptr);
    const std::vector<std::uint16_t> actual = out.host();
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows); i += 31) {
      const std::vector<double> product = operands.row(i);
      std::vector<double> expected(kOut);
      for (std::size_t c = 0; c < kOut; ++c) {
        const std::size_t gate = c / kGateUpGroup * 2 * kGateUpGroup + c % kGateUpGroup;
        expected[c] = swiglu_reference(product[gate], product[gate + kGateUpGroup]);
      }
      EXPECT_LT(relative_error(output_row(actual, i, kOut), expected), kTolerance)
          << rows << " rows, row " << i;
    }
    EXPECT_TRUE(std::all_of(actual.end() - 2 * kOut, actual.end(),
                            [](std::uint16_t bits) { return bits == 0xFFFF; }));
  }
}

// What the heads of `rows` rows are normalised and rotated by.
struct HeadOperands {
  static constexpr std::int64_t kPositions = 4096;

  explicit HeadOperands(std::int64_t rows)
      : q_norm(random_weights(128, 5)),
        k_norm(random_weights(128, 6)),
        positions(spread(rows)),
        device_q(q_norm),
        device_k(k_norm),
        table(kPositions * 128),
        device_positions(positions) {
    launch_rope_table(table.data(), kPositions, kTheta, nullptr);
  }
  static std::vector<std::int32_t> spread(std::int64_t rows) {
    std::vector<std::int32_t> positions(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < positions.size(); ++i) {
      positions[i] = static_cast<std::int32_t>(i * 131 % kPositions);
    }
    return positions;
  }
  HeadNormRope options(int num_q, int num_k) {
    return {.num_q = num_q,
            .num_k = num_k,
            .q_norm = device_q.data(),
            .k_norm = device_k.data(),
            .positions = device_positions.data(),
            .rope_table = table.data()};
  }

  std::vector<float> q_norm, k_norm;
  std::vector<std::int32_t> positions;
  DeviceArray<float> device_q, device_k, table;
  DeviceArray<std::int32_t> device_positions;
};

TEST_F(FusedGemm, HeadsAreNormalisedAndRotated) {
  constexpr std::size_t kColumns = 768;  // 3 q heads, 1 k head, 2 others
  for (const std::int64_t rows : kRowCounts) {
    Operands operands(rows, kColumns, 256);
    HeadOperands heads(rows);
    DeviceArray<std::uint16_t> out(static_cast<std::size_t>(rows) * kColumns);
    launch_qk_norm_rope_gemm(operands.product(Form::kStore, out, rows), heads.options(3, 1),
                             num_sms_, nullptr);
    const std::vector<std::uint16_t> actual = out.host();
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows); i += 31) {
      std::vector<double> expected;
      const std::vector<double> product = operands.row(i);
      for (std::size_t head = 0; head < kColumns / 128; ++head) {
        const std::vector<double> x(
            product.begin() + static_cast<std::ptrdiff_t>(head * 128),
            product.begin() + static_cast<std::ptrdiff_t>(head * 128 + 128));
        const std::vector<double> y =
            head < 4 ? norm_rope_reference(x, head < 3 ? heads.q_norm : heads.k_norm, 1e-6,
                                           heads.positions[i], kTheta)
                     : x;
        expected.insert(expected.end(), y.begin(), y.end());
      }
      EXPECT_LT(relative_error(output_row(actual, i, kColumns), expected), kTolerance)
          << rows << " rows, row " << i;
    }
  }
}

// So few blocks that each has several tiles, and a tile's results are worked on under the next
// one's products. These have 8, 16 and 32 slices, the epilogues 8, 16 or 26 steps. The last row
// block is not full.
constexpr int kFewBlocks = 8;
constexpr std::int64_t kManyRows = 999;
constexpr std::int64_t kWidths[] = {512, 1024, 2048};

void multiply_by_library(DeviceArray<std::uint16_t>& out, Operands& operands, std::int64_t n,
                         std::int64_t k, bool accumulate = false) {
  Gemm("/dev/null")
      .multiply({.form = accumulate ? Form::kAdd : Form::kStore,
                 .out = out.data<Bf16>(),
                 .in = operands.in.data<Bf16>(),
                 .weight = operands.weight.data<Bf16>(),
                 .rows = kManyRows,
                 .n = n,
                 .k = k},
                nullptr);
}

TEST_F(FusedGemm, ProductsAndSwigluHaveTheBitsOfTheLibrary) {
  constexpr std::int64_t kColumns = 1024;
  constexpr std::size_t kCount = std::size_t{kManyRows} * kColumns;
  for (const std::int64_t width : kWidths) {
    Operands operands(kManyRows, kColumns, width);
    DeviceArray<std::uint16_t> product(kCount), ours(kCount);
    DeviceArray<std::uint16_t> gated(kCount / 2), ours_gated(kCount / 2);
    multiply_by_library(product, operands, kColumns, width);
    launch_fused_gemm(operands.product(Form::kStore, ours, kManyRows), kFewBlocks, nullptr);
    EXPECT_EQ(ours.host(), product.host()) << "k " << width;

    launch_swiglu(gated.data<Bf16>(), product.data<Bf16>(), operands.squares.data(), kManyRows,
                  kColumns / 2, nullptr);
    launch_fused_gemm(operands.product(Form::kSwiglu, ours_gated, kManyRows), kFewBlocks, nullptr);
    EXPECT_EQ(ours_gated.host(), gated.host()) << "k " << width;
  }
}

// 3 q, 2 k and 3 other heads: tiles of one kind and of two.
TEST_F(FusedGemm, HeadsHaveTheBitsOfTheLibrary) {
  constexpr std::int64_t kColumns = 1024;
  constexpr std::size_t kCount = std::size_t{kManyRows} * kColumns;
  HeadOperands heads(kManyRows);
  const HeadNormRope options = heads.options(3, 2);
  for (const std::int64_t width : kWidths) {
    Operands operands(kManyRows, kColumns, width);
    DeviceArray<std::uint16_t> product(kCount), ours(kCount);
    multiply_by_library(product, operands, kColumns, width);
    launch_qk_norm_rope_gemm(operands.product(Form::kStore, ours, kManyRows), options, kFewBlocks,
                             nullptr);
    launch_qk_norm_rope({.heads = product.data<Bf16>(),
                         .row_stride = kColumns,
                         .rows = kManyRows,
                         .num_q = options.num_q,
                         .num_k = options.num_k,
                         .num_v = 3,
                         .q_norm = options.q_norm,
                         .k_norm = options.k_norm,
                         .mean_squares = operands.squares.data(),
                         .positions = options.positions,
                         .rope_table = options.rope_table},
                        nullptr);
    EXPECT_EQ(ours.host(), product.host()) << "k " << width;
  }
}

TEST_F(FusedGemm, SumsHaveTheBitsOfTheLibrary) {
  constexpr std::int64_t kColumns = 1024;
  for (const std::int64_t width : kWidths) {
    Operands operands(kManyRows, kColumns, width);
    const std::vector<std::uint16_t> before =
        random_bf16(static_cast<std::size_t>(kManyRows * kColumns), 4);
    DeviceArray<std::uint16_t> sum(before), ours(before);
    multiply_by_library(sum, operands, kColumns, width, true);
    launch_fused_gemm(operands.product(Form::kAdd, ours, kManyRows), kFewBlocks, nullptr);
    EXPECT_EQ(ours.host(), sum.host()) << "k " << width;
  }
}

TEST_F(FusedGemm, TwiceTheSameBits) {
  Operands operands(1000, 1024, 512);
  DeviceArray<std::uint16_t> first(1000 * 512), second(1000 * 512);
  launch_fused_gemm(operands.product(Form::kSwiglu, first, 1000), num_sms_, nullptr);
  launch_fused_gemm(operands.product(Form::kSwiglu, second, 1000), num_sms_, nullptr);
  EXPECT_EQ(first.host(), second.host());
}

}  // namespace
}  // namespace tessera::testing
