// Attention where the GPUs of a group split a batch: each computes its own tokens' queries over
// keys and values that were gathered from all.

#include <gtest/gtest.h>

#include <map>

#include "tests/kernels/attention_case.hpp"
#include "tests/support/gpu_test.hpp"

namespace tessera::testing {
namespace {

using kernels::Segment;
using kernels::cuda::AttentionPlan;

constexpr double kTolerance = 8e-3;

struct Part {
  std::int32_t sequence = 0, begin = 0, end = 0;  // positions
};

// One GPU's part of the batch that `whole` holds. Its rows and the gathered ones lie elsewhere than
// in the whole batch, in an order of their own.
class PartCase {
 public:
  PartCase(const AttentionPlan& plan, const AttentionCase& whole,
           const std::vector<std::int32_t>& seqlens, std::vector<Part> parts)
      : plan_(plan), parts_(std::move(parts)) {
    gather(whole, seqlens);
    std::vector<std::int32_t> cu_seqlens{0};
    std::vector<Segment> segments;
    std::vector<std::uint16_t> qkv;
    for (const Part& part : parts_) {
      append_rows(qkv, whole, part);
      cu_seqlens.push_back(cu_seqlens.back() + part.end - part.begin);
      segments.push_back({.position = part.begin,
                          .first_kv = first_kv_.at(part.sequence),
                          .ends = part.end == seqlens[static_cast<std::size_t>(part.sequence)]});
    }
    rows_ = cu_seqlens.back();
    upload(qkv, qkv_);
    upload(kv_host_, kv_);
    const auto count = static_cast<std::int64_t>(parts_.size());
    std::vector<std::byte> list(attention_tiles_bytes(plan, rows_, count));
    counts_ = build_attention_tiles(plan, cu_seqlens, segments, list);
    bounds_ = max_attention_tiles(plan, rows_, count);
    tiles_ = std::make_unique<DeviceMemory>(list.size());
    require(cudaMemcpy(tiles_->data(), list.data(), list.size(), cudaMemcpyHostToDevice));
    out_ = std::make_unique<DeviceMemory>(
        static_cast<std::size_t>((rows_ + 3) * plan.shape.q_width()) * 2);
  }

  std::vector<std::uint16_t> run(bool with_bounds) {
    require(cudaMemset(out_->data(), 0xFF, out_->bytes()));
    launch_attention(plan_,
                     {.out = static_cast<__nv_bfloat16*>(out_->data()),
                      .qkv = static_cast<const __nv_bfloat16*>(qkv_->data()),
                      .rows = rows_,
                      .kv = static_cast<const __nv_bfloat16*>(kv_->data()),
                      .kv_rows = kv_rows_,
                      .tiles = tiles_->data(),
                      .counts = with_bounds ? bounds_ : counts_},
                     nullptr);
    std::vector<std::uint16_t> out(out_->bytes() / 2);
    require(cudaMemcpy(out.data(), out_->data(), out_->bytes(), cudaMemcpyDeviceToHost));
    return out;
  }

  // Puts the rows of `out` where they lie in the whole batch.
  void place(const AttentionCase& whole, const std::vector<std::uint16_t>& out,
             std::vector<std::uint16_t>& all) const {
    const std::int64_t width = plan_.shape.q_width();
    auto from = out.begin();
    for (const Part& part : parts_) {
      const std::int64_t count = (part.end - part.begin) * width;
      std::copy_n(from, count,
                  all.begin() + (whole.first_token(part.sequence) + part.begin) * width);
      from += count;
    }
    EXPECT_TRUE(std::all_of(from, out.end(), [](auto v) { return v == 0xFFFF; }))
        << "rows behind the part were written";
  }

 private:
  // [k | v] of every sequence, the last one first and a gap of zeros between them.
  void gather(const AttentionCase& whole, const std::vector<std::int32_t>& seqlens) {
    const std::int64_t width = 2 * plan_.shape.kv_width();
    constexpr std::int64_t kGap = 5;
    for (std::size_t i = seqlens.size(); i-- > 0;) {
      const auto sequence = static_cast<std::int32_t>(i);
      first_kv_[sequence] = static_cast<std::int32_t>(kv_rows_);
      for (std::int64_t t = 0; t < seqlens[i]; ++t) {
        const auto row = whole.qkv().subspan(static_cast<std::size_t>(
            (whole.first_token(sequence) + t) * plan_.shape.qkv_width() + plan_.shape.q_width()));
        kv_host_.insert(kv_host_.end(), row.begin(), row.begin() + width);
      }
      kv_rows_ += seqlens[i] + kGap;
      kv_host_.resize(static_cast<std::size_t>(kv_rows_ * width));
    }
  }

