#include "kernels/cuda/backend/cuda_backend.hpp"

#include <cmath>
#include <numeric>
#include <random>

#include "tests/kernels/gpu.hpp"
#include "tests/support/operation_reference.hpp"

namespace tessera::testing {
namespace {

using kernels::AttentionShape;
using kernels::Buffer;
using kernels::DType;
using kernels::LinearWeight;
using kernels::MatrixSlice;
using kernels::RowLayout;
using kernels::cuda::Bf16;
using kernels::cuda::Bf16Weight;
using kernels::cuda::CudaBackend;

template <typename T>
MatrixSlice slice(const std::vector<T>& values, std::int64_t rows, std::int64_t cols) {
  return {.data = reinterpret_cast<const std::byte*>(values.data()),
          .type = sizeof(T) == 4 ? DType::kFloat32 : DType::kBFloat16,
          .rows = rows,
          .cols = cols,
          .row_stride = cols};
}

std::vector<std::uint16_t> content(Bf16Weight& weight) {
  std::vector<std::uint16_t> values(static_cast<std::size_t>(weight.rows() * weight.cols()));
  kernels::cuda::cuda_check(
      cudaMemcpy(values.data(), weight.row(0), weight.bytes(), cudaMemcpyDeviceToHost));
  return values;
}

class CudaLoading : public GpuTest {
 protected:
  std::vector<std::uint16_t> load(const std::vector<MatrixSlice>& slices, RowLayout layout) {
    CudaBackend backend({});
    auto weight = backend.load_linear({.name = "w", .slices = slices, .layout = layout});
    backend.finish_loading();
    return content(static_cast<Bf16Weight&>(*weight));
  }
};

TEST_F(CudaLoading, StacksSlicesLargerThanOnePiece) {
  const std::vector<std::uint16_t> a = random_bf16(3000 * 2048, 1);
  const std::vector<std::uint16_t> b = random_bf16(8 * 2048, 2);
  std::vector<std::uint16_t> expected = a;
  expected.insert(expected.end(), b.begin(), b.end());
  EXPECT_EQ(load({slice(a, 3000, 2048), slice(b, 8, 2048)}, RowLayout::kStacked), expected);
}

TEST_F(CudaLoading, InterleavesGateAndUp) {
  constexpr std::int64_t kRows = 2504;
  constexpr std::size_t kCols = 2048;
  const std::vector<std::uint16_t> gate = random_bf16(kRows * kCols, 3);
  const std::vector<std::uint16_t> up = random_bf16(kRows * kCols, 4);
  std::vector<std::uint16_t> expected;
  for (std::size_t group = 0; group < kRows * kCols; group += 8 * kCols) {
    for (const auto* part : {&gate, &up}) {
      const auto first = part->begin() + static_cast<std::ptrdiff_t>(group);
      expected.insert(expected.end(), first, first + 8 * kCols);
    }
  }
  EXPECT_EQ(load({slice(gate, kRows, kCols), slice(up, kRows, kCols)}, RowLayout::kGateUpPair),
            expected);
}

TEST_F(CudaLoading, TakesColumnsOfAFloatMatrix) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> whole(16 * 64);
  for (float& value : whole) value = normal(random);
  MatrixSlice right = slice(whole, 16, 32);
  right.row_stride = 64;
  right.data += 32 * sizeof(float);
  std::vector<std::uint16_t> expected;
  for (std::size_t i = 0; i < 16 * 32; ++i) {
    expected.push_back(float_to_bf16(whole[i / 32 * 64 + 32 + i % 32]));
  }
  EXPECT_EQ(load({right}, RowLayout::kStacked), expected);
}

// A layer and a last layer of random weights, called as the encoder calls them.
class SmallEncoder {
 public:
  static constexpr std::int64_t kHidden = 256;
  static constexpr std::int64_t kIntermediate = 512;
  static constexpr std::int64_t kVocab = 1000;
  static constexpr float kEps = 1e-6F;

