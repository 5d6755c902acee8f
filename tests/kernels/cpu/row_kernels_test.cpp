// Every instruction set that this machine has, against plain double arithmetic.

#include "kernels/cpu/row_kernels.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/aligned_bytes.hpp"

namespace tessera::kernels::cpu {
namespace {

float rounded_to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U);
}

// A row of activations of either type, seen as floats.
class Activations {
 public:
  Activations(DType type, std::size_t size) : type_(type), bytes_(size * 4), size_(size) {}
  void* data() const { return bytes_.data(); }
  void* at(std::size_t i) const { return bytes_.data() + i * size_of(type_); }
  float get(std::size_t i) const {
    return type_ == DType::kFloat32
               ? bytes_.as<float>()[i]
               : std::bit_cast<float>(std::uint32_t{bytes_.as<std::uint16_t>()[i]} << 16);
  }
  void set(std::size_t i, float value) {
    if (type_ == DType::kFloat32) {
      bytes_.as<float>()[i] = value;
    } else {
      bytes_.as<std::uint16_t>()[i] =
          static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(rounded_to_bf16(value)) >> 16);
    }
  }
  std::size_t size() const { return size_; }

 private:
  DType type_;
  AlignedBytes bytes_;
  std::size_t size_;
};

class RowKernelsTest : public testing::TestWithParam<const RowKernels*> {
 protected:
  const RowKernels& kernels() const { return *GetParam(); }
  bool is_float32() const { return kernels().activation == DType::kFloat32; }
  // Of values around 1.
  double tolerance() const { return is_float32() ? 2e-6 : 8e-3; }

  std::vector<float> random(std::size_t size, float deviation = 1) {
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> values(size);
    for (float& v : values) {
      v = normal(generator_);
    }
    return values;
  }

  std::mt19937 generator_{7};
};

std::vector<double> normed(const std::vector<float>& x, const std::vector<float>& weight,
                           double eps) {
  double squares = 0;
  for (const float v : x) {
    squares += double{v} * v;
  }
  std::vector<double> out;
  for (std::size_t i = 0; i < x.size(); ++i) {
    out.push_back(x[i] / std::sqrt(squares / static_cast<double>(x.size()) + eps) * weight[i]);
  }
  return out;
}

TEST_P(RowKernelsTest, EmbedWidensARow) {
  const auto values = random(96);
  std::vector<float> x(96);
  kernels().embed(x.data(), values.data(), DType::kFloat32, 96);
  EXPECT_EQ(x, values);
  Activations table(DType::kBFloat16, 96);
  for (std::size_t i = 0; i < 96; ++i) {
    table.set(i, values[i]);
  }
  kernels().embed(x.data(), table.data(), DType::kBFloat16, 96);
  for (std::size_t i = 0; i < 96; ++i) {
    EXPECT_EQ(x[i], rounded_to_bf16(values[i]));
  }
}

TEST_P(RowKernelsTest, RmsNorm) {
  for (const std::size_t width : {32U, 160U, 1024U}) {
    const auto x = random(width, 3), weight = random(width);
    Activations out(kernels().activation, width);
    kernels().rms_norm(out.data(), x.data(), weight.data(), static_cast<std::int64_t>(width),
                       1e-6F);
    const auto expected = normed(x, weight, 1e-6);
    for (std::size_t i = 0; i < width; ++i) {
      EXPECT_NEAR(out.get(i), expected[i], tolerance() * std::max(1.0, std::abs(expected[i])));
    }
  }
}

TEST_P(RowKernelsTest, NormAndRotationOfAHead) {
  const auto head = random(kHeadDim), weight = random(kHeadDim), angles = random(kHeadDim / 2, 9);
  std::vector<float> cos_sin;
  for (const float angle : angles) cos_sin.push_back(std::cos(angle));
  for (const float angle : angles) cos_sin.push_back(std::sin(angle));
  Activations out(kernels().activation, kHeadDim);
  kernels().norm_rope(out.data(), head.data(), weight.data(), cos_sin.data(), 1e-6F);
  const auto n = normed(head, weight, 1e-6);
  for (std::size_t i = 0; i < 64; ++i) {
    const double low = n[i] * cos_sin[i] - n[i + 64] * cos_sin[i + 64];
    const double high = n[i + 64] * cos_sin[i] + n[i] * cos_sin[i + 64];
    EXPECT_NEAR(out.get(i), low, tolerance() * 4);
    EXPECT_NEAR(out.get(i + 64), high, tolerance() * 4);
  }
}

TEST_P(RowKernelsTest, SwigluFromTinyToHugeGates) {
  auto gate = random(256, 4);
  const auto up = random(256);
  gate[0] = 200, gate[1] = -200, gate[2] = 0, gate[3] = -88, gate[4] = 1e30F, gate[5] = -1e38F;
  Activations out(kernels().activation, 256);
  kernels().swiglu(out.data(), gate.data(), up.data(), 256);
  for (std::size_t i = 0; i < 256; ++i) {
    const double expected = gate[i] / (1 + std::exp(-double{gate[i]})) * up[i];
    EXPECT_NEAR(out.get(i), expected, 1e-30 + tolerance() * std::abs(expected)) << gate[i];
  }
}

TEST_P(RowKernelsTest, AddAndStore) {
  const auto a = random(64), b = random(64);
  auto x = a;
  kernels().add(x.data(), b.data(), 64);
  Activations out(kernels().activation, 64);
  kernels().store(out.data(), a.data(), 64);
  for (std::size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(x[i], a[i] + b[i]);
    EXPECT_EQ(out.get(i), is_float32() ? a[i] : rounded_to_bf16(a[i]));
  }
}

