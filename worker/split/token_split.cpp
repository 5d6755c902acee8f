#include "worker/split/token_split.hpp"

#include <algorithm>
#include <numeric>

#include "common/check.hpp"

namespace tessera::worker {
namespace {

using kernels::kSegmentAlignment;
using kernels::Segment;

// Pieces of a cut sequence should be worth a matrix product of their own.
constexpr std::int32_t kPairedPieceMin = 2 * kSegmentAlignment;
constexpr std::size_t kCutSequencesMax = 8;

// A whole sequence, or part of a cut one.
struct Piece {
  std::size_t sequence = 0;
  std::int32_t begin = 0;
  std::int32_t end = 0;
  double cost = 0;
};

// Where the pieces of a cut sequence start, and its end: 2 N equal ones, so that the balance can
// pair cheap early with expensive late ones, or up to N when it is short.
std::vector<std::int32_t> cut_points(std::int32_t seqlen, int size) {
  const int wanted = seqlen >= 2 * size * kPairedPieceMin ? 2 * size : size;
  const std::int32_t steps = (seqlen + kSegmentAlignment - 1) / kSegmentAlignment;
  const int pieces = std::min(wanted, static_cast<int>(steps));
  std::vector<std::int32_t> points;
  for (int i = 0; i < pieces; ++i) {
    points.push_back(static_cast<std::int32_t>(std::int64_t{steps} * i / pieces) *
                     kSegmentAlignment);
  }
  points.push_back(seqlen);
  return points;
}

class Splitter {
 public:
  Splitter(const kernels::PackedBatchView& batch, const TokenSplitOptions& options)
      : batch_(batch), options_(options), longest_first_(count()) {
    std::iota(longest_first_.begin(), longest_first_.end(), std::size_t{0});
    std::stable_sort(longest_first_.begin(), longest_first_.end(),
                     [this](std::size_t a, std::size_t b) { return seqlen(a) > seqlen(b); });
  }

  TokenSplit run() {
    double total = 0;
    for (const std::size_t i : longest_first_) total += cost(0, seqlen(i));
    // The longest sequences are cut, one more each time, until the ranks balance.
    const std::size_t cuts_max = std::min(count(), kCutSequencesMax);
    std::size_t cuts = 0;
    while (deal(cuts) > total / options_.size * (1 + options_.imbalance_max) && cuts < cuts_max &&
           seqlen(longest_first_[cuts]) > kSegmentAlignment && options_.size > 1) {
      ++cuts;
    }
    return build(cuts);
  }

 private:
  std::size_t count() const { return static_cast<std::size_t>(batch_.num_sequences()); }
  std::int32_t seqlen(std::size_t i) const {
    return batch_.cu_seqlens[i + 1] - batch_.cu_seqlens[i];
  }
  double cost(std::int32_t begin, std::int32_t end) const {
    const double tokens = end - begin;
    return tokens + options_.pair_cost * tokens * (begin + 0.5 * tokens);
  }

  std::vector<Piece> pieces(std::size_t cuts) const {
    std::vector<Piece> all;
    for (std::size_t k = 0; k < count(); ++k) {
      const std::size_t i = longest_first_[k];
      const std::vector<std::int32_t> points =
          k < cuts ? cut_points(seqlen(i), options_.size) : std::vector<std::int32_t>{0, seqlen(i)};
      for (std::size_t p = 0; p + 1 < points.size(); ++p) {
        all.push_back({i, points[p], points[p + 1], cost(points[p], points[p + 1])});
      }
    }
    return all;
  }

  // Gives each piece, dearest first, to the rank that has least; returns the most any rank has.
  double deal(std::size_t cuts) {
    std::vector<Piece> all = pieces(cuts);
    std::stable_sort(all.begin(), all.end(),
                     [](const Piece& a, const Piece& b) { return a.cost > b.cost; });
    dealt_.assign(static_cast<std::size_t>(options_.size), {});
    std::vector<double> load(dealt_.size(), 0.0);
    for (const Piece& piece : all) {
      const auto rank =
          static_cast<std::size_t>(std::min_element(load.begin(), load.end()) - load.begin());
      load[rank] += piece.cost;
      dealt_[rank].push_back(piece);
    }
    return *std::max_element(load.begin(), load.end());
  }

