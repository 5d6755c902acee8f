#include "kernels/cuda/attention/attention_tiles.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "common/check.hpp"

namespace tessera::kernels::cuda {
namespace {

struct TileList {
  AttentionTileHeader header;
  AttentionTileCounts counts;
  std::vector<AttentionTile> tiles;
};

std::vector<std::int32_t> prefix_sums(const std::vector<std::int32_t>& seqlens) {
  std::vector<std::int32_t> sums{0};
  for (const std::int32_t n : seqlens) sums.push_back(sums.back() + n);
  return sums;
}

TileList build(const AttentionPlan& plan, const std::vector<std::int32_t>& seqlens) {
  const std::vector<std::int32_t> cu_seqlens = prefix_sums(seqlens);
  std::vector<std::byte> bytes(
      attention_tiles_bytes(plan, cu_seqlens.back(), static_cast<std::int64_t>(seqlens.size())));
  TileList list;
  list.counts = build_attention_tiles(plan, cu_seqlens, bytes);
  std::memcpy(&list.header, bytes.data(), sizeof(list.header));
  list.tiles.resize(static_cast<std::size_t>(list.counts.num_long + list.counts.num_short));
  std::memcpy(list.tiles.data(), bytes.data() + sizeof(list.header),
              list.tiles.size() * sizeof(AttentionTile));
  return list;
}

AttentionPlan plan_of(std::int64_t q_heads, std::int64_t kv_heads) {
  return plan_attention({.num_q_heads = q_heads, .num_kv_heads = kv_heads}, 80, 108);
}

// Every (sequence, head, position) lies in exactly one tile, of the right kind.
void expect_exact_cover(const AttentionPlan& plan, const std::vector<std::int32_t>& seqlens) {
  const TileList list = build(plan, seqlens);
  EXPECT_EQ(list.header.num_long, list.counts.num_long);
  EXPECT_EQ(list.header.num_short, list.counts.num_short);
  EXPECT_EQ(list.header.next, 0);
  EXPECT_EQ(list.header.finished, 0);

  std::map<std::tuple<std::int32_t, std::int32_t, std::int32_t>, int> covered;
  for (std::size_t i = 0; i < list.tiles.size(); ++i) {
    const AttentionTile& tile = list.tiles[i];
    const bool is_long = i < static_cast<std::size_t>(list.counts.num_long);
    ASSERT_EQ(is_long, tile.seqlen > plan.short_max_seqlen);
    const int positions = is_long ? plan.long_positions : plan.short_positions;
    ASSERT_EQ(tile.position % positions, 0);
    ASSERT_EQ(tile.q_head % plan.heads, 0);
    ASSERT_LT(tile.position, tile.seqlen);
    EXPECT_EQ(tile.first_q, tile.first_kv);
    ++covered[{tile.first_q, tile.q_head, tile.position}];
  }
  std::size_t expected = 0;
  std::int32_t first_token = 0;
  for (const std::int32_t seqlen : seqlens) {
    const int positions =
        seqlen > plan.short_max_seqlen ? plan.long_positions : plan.short_positions;
    for (int head = 0; head < plan.shape.num_q_heads; head += plan.heads) {
      for (std::int32_t position = 0; position < seqlen; position += positions, ++expected) {
        ASSERT_EQ((covered[{first_token, head, position}]), 1);
      }
    }
    first_token += seqlen;
  }
  EXPECT_EQ(covered.size(), expected);
}

TEST(AttentionTiles, CoverEveryRowOnce) {
  for (const auto& [q_heads, kv_heads] :
       {std::pair{32, 8}, {16, 8}, {4, 1}, {4, 2}, {2, 1}, {8, 8}, {6, 2}, {64, 2}}) {
    const AttentionPlan plan = plan_of(q_heads, kv_heads);
    expect_exact_cover(plan, {1});
    expect_exact_cover(plan, {128, 129});
    expect_exact_cover(plan, {2048, 1, 511, 0, 64, 128, 63, 4097, 2, 300});
  }
}

TEST(AttentionTiles, CoverRandomBatchesWithinTheBounds) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::int32_t> seqlens(1 + random() % 40);
    for (std::int32_t& n : seqlens) n = static_cast<std::int32_t>(random() % 400);
    const AttentionPlan plan = plan_of(32, 8);
    expect_exact_cover(plan, seqlens);
    const TileList list = build(plan, seqlens);
    const AttentionTileCounts bounds = max_attention_tiles(
        plan, prefix_sums(seqlens).back(), static_cast<std::int64_t>(seqlens.size()));
    EXPECT_LE(list.counts.num_long, bounds.num_long);
    EXPECT_LE(list.counts.num_short, bounds.num_short);
  }
}

