#include "kernels/cuda/attention/attention_tiles.hpp"

#include <algorithm>
#include <numeric>
#include <string>

#include "common/check.hpp"

namespace tessera::kernels::cuda {
namespace {

// Rows of a tile, a row being one query head at one position, and the longest sequence that the
// kernel for short ones takes: there the time of a step counts, not of the steps of a tile.
constexpr int kLongRows = 128;
constexpr int kShortRowsMma = 64;
constexpr int kShortRowsWgmma = 128;
constexpr std::int32_t kShortMaxMma = 128;
constexpr std::int32_t kShortMaxWgmma = 1024;
// Keys and values of tiles that are meant to run together: half of the L2 cache of the smallest of
// the large chips (A100 40 MB, H200 50 MB).
constexpr std::int64_t kSectionBytes = 20 << 20;

std::int32_t ceil_div(std::int64_t a, std::int64_t b) {
  return static_cast<std::int32_t>((a + b - 1) / b);
}

std::int64_t head_groups(const AttentionPlan& plan) { return plan.shape.num_q_heads / plan.heads; }

// The batch as the tiles see it: where each sequence, or part of one, starts and ends.
struct Extents {
  std::span<const std::int32_t> cu_seqlens;
  std::span<const Segment> segments;

  std::int32_t position(std::int32_t i) const {
    return segments.empty() ? 0 : segments[static_cast<std::size_t>(i)].position;
  }
  std::int32_t end(std::int32_t i) const {
    const auto at = static_cast<std::size_t>(i);
    return position(i) + cu_seqlens[at + 1] - cu_seqlens[at];
  }
  std::int32_t first_q(std::int32_t i) const {
    return cu_seqlens[static_cast<std::size_t>(i)] - position(i);
  }
  std::int32_t first_kv(std::int32_t i) const {
    return segments.empty() ? first_q(i) : segments[static_cast<std::size_t>(i)].first_kv;
  }
};

// Writes the tiles of sequences that are sorted by falling end. A unit is one sequence under one
// group of heads; a section is as many units as fit in the L2 cache.
class Writer {
 public:
  Writer(const AttentionPlan& plan, const Extents& extents, AttentionTile* out)
      : plan_(plan), extents_(extents), begin_(out), out_(out) {}

  void write(std::span<const std::int32_t> sequences, int positions) {
    const std::int64_t groups = head_groups(plan_);
    const std::int64_t units = static_cast<std::int64_t>(sequences.size()) * groups;
    const std::int64_t token_bytes = plan_.shape.head_dim * 4;  // K and V in bf16
    for (std::int64_t first = 0; first < units;) {
      std::int64_t last = first;
      for (std::int64_t bytes = 0; last < units && (last == first || bytes < kSectionBytes); ++last)
        bytes += extents_.end(sequences[static_cast<std::size_t>(last / groups)]) * token_bytes;
      write_section(sequences, positions, first, last);
      first = last;
    }
  }

  std::int32_t written() const { return static_cast<std::int32_t>(out_ - begin_); }

 private:
  void write_section(std::span<const std::int32_t> sequences, int positions, std::int64_t first,
                     std::int64_t last) {
    const std::int64_t groups = head_groups(plan_);
    const std::int32_t longest = extents_.end(sequences[static_cast<std::size_t>(first / groups)]);
    for (std::int32_t tile = ceil_div(longest, positions) - 1; tile >= 0; --tile) {
      for (std::int64_t unit = first; unit < last; ++unit) {
        const std::int32_t sequence = sequences[static_cast<std::size_t>(unit / groups)];
        if (extents_.end(sequence) <= tile * positions) break;  // and so are all behind it
        if (extents_.position(sequence) > tile * positions) continue;
        *out_++ = {extents_.first_q(sequence), extents_.first_kv(sequence), extents_.end(sequence),
                   tile * positions, static_cast<std::int32_t>(unit % groups) * plan_.heads};
      }
    }
  }

