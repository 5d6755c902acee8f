#include "kernels/cpu/partition.hpp"

#include <algorithm>
#include <cmath>

#include "common/check.hpp"

namespace tessera::kernels::cpu {
namespace {

constexpr double kUnevenMax = 0.02;  // of a share

class Costs {
 public:
  Costs(std::span<const std::int32_t> cu_seqlens, double square_cost) : cu_seqlens_(cu_seqlens) {
    before_.push_back(0);
    for (std::size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
      const double len = cu_seqlens[i + 1] - cu_seqlens[i];
      before_.push_back(before_.back() + len + square_cost * len * len / 2);
    }
  }

  double total() const { return before_.back(); }

  // The token row at which the batch's cost reaches `cost`: a sequence's border if one is near.
  // Inside a sequence cost counts evenly, because its attention is shared out by heads.
  std::int64_t row_at(double cost, double slack) const {
    const auto above = std::lower_bound(before_.begin(), before_.end(), cost);
    const auto i = static_cast<std::size_t>(std::max<std::ptrdiff_t>(above - before_.begin(), 1));
    if (i >= before_.size() || before_[i] - cost <= slack) {
      return cu_seqlens_[std::min(i, before_.size() - 1)];
    }
    if (cost - before_[i - 1] <= slack) {
      return cu_seqlens_[i - 1];
    }
    const double inside = (cost - before_[i - 1]) / (before_[i] - before_[i - 1]);
    const double len = cu_seqlens_[i] - cu_seqlens_[i - 1];
    return cu_seqlens_[i - 1] + static_cast<std::int64_t>(std::llround(inside * len));
  }

 private:
  std::span<const std::int32_t> cu_seqlens_;
  std::vector<double> before_;  // cost of all sequences before the i-th
};

}  // namespace

Partition partition_batch(std::span<const std::int32_t> cu_seqlens,
                          const PartitionOptions& options) {
  CHECK(cu_seqlens.size() >= 2 && options.members > 0);
  const std::int64_t tokens = cu_seqlens.back();
  const auto useful = static_cast<int>(
      std::clamp<std::int64_t>(tokens / options.tokens_per_member_min, 1, options.members));
  const Costs costs(cu_seqlens, options.square_cost);
  const double even = costs.total() / useful;
  Partition partition;
  const auto sequences = static_cast<std::int64_t>(cu_seqlens.size()) - 1;
  std::int64_t row = 0, sequence = 0;
  for (int member = 0; member < options.members; ++member) {
    Share share{.token_begin = row, .sequence_begin = sequence};
    row = member + 1 >= useful
              ? tokens
              : std::max(row, costs.row_at(even * (member + 1), even * kUnevenMax));
    const auto border = std::upper_bound(cu_seqlens.begin() + 1, cu_seqlens.end(), row);
    sequence = std::min<std::int64_t>(border - cu_seqlens.begin() - 1, sequences);
    share.token_end = row;
    share.sequence_end = sequence;
    share.whole_end = sequence;
    share.whole_begin = share.sequence_begin;
    if (share.whole_begin < share.whole_end &&
        cu_seqlens[static_cast<std::size_t>(share.whole_begin)] < share.token_begin) {
      ++share.whole_begin;  // Its first tokens are in an earlier share.
    }
    partition.shares.push_back(share);
    const bool cut = row < tokens && cu_seqlens[static_cast<std::size_t>(sequence)] != row;
    if (cut && (partition.cut_sequences.empty() || partition.cut_sequences.back() != sequence)) {
      partition.cut_sequences.push_back(sequence);
    }
  }
  return partition;
}

}  // namespace tessera::kernels::cpu