TEST(AttentionTiles, LongestComeFirstWhileTheKeysFitInTheCache) {
  const TileList list = build(plan_of(32, 8), {700, 2048, 900});
  for (std::size_t i = 1; i < list.tiles.size(); ++i) {
    EXPECT_GE(list.tiles[i - 1].position, list.tiles[i].position);
  }
}

TEST(AttentionTiles, OneLongSequenceGoesHeadByHead) {
  const TileList list = build(plan_of(32, 8), {65536});
  for (std::size_t i = 1; i < list.tiles.size(); ++i) {
    EXPECT_GE(list.tiles[i].q_head, list.tiles[i - 1].q_head);
  }
}

TEST(AttentionTiles, PacksTheHeadsThatShareKeys) {
  EXPECT_EQ(plan_of(32, 8).heads, 4);
  EXPECT_EQ(plan_of(16, 8).heads, 2);
  EXPECT_EQ(plan_of(8, 8).heads, 1);
  EXPECT_EQ(plan_of(6, 2).heads, 1);
  EXPECT_EQ(plan_of(12, 2).heads, 2);
}

// Two GPUs that split one sequence and keep a short one each: together their tiles are those of the
// whole batch, each with its queries at the GPU's own rows and its keys at the gathered ones.
TEST(AttentionTiles, PartsOfASequenceCoverItTogether) {
  const AttentionPlan plan = plan_of(32, 8);
  const std::int32_t seqlen = 1000;
  const std::vector<std::vector<std::int32_t>> cu_seqlens{{0, 256, 488, 500}, {0, 512, 600}};
  const std::vector<std::vector<Segment>> segments{
      {{.position = 0, .first_kv = 0, .ends = false}, {.position = 768}, {.first_kv = 1000}},
      {{.position = 256, .ends = false}, {.first_kv = 1000}}};
  std::map<std::pair<std::int32_t, std::int32_t>, int> covered;
  for (std::size_t gpu = 0; gpu < 2; ++gpu) {
    const std::int32_t tokens = cu_seqlens[gpu].back();
    const auto parts = static_cast<std::int64_t>(segments[gpu].size());
    std::vector<std::byte> bytes(attention_tiles_bytes(plan, tokens, parts));
    const AttentionTileCounts counts =
        build_attention_tiles(plan, cu_seqlens[gpu], segments[gpu], bytes);
    const AttentionTileCounts bounds = max_attention_tiles(plan, tokens, parts);
    EXPECT_LE(counts.num_long, bounds.num_long);
    EXPECT_LE(counts.num_short, bounds.num_short);
    const auto* tiles = reinterpret_cast<const AttentionTile*>(bytes.data() + 64);
    for (int i = 0; i < counts.num_long + counts.num_short; ++i) {
      const AttentionTile& tile = tiles[i];
      const bool whole = tile.first_kv == 1000;
      EXPECT_EQ(i >= counts.num_long, whole);
      EXPECT_LT(tile.position, tile.seqlen);
      EXPECT_GE(tile.first_q + tile.position, 0);
      EXPECT_LE(tile.first_q + tile.seqlen, tokens);
      if (!whole) ++covered[{tile.position, tile.q_head}];
    }
  }
  for (std::int32_t position = 0; position < seqlen; position += plan.long_positions) {
    for (std::int32_t head = 0; head < 32; head += plan.heads) {
      EXPECT_EQ((covered[{position, head}]), 1) << position;
    }
  }
}

TEST(AttentionTiles, RefusesOldGpus) {
  EXPECT_THROW(plan_attention({.num_q_heads = 4, .num_kv_heads = 2}, 75, 40), FatalError);
}

}  // namespace
}  // namespace tessera::kernels::cuda