  explicit SmallEncoder(float weight_scale = 0.06F) {
    table_ = backend.load_table(slice(numbers(kVocab * kHidden, 1), kVocab, kHidden));
    norm_host_ = random_weights(kHidden, 6);
    qkv_ = linear(shape_.qkv_width(), kHidden, weight_scale, slice(norm_host_, 1, kHidden));
    o_ = linear(kHidden, shape_.q_width(), weight_scale);
    const auto& gate = numbers(kIntermediate * kHidden, weight_scale);
    const auto& up = numbers(kIntermediate * kHidden, weight_scale);
    gate_up_ = backend.load_linear(
        {.name = "gate_up",
         .slices = {slice(gate, kIntermediate, kHidden), slice(up, kIntermediate, kHidden)},
         .norm = slice(norm_host_, 1, kHidden),
         .layout = RowLayout::kGateUpPair});
    down_ = linear(kHidden, kIntermediate, weight_scale);
    norm_ = backend.load_vector(slice(norm_host_, 1, kHidden));
    head_norm_ = backend.load_vector(slice(random_weights(128, 7), 1, 128));
    backend.finish_loading();
    for (auto* buffer : {&x_, &qkv_rows_, &attention_, &mlp_, &x_last_, &q_}) {
      *buffer = backend.allocate(static_cast<std::size_t>(limits_.max_tokens * 1024 * 2), "rows");
    }
    for (auto& slot : slots_) {
      slot = backend.make_slot(
          limits_,
          {.attention = shape_, .hidden_size = kHidden, .intermediate_size = kIntermediate});
    }
  }

  void enqueue(std::size_t slot_index, const std::vector<std::vector<std::int32_t>>& texts) {
    std::vector<std::int32_t> ids;
    std::vector<std::int32_t> cu_seqlens = {0};
    for (const auto& text : texts) {
      ids.insert(ids.end(), text.begin(), text.end());
      cu_seqlens.push_back(static_cast<std::int32_t>(ids.size()));
    }
    forward(*slots_[slot_index], {.input_ids = ids, .cu_seqlens = cu_seqlens});
  }
  std::vector<float> wait(std::size_t slot_index) {
    backend.wait(*slots_[slot_index]);
    const auto vectors = backend.vectors(*slots_[slot_index]);
    return {vectors.begin(), vectors.end()};
  }
  std::vector<float> run(const std::vector<std::vector<std::int32_t>>& texts) {
    enqueue(0, texts);
    return wait(0);
  }
  std::vector<std::uint8_t> finite() {
    const auto flags = backend.finite(*slots_[0]);
    return {flags.begin(), flags.end()};
  }

  CudaBackend backend{{}};

 private:
  const std::vector<std::uint16_t>& numbers(std::int64_t count, float scale) {
    kept_.push_back(random_bf16(static_cast<std::size_t>(count),
                                static_cast<unsigned>(kept_.size()) + 20, scale));
    return kept_.back();
  }
  std::unique_ptr<LinearWeight> linear(std::int64_t rows, std::int64_t cols, float scale,
                                       std::optional<kernels::MatrixSlice> norm = {}) {
    return backend.load_linear(
        {.name = "w", .slices = {slice(numbers(rows * cols, scale), rows, cols)}, .norm = norm});
  }
  void feed_forward(Buffer& x, std::int64_t rows) {
    backend.swiglu_projection(*mlp_, x, *gate_up_, rows, {.eps = kEps});
    backend.linear_add(x, *mlp_, *down_, rows);
  }
  void forward(kernels::BatchSlot& slot, const kernels::PackedBatchView& batch) {
    const kernels::Backend::QkNormRope rope{.q_norm = head_norm_.get(), .k_norm = head_norm_.get()};
    const std::int64_t tokens = batch.total_tokens();
    const std::int64_t sequences = batch.num_sequences();
    if (backend.begin(slot, batch) == kernels::Backend::Start::kReplay) {
      backend.end(slot);
      return;
    }
    backend.embed(*x_, *table_, slot, kHidden);
    backend.qkv_projection(*qkv_rows_, *x_, *qkv_, slot, shape_, rope);
    backend.attention(*attention_, *qkv_rows_, nullptr, slot, shape_);
    backend.linear_add(*x_, *attention_, *o_, tokens);
    feed_forward(*x_, tokens);
    backend.kv_projection(*qkv_rows_, *x_, *qkv_, slot, shape_, rope);
    backend.gather_last(*x_last_, *x_, slot, kHidden);
    backend.last_q_projection(*q_, *x_last_, *qkv_, slot, shape_, rope);
    backend.last_attention(*attention_, *q_, *qkv_rows_, slot, shape_);
    backend.linear_add(*x_last_, *attention_, *o_, sequences);
    feed_forward(*x_last_, sequences);
    backend.pool(slot, *x_last_, *norm_, kHidden, kEps, CudaBackend::Length::kUnit);
    backend.end(slot);
  }