  const AttentionPlan& plan_;
  const Extents& extents_;
  AttentionTile* begin_;
  AttentionTile* out_;
};

}  // namespace

AttentionPlan plan_attention(const AttentionShape& shape, int compute_capability, int num_sms) {
  CHECK(shape.head_dim == 128);
  CHECK(shape.num_kv_heads > 0 && shape.num_q_heads % shape.num_kv_heads == 0);
  if (compute_capability < 80) {
    throw FatalError("this GPU has compute capability " + std::to_string(compute_capability / 10) +
                     "." + std::to_string(compute_capability % 10) + "; 8.0 or later is needed");
  }
  AttentionPlan plan;
  plan.shape = shape;
  const bool hopper = compute_capability == 90;
  plan.form = hopper ? AttentionPlan::Form::kWgmma : AttentionPlan::Form::kMma;
  plan.num_sms = num_sms;
  const std::int64_t group = shape.num_q_heads / shape.num_kv_heads;
  plan.heads = static_cast<int>(std::min<std::int64_t>(group & -group, 16));
  plan.long_positions = kLongRows / plan.heads;
  plan.short_positions = (hopper ? kShortRowsWgmma : kShortRowsMma) / plan.heads;
  plan.short_max_seqlen = hopper ? kShortMaxWgmma : kShortMaxMma;
  return plan;
}

AttentionTileCounts max_attention_tiles(const AttentionPlan& plan, std::int64_t max_tokens,
                                        std::int64_t max_sequences) {
  const std::int64_t long_sequences =
      std::min(max_sequences, max_tokens / (plan.short_max_seqlen + 1) + kPartsMax);
  const std::int64_t groups = head_groups(plan);
  const std::int64_t long_blocks =
      long_sequences == 0 ? 0 : max_tokens / plan.long_positions + long_sequences;
  const std::int64_t short_blocks = max_tokens / plan.short_positions + max_sequences;
  return {static_cast<std::int32_t>(long_blocks * groups),
          static_cast<std::int32_t>(short_blocks * groups)};
}

std::size_t attention_tiles_bytes(const AttentionTileCounts& counts) {
  return sizeof(AttentionTileHeader) +
         sizeof(AttentionTile) * static_cast<std::size_t>(counts.num_long + counts.num_short);
}

std::size_t attention_tiles_bytes(const AttentionPlan& plan, std::int64_t max_tokens,
                                  std::int64_t max_sequences) {
  return attention_tiles_bytes(max_attention_tiles(plan, max_tokens, max_sequences)) +
         sizeof(std::int32_t) * static_cast<std::size_t>(max_sequences);
}

AttentionTileCounts build_attention_tiles(const AttentionPlan& plan,
                                          std::span<const std::int32_t> cu_seqlens,
                                          std::span<const Segment> segments,
                                          std::span<std::byte> out) {
  CHECK(!cu_seqlens.empty());
  const std::size_t num_sequences = cu_seqlens.size() - 1;
  CHECK(out.size() >=
        attention_tiles_bytes(plan, cu_seqlens.back(), static_cast<std::int64_t>(num_sequences)));
  CHECK(segments.empty() || segments.size() == num_sequences);
  for (const Segment& segment : segments) CHECK(segment.position % kSegmentAlignment == 0);
  const Extents extents{cu_seqlens, segments};
  // The order of the sequences is kept at the end of `out`, where no tile of this batch comes.
  const std::size_t scratch_bytes = num_sequences * sizeof(std::int32_t);
  const std::size_t scratch_offset = (out.size() - scratch_bytes) / 4 * 4;
  const std::span<std::int32_t> order(reinterpret_cast<std::int32_t*>(out.data() + scratch_offset),
                                      num_sequences);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return extents.end(a) != extents.end(b) ? extents.end(a) > extents.end(b) : a < b;
  });
  const auto first_short = std::find_if(order.begin(), order.end(), [&](std::int32_t i) {
    return extents.end(i) <= plan.short_max_seqlen;
  });

  auto* header = reinterpret_cast<AttentionTileHeader*>(out.data());
  Writer writer(plan, extents,
                reinterpret_cast<AttentionTile*>(out.data() + sizeof(AttentionTileHeader)));
  writer.write({order.begin(), first_short}, plan.long_positions);
  const std::int32_t num_long = writer.written();
  writer.write({first_short, order.end()}, plan.short_positions);
  const AttentionTileCounts counts{num_long, writer.written() - num_long};
  *header = {.num_long = counts.num_long, .num_short = counts.num_short};
  return counts;
}

}  // namespace tessera::kernels::cuda
