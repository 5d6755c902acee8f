#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/types.hpp"

namespace tessera::kernels::cuda {

// How the attention of one device and one shape is cut into tiles; fixed at start. A tile is the
// work of one thread block: `heads` query heads that share a kv head, times some positions of one
// sequence, times all keys up to the last of these positions. Packing query heads that share keys
// into one tile reads the keys once for all of them and keeps the tile full on short sequences.
//
// Sequences of at most `short_max_seqlen` tokens take tiles of their own ("short"), all others
// "long" ones. The choice depends on the sequence alone, so that its result does not depend on
// its neighbours in the batch.
struct AttentionPlan {
  enum class Form : std::uint8_t {
    kMma,    // sm_80 and later
    kWgmma,  // sm_90 only
  };
  AttentionShape shape;
  Form form = Form::kMma;
  int num_sms = 0;
  int heads = 1;            // a power of two that divides num_q_heads / num_kv_heads
  int long_positions = 0;   // of one long tile
  int short_positions = 0;  // of one short tile
  int short_max_seqlen = 0;
};

// `compute_capability` is major * 10 + minor. Throws FatalError for a GPU below sm_80; CHECKs the
// shape: head_dim 128, num_q_heads a multiple of num_kv_heads.
AttentionPlan plan_attention(const AttentionShape& shape, int compute_capability, int num_sms);

// A part of a sequence (see Segment) has its queries and its keys at different rows.
struct alignas(16) AttentionTile {
  std::int32_t first_q = 0;   // row of q and out at position 0; below 0 if a part starts later
  std::int32_t first_kv = 0;  // row of k and v at position 0
  std::int32_t seqlen = 0;    // positions from here on have no query; keys end here too
  std::int32_t position = 0;  // first one of the tile, in the sequence
  std::int32_t q_head = 0;    // first one of the tile
  std::int32_t reserved[3] = {};
};
static_assert(sizeof(AttentionTile) == 32);

// What lies in device memory before the tiles. The long tiles come first, then the short ones.
// `next` and `finished` belong to the kernels, which leave them at 0.
struct AttentionTileHeader {
  std::int32_t num_long = 0;
  std::int32_t num_short = 0;
  std::int32_t next = 0;
  std::int32_t finished = 0;
  std::int32_t reserved[12] = {};
};
static_assert(sizeof(AttentionTileHeader) == 64);

// Numbers of tiles as the host knows them at a launch: exact, or upper bounds when the launch is
// recorded in a graph and replayed over other batches.
struct AttentionTileCounts {
  std::int32_t num_long = 0;
  std::int32_t num_short = 0;
};

// Upper bounds over all batches of at most so many tokens and sequences.
AttentionTileCounts max_attention_tiles(const AttentionPlan& plan, std::int64_t max_tokens,
                                        std::int64_t max_sequences);

// Bytes of host memory that build_attention_tiles needs for any such batch: header, tiles and
// scratch. The device's copy needs no more.
std::size_t attention_tiles_bytes(const AttentionPlan& plan, std::int64_t max_tokens,
                                  std::int64_t max_sequences);

// Bytes of the list in use, to be copied to the device.
std::size_t attention_tiles_bytes(const AttentionTileCounts& counts);

// Writes the list of one batch into host memory `out` (64-byte aligned, at least
// attention_tiles_bytes(plan, tokens, sequences) long). It serves all layers. Order: tiles whose
// keys fit in the L2 cache together follow one another, and among them the longest come first.
// `segments`: as in PackedBatchView; a part counts as long or short by where it ends.
AttentionTileCounts build_attention_tiles(const AttentionPlan& plan,
                                          std::span<const std::int32_t> cu_seqlens,
                                          std::span<const Segment> segments,
                                          std::span<std::byte> out);
inline AttentionTileCounts build_attention_tiles(const AttentionPlan& plan,
                                                 std::span<const std::int32_t> cu_seqlens,
                                                 std::span<std::byte> out) {
  return build_attention_tiles(plan, cu_seqlens, {}, out);
}

}  // namespace tessera::kernels::cuda
