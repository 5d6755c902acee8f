#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tessera::kernels::cpu {

// One team member's share of a batch. Token rows and last-token rows (one per sequence) are each
// cut into consecutive ranges; a sequence's last row belongs to whoever owns its last token.
struct Share {
  std::int64_t token_begin = 0, token_end = 0;
  std::int64_t sequence_begin = 0, sequence_end = 0;  // rows of last tokens
  std::int64_t whole_begin = 0, whole_end = 0;        // sequences with all of their tokens here
};

struct Partition {
  std::vector<Share> shares;                // one per member
  std::vector<std::int64_t> cut_sequences;  // those with tokens in more than one share, rising
};

struct PartitionOptions {
  int members = 1;
  double square_cost = 0;  // cost of a token per key it sees, a token's own cost being 1
  std::int64_t tokens_per_member_min = 8;  // fewer than this are not worth a second pass of weights
};

// Cuts a batch for even cost len + square_cost * len^2 / 2 per sequence. A cut falls between two
// sequences where that leaves the shares within 2 % of even, inside one otherwise: then the members
// must meet around attention, which the backend shares out by heads. Pure.
Partition partition_batch(std::span<const std::int32_t> cu_seqlens,
                          const PartitionOptions& options);

}  // namespace tessera::kernels::cpu