  // Cut sequences lie first among the gathered rows, at the same place on every rank; behind them
  // come each rank's own.
  TokenSplit build(std::size_t cuts) {
    TokenSplit split;
    split.ranks.resize(dealt_.size());
    split.gathers = cuts > 0;
    std::vector<std::int32_t> shared_row(count(), -1);
    std::int32_t shared_rows = 0;
    for (std::size_t k = 0; k < cuts; ++k) {
      shared_row[longest_first_[k]] = shared_rows;
      shared_rows += seqlen(longest_first_[k]);
    }
    for (std::size_t rank = 0; rank < dealt_.size(); ++rank) {
      std::vector<Piece>& own = dealt_[rank];
      std::sort(own.begin(), own.end(), [](const Piece& a, const Piece& b) {
        return a.sequence != b.sequence ? a.sequence < b.sequence : a.begin < b.begin;
      });
      std::int32_t row = shared_rows;
      for (const Piece& piece : own) {
        const std::int32_t shared = shared_row[piece.sequence];
        append(split.ranks[rank], piece, shared < 0 ? row : shared, shared >= 0);
        row += shared < 0 ? piece.end : 0;
      }
      split.gathered_rows = std::max<std::int64_t>(split.gathered_rows, row);
      if (!split.gathers) {
        split.ranks[rank].segments.clear();
        split.ranks[rank].kv_rows.clear();
      }
    }
    return split;
  }

  void append(TokenShare& share, const Piece& piece, std::int32_t first_kv, bool shared) const {
    const auto ids = batch_.input_ids.subspan(
        static_cast<std::size_t>(batch_.cu_seqlens[piece.sequence] + piece.begin),
        static_cast<std::size_t>(piece.end - piece.begin));
    share.input_ids.insert(share.input_ids.end(), ids.begin(), ids.end());
    share.cu_seqlens.push_back(static_cast<std::int32_t>(share.input_ids.size()));
    const bool ends = piece.end == seqlen(piece.sequence);
    share.segments.push_back({piece.begin, first_kv, ends});
    for (std::int32_t row = first_kv + piece.begin; row < first_kv + piece.end; ++row) {
      share.kv_rows.push_back(shared ? row : -1 - row);
    }
    if (ends) share.sequences.push_back(static_cast<std::int32_t>(piece.sequence));
  }

  const kernels::PackedBatchView& batch_;
  const TokenSplitOptions& options_;
  std::vector<std::size_t> longest_first_;
  std::vector<std::vector<Piece>> dealt_;  // of each rank
};

}  // namespace

double attention_pair_cost(const ModelConfig& config) {
  constexpr double kAttentionRate = 0.75;
  const double pair = 4.0 * static_cast<double>(config.q_width());
  return pair / kAttentionRate / (2.0 * static_cast<double>(config.linear_parameters_per_layer()));
}

TokenSplit split_tokens(const kernels::PackedBatchView& batch, const TokenSplitOptions& options) {
  CHECK(options.size >= 1 && batch.num_sequences() >= 1 && batch.segments.empty());
  TokenSplit split = Splitter(batch, options).run();
  const std::int64_t most = split_tokens_per_rank_max(batch.total_tokens(), options.size);
  const bool fits = std::all_of(split.ranks.begin(), split.ranks.end(), [&](const TokenShare& s) {
    return static_cast<std::int64_t>(s.input_ids.size()) <= most;
  });
  if (fits) return split;
  // Few expensive tokens here and many cheap ones there would not fit: balance tokens alone.
  TokenSplitOptions by_tokens = options;
  by_tokens.pair_cost = 0;
  return Splitter(batch, by_tokens).run();
}

std::int64_t split_tokens_per_rank_max(std::int64_t total, int size) {
  return total / size + total / size / 4 + 2 * kSegmentAlignment;
}

}  // namespace tessera::worker