TEST_P(RowKernelsTest, PoolGivesUnitVectorsAndSeesWhatIsNotFinite) {
  auto x = random(128);
  const auto weight = random(128);
  std::vector<float> out(128);
  EXPECT_EQ(kernels().pool(out.data(), x.data(), weight.data(), 128, 1e-6F, true), 1);
  double squares = 0;
  for (const float v : out) squares += double{v} * v;
  EXPECT_NEAR(squares, 1, 1e-5);
  std::vector<float> raw(128);  // The same direction with the length that it had.
  EXPECT_EQ(kernels().pool(raw.data(), x.data(), weight.data(), 128, 1e-6F, false), 1);
  double length = 0, mean_square = 0;
  for (std::size_t i = 0; i < 128; ++i) {
    length += double{raw[i]} * raw[i];
    mean_square += double{x[i]} * x[i] / 128;
  }
  for (std::size_t i = 0; i < 128; ++i) {
    EXPECT_NEAR(raw[i], x[i] / std::sqrt(mean_square + 1e-6) * weight[i], 1e-5);
    EXPECT_NEAR(raw[i] / std::sqrt(length), out[i], 1e-6);
  }
  const auto with = [&](float value) {
    auto changed = x;
    changed[77] = value;
    return kernels().pool(out.data(), changed.data(), weight.data(), 128, 1e-6F, true);
  };
  EXPECT_EQ(with(std::numeric_limits<float>::quiet_NaN()), 0);
  EXPECT_EQ(with(std::numeric_limits<float>::infinity()), 0);
  EXPECT_EQ(with(-std::numeric_limits<float>::infinity()), 0);
  const std::vector<float> zero(128);
  EXPECT_EQ(kernels().pool(out.data(), zero.data(), weight.data(), 128, 1e-6F, true), 0);
}

// One query head over one kv head, positions [first, last) of a sequence, in double.
std::vector<double> attention_reference(const Activations& q, const Activations& k,
                                        const Activations& v, std::size_t position) {
  std::vector<double> weights, out(kHeadDim);
  double total = 0, highest = -1e300;
  for (std::size_t key = 0; key <= position; ++key) {
    double score = 0;
    for (std::size_t i = 0; i < kHeadDim; ++i) {
      score += double{q.get(position * kHeadDim + i)} * k.get(key * kHeadDim + i);
    }
    weights.push_back(score / std::sqrt(128.0));
    highest = std::max(highest, weights.back());
  }
  for (double& w : weights) {
    w = std::exp(w - highest);
    total += w;
  }
  for (std::size_t key = 0; key <= position; ++key) {
    for (std::size_t i = 0; i < kHeadDim; ++i) {
      out[i] += weights[key] / total * v.get(key * kHeadDim + i);
    }
  }
  return out;
}

TEST_P(RowKernelsTest, AttentionOfEveryTileAndTail) {
  for (const std::int64_t len : {1, 2, 15, 16, 17, 63, 64, 65, 130, 200}) {
    const auto size = static_cast<std::size_t>(len * kHeadDim);
    Activations q(kernels().activation, size), k(kernels().activation, size),
        v(kernels().activation, size), out(kernels().activation, size);
    // Large scores make the online maximum move.
    const auto q_values = random(size, 3), k_values = random(size, 1), v_values = random(size);
    for (std::size_t i = 0; i < size; ++i) {
      q.set(i, q_values[i]);
      k.set(i, k_values[i]);
      v.set(i, v_values[i]);
    }
    const std::size_t bytes = packed_head_bytes(len, kernels().activation);
    AlignedBytes keys(bytes), values(bytes);
    std::fill_n(keys.data(), bytes, std::byte{0xFF});  // NaN: padding must not shine through.
    std::fill_n(values.data(), bytes, std::byte{0xFF});
    const PackedHead head{keys.as<std::uint32_t>(), values.as<std::uint32_t>()};
    kernels().pack_head(head, k.data(), v.data(), kHeadDim, len);
    for (std::int64_t p = 0; p < len; p += kTileRows) {
      kernels().attend({.q = q.at(static_cast<std::size_t>(p * kHeadDim)),
                        .out = out.at(static_cast<std::size_t>(p * kHeadDim)),
                        .q_stride = kHeadDim,
                        .out_stride = kHeadDim,
                        .rows = std::min(kTileRows, len - p),
                        .position = p,
                        .head = head});
    }
    for (std::size_t p = 0; p < static_cast<std::size_t>(len); p += 7) {
      const auto expected = attention_reference(q, k, v, p);
      for (std::size_t i = 0; i < kHeadDim; ++i) {
        ASSERT_NEAR(out.get(p * kHeadDim + i), expected[i], is_float32() ? 1e-5 : 2e-2)
            << len << " " << p << " " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, RowKernelsTest,
                         testing::ValuesIn(usable_row_kernels().begin(),
                                           usable_row_kernels().end()),
                         [](const auto& info) { return std::string(info.param->name); });

TEST(BestRowKernels, FollowTheWeightType) {
  EXPECT_EQ(best_row_kernels(DType::kFloat32).activation, DType::kFloat32);
  EXPECT_EQ(&best_row_kernels(DType::kBFloat16), usable_row_kernels().front());
}

}  // namespace
}  // namespace tessera::kernels::cpu