  // Queries; what lies beside them is not to be read, so it is wrong on purpose.
  void append_rows(std::vector<std::uint16_t>& rows, const AttentionCase& whole,
                   const Part& part) const {
    const auto width = static_cast<std::size_t>(plan_.shape.qkv_width());
    for (std::int32_t t = part.begin; t < part.end; ++t) {
      const auto row = whole.qkv().subspan(
          static_cast<std::size_t>(whole.first_token(part.sequence) + t) * width, width);
      const auto q = static_cast<std::ptrdiff_t>(plan_.shape.q_width());
      rows.insert(rows.end(), row.begin(), row.begin() + q);
      rows.insert(rows.end(), width - static_cast<std::size_t>(q), float_to_bf16(1e4F));
    }
  }

  static void upload(const std::vector<std::uint16_t>& values,
                     std::unique_ptr<DeviceMemory>& memory) {
    memory = std::make_unique<DeviceMemory>(values.size() * 2);
    require(cudaMemcpy(memory->data(), values.data(), values.size() * 2, cudaMemcpyHostToDevice));
  }

  AttentionPlan plan_;
  std::vector<Part> parts_;
  std::map<std::int32_t, std::int32_t> first_kv_;
  std::vector<std::uint16_t> kv_host_;
  std::int64_t rows_ = 0, kv_rows_ = 0;
  std::unique_ptr<DeviceMemory> qkv_, kv_, tiles_, out_;
  kernels::cuda::AttentionTileCounts counts_, bounds_;
};

class AttentionSegments : public GpuTest {
 protected:
  // The GPUs' parts together: right, and bit for bit the attention of the whole batch.
  static void expect_whole(std::int64_t q_heads, std::int64_t kv_heads,
                           const std::vector<std::int32_t>& seqlens,
                           const std::vector<std::vector<Part>>& gpus) {
    AttentionPlan plan = device_plan(q_heads, kv_heads);
    for (const bool mma : {false, true}) {
      if (mma) plan = kernels::cuda::plan_attention(plan.shape, 80, plan.num_sms);
      AttentionCase whole(plan, seqlens, 7);
      const std::vector<std::uint16_t> expected = whole.run();
      for (const bool with_bounds : {false, true}) {
        std::vector<std::uint16_t> all(expected.size(), 0xFFFF);
        for (const std::vector<Part>& parts : gpus) {
          PartCase part(plan, whole, seqlens, parts);
          part.place(whole, part.run(with_bounds), all);
        }
        EXPECT_LT(whole.worst_error(all), kTolerance) << q_heads << " / " << kv_heads << " heads";
        EXPECT_EQ(all, expected) << "form " << static_cast<int>(plan.form) << ", bounds "
                                 << with_bounds;
      }
    }
  }
};

TEST_F(AttentionSegments, TwoGpusWithOneCutSequence) {
  expect_whole(32, 8, {1000, 88, 12},
               {{{0, 0, 256}, {0, 768, 1000}, {2, 0, 12}}, {{0, 256, 768}, {1, 0, 88}}});
}

TEST_F(AttentionSegments, FourGpusWithAnEarlyAndALatePieceEach) {
  expect_whole(16, 8, {2047, 130},
               {{{0, 0, 256}, {0, 1792, 2047}},
                {{0, 256, 512}, {0, 1536, 1792}},
                {{0, 512, 768}, {0, 1280, 1536}, {1, 128, 130}},
                {{0, 768, 1280}, {1, 0, 128}}});
}

// The last piece holds one token; a short sequence is cut in the middle.
TEST_F(AttentionSegments, PiecesOfOneToken) {
  expect_whole(
      8, 2, {129, 640, 1},
      {{{0, 0, 128}, {1, 128, 256}, {2, 0, 1}}, {{1, 0, 128}, {0, 128, 129}, {1, 256, 640}}});
}

TEST_F(AttentionSegments, OneHead) {
  expect_whole(2, 1, {4097}, {{{0, 0, 1024}, {0, 4096, 4097}}, {{0, 1024, 4096}}});
}

}  // namespace
}  // namespace tessera::testing