  const AttentionShape shape_{.num_q_heads = 4, .num_kv_heads = 2};
  const kernels::BatchLimits limits_{.max_tokens = 2048, .max_sequences = 300, .max_seqlen = 1024};
  std::vector<std::vector<std::uint16_t>> kept_;
  std::unique_ptr<LinearWeight> qkv_, o_, gate_up_, down_;
  std::unique_ptr<Buffer> table_, norm_, head_norm_;
  std::unique_ptr<Buffer> x_, qkv_rows_, attention_, mlp_, x_last_, q_;
  std::vector<float> norm_host_;
  std::array<std::unique_ptr<kernels::BatchSlot>, 2> slots_;
};

std::vector<std::vector<std::int32_t>> random_texts(const std::vector<int>& lengths,
                                                    unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<std::int32_t> id(0, SmallEncoder::kVocab - 1);
  std::vector<std::vector<std::int32_t>> texts;
  for (const int length : lengths) {
    std::vector<std::int32_t>& text = texts.emplace_back(static_cast<std::size_t>(length));
    for (std::int32_t& token : text) token = id(random);
  }
  return texts;
}

double cosine(const float* a, const float* b) {
  return std::inner_product(a, a + SmallEncoder::kHidden, b, 0.0);
}

class CudaBatches : public GpuTest {};

TEST_F(CudaBatches, GraphsGiveWhatPlainLaunchesGive) {
  SmallEncoder plain;
  plain.backend.use_graphs(false);
  SmallEncoder graphs;
  for (const auto& lengths : std::vector<std::vector<int>>{{24},
                                                           {20},
                                                           {31},
                                                           {17, 3},
                                                           {9, 9, 9},
                                                           {1, 30},
                                                           {24},
                                                           {16},
                                                           {100, 5, 200},
                                                           {300},
                                                           {120, 7, 180},
                                                           {1, 1, 1},
                                                           {1},
                                                           {1},
                                                           {2},
                                                           {700, 300},
                                                           {650, 340},
                                                           {800, 224}}) {
    const auto texts = random_texts(lengths, static_cast<unsigned>(lengths[0]));
    const std::vector<float> expected = plain.run(texts);
    for (int repeat = 0; repeat < 3; ++repeat) {  // launched, recorded, replayed
      const std::vector<float> actual = graphs.run(texts);
      EXPECT_EQ(actual, expected) << texts.size() << " texts, " << lengths[0] << " tokens first";
    }
  }
}

TEST_F(CudaBatches, TheSameBatchTwiceGivesTheSameBits) {
  SmallEncoder encoder;
  for (const auto& lengths : std::vector<std::vector<int>>{{24}, {5, 90, 1}, {1024, 1000, 3}}) {
    const auto texts = random_texts(lengths, 4);
    const std::vector<float> first = encoder.run(texts);
    for (int repeat = 0; repeat < 3; ++repeat) {
      EXPECT_EQ(encoder.run(texts), first) << lengths.size() << " texts";
    }
  }
}

// Every kernel and every matrix product sums a row in one order, whatever else is in the batch.
TEST_F(CudaBatches, NeighboursChangeNoBit) {
  SmallEncoder encoder;
  const auto texts = random_texts({3, 500, 1, 64, 65, 17, 900, 8, 120, 300}, 5);
  const std::vector<float> together = encoder.run(texts);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::vector<float> alone = encoder.run({texts[i]});
    const float* among = together.data() + i * SmallEncoder::kHidden;
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), among)) << i;
    EXPECT_GT(cosine(alone.data(), among), 0.99999) << i;
  }
}

TEST_F(CudaBatches, TwoInFlightDoNotMix) {
  SmallEncoder encoder;
  const auto a = random_texts({30, 400, 2}, 6);
  const auto b = random_texts({7, 7, 7, 650}, 7);
  const std::vector<float> vectors_a = encoder.run(a);
  const std::vector<float> vectors_b = encoder.run(b);
  encoder.enqueue(0, a);
  for (int i = 0; i < 20; ++i) {
    encoder.enqueue(1, b);
    EXPECT_EQ(encoder.wait(0), vectors_a);
    encoder.enqueue(0, a);
    EXPECT_EQ(encoder.wait(1), vectors_b);
  }
  EXPECT_EQ(encoder.wait(0), vectors_a);
}

TEST_F(CudaBatches, NumbersBeyondFloat16StayFinite) {
  SmallEncoder encoder(40.0F);  // sums reach millions
  const auto texts = random_texts({30, 400, 2}, 8);
  for (const float value : encoder.run(texts)) ASSERT_TRUE(std::isfinite(value));
  EXPECT_EQ(encoder.finite(), (std::vector<std::uint8_t>{1, 1, 1}));
}

}  // namespace
}  // namespace tessera::testing
