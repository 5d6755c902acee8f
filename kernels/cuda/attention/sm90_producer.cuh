#pragma once

// What attention_sm90.cu's producer and consumers share, and the producer: it walks over the tiles,
// which it draws from a global counter, and keeps queries, keys and values on their way.

#include "kernels/cuda/attention/attention_device.cuh"
#include "kernels/cuda/ptx/sm90_mbarrier.cuh"
#include "kernels/cuda/ptx/sm90_memory.cuh"
#include "kernels/cuda/ptx/sm90_tma.cuh"

namespace tessera::kernels::cuda::attention_sm90 {

constexpr int kKeys = 128;  // of one block
constexpr int kRows = 64;   // of one warpgroup
constexpr int kConsumers = 2;
constexpr int kStages = 2;
constexpr int kThreads = (1 + kConsumers) * 128;
constexpr int kSwizzleRow = 128;  // bytes; 64 elements
constexpr int kGroupBytes = 8 * kSwizzleRow;
constexpr int kQueryHalf = kRows * kSwizzleRow;  // 64 of the 128 dimensions
constexpr int kQueryBytes = 2 * kQueryHalf;      // of one warpgroup
constexpr int kKeyHalf = kKeys * kSwizzleRow;
constexpr int kKeyBytes = 2 * kKeyHalf;  // K or V of one block

struct __align__(1024) SharedMemory {
  unsigned char queries[kStages][kConsumers][kQueryBytes];
  unsigned char keys[kStages][kKeyBytes];
  unsigned char values[kStages][kKeyBytes];
  AttentionTile tiles[kStages];  // that the queries belong to; seqlen 0 is the end
  std::uint64_t queries_full[kStages], queries_empty[kStages];
  std::uint64_t keys_full[kStages], keys_empty[kStages];
  std::uint64_t values_full[kStages], values_empty[kStages];
};

struct TensorMaps {
  CUtensorMap queries;  // box: 64 dimensions x heads x positions, 64 rows in all
  CUtensorMap keys;     // box: 64 dimensions x 1 head x kKeys or kKeys / 2 positions
};

using Ring = sm90::RingState<kStages>;

__device__ inline std::uint32_t address(const std::uint64_t& barrier) {
  return sm90::shared_address(&barrier);
}

__device__ inline int first_block(const AttentionTile& tile) { return tile.position / kKeys; }

// Whether the first half of the first block holds all keys that the tile needs.
template <bool kShort>
__device__ bool is_narrow(const AttentionTile& tile, int log2_heads) {
  return kShort && tile.position % kKeys + (kConsumers * kRows >> log2_heads) <= kKeys / 2;
}

template <bool kShort>
class Producer {
 public:
  __device__ Producer(const AttentionParameters& p, const TensorMaps& maps, SharedMemory& shared)
      : p_(p),
        maps_(maps),
        shared_(shared),
        num_tiles_(kShort ? p.header->num_short : p.header->num_long),
        tiles_(tiles_of(p.header) + (kShort ? p.header->num_long : 0)) {}

  // The number of the tile after next is asked for while the current tile is loaded, so that
  // neither it nor the tile itself is waited for.
  __device__ void run() {
    int index = static_cast<int>(blockIdx.x);
    int next_index = draw();
    AttentionTile tile = load(index);
    bool pending_values = false;
    while (index < num_tiles_) {
      const AttentionTile next = load(next_index);
      const int after_next = next_index < num_tiles_ ? draw() : next_index;
      load_tile(tile, pending_values);
      pending_values = true;
      tile = next;
      index = next_index;
      next_index = after_next;
    }
    if (pending_values) load_values();
    sm90::mbarrier_wait(address(shared_.queries_empty[query_ring_.stage]), query_ring_.parity ^ 1);
    shared_.tiles[query_ring_.stage].seqlen = 0;
    sm90::mbarrier_arrive(address(shared_.queries_full[query_ring_.stage]));
    finish();
  }

 private:
  __device__ int draw() const {
    return static_cast<int>(gridDim.x) + atomicAdd(&p_.header->next, 1);
  }
  __device__ AttentionTile load(int index) const {
    return index < num_tiles_ ? tiles_[index] : AttentionTile{};
  }

  __device__ void load_tile(const AttentionTile& tile, bool pending_values) {
    load_queries(tile);
    const int kv_head = tile.q_head / p_.group;
    bool narrow = is_narrow<kShort>(tile, p_.log2_heads);
    for (int block = first_block(tile); block >= 0; --block) {
      load_keys(tile, block, kv_head, narrow);
      if (pending_values) load_values();
      pending_values = true;
      values_row_ = tile.first_kv + block * kKeys;
      values_head_ = p_.v_offset / kHeadDim + kv_head;
      values_narrow_ = narrow;
      narrow = false;
    }
  }

  __device__ void load_queries(const AttentionTile& tile) {
    const int stage = query_ring_.stage;
    const std::uint32_t full = address(shared_.queries_full[stage]);
    sm90::mbarrier_wait(address(shared_.queries_empty[stage]), query_ring_.parity ^ 1);
    shared_.tiles[stage] = tile;
    sm90::mbarrier_arrive_expect_tx(full, kConsumers * kQueryBytes);
    const int positions = kRows >> p_.log2_heads;
    for (int i = 0; i < kConsumers; ++i) {
      const std::uint32_t to = sm90::shared_address(shared_.queries[stage][i]);
      const int token = tile.first_q + tile.position + i * positions;
      sm90::tma_load(to, &maps_.queries, full, 0, tile.q_head, token);
      sm90::tma_load(to + kQueryHalf, &maps_.queries, full, 64, tile.q_head, token);
    }
    query_ring_.advance();
  }

  __device__ void load_keys(const AttentionTile& tile, int block, int kv_head, bool narrow) {
    load_block(shared_.keys[key_ring_.stage], shared_.keys_full[key_ring_.stage],
               shared_.keys_empty[key_ring_.stage], key_ring_, p_.k_offset / kHeadDim + kv_head,
               tile.first_kv + block * kKeys, narrow);
  }

  // The values of the block whose keys were loaded one step before.
  __device__ void load_values() {
    load_block(shared_.values[value_ring_.stage], shared_.values_full[value_ring_.stage],
               shared_.values_empty[value_ring_.stage], value_ring_, values_head_, values_row_,
               values_narrow_);
  }

  __device__ void load_block(unsigned char* to, const std::uint64_t& full,
                             const std::uint64_t& empty, Ring& ring, int head, int row,
                             bool narrow) {
    sm90::mbarrier_wait(address(empty), ring.parity ^ 1);
    sm90::mbarrier_arrive_expect_tx(address(full), narrow ? kKeyBytes / 2 : kKeyBytes);
    const std::uint32_t shared = sm90::shared_address(to);
    for (int first = 0; first < (narrow ? kKeys / 2 : kKeys); first += kBoxKeys) {
      const std::uint32_t rows = shared + first * kSwizzleRow;
      sm90::tma_load(rows, &maps_.keys, address(full), 0, head, row + first);
      sm90::tma_load(rows + kKeyHalf, &maps_.keys, address(full), 64, head, row + first);
    }
    ring.advance();
  }

  // The last block of the launch leaves the counters at 0 for the next launch.
  __device__ void finish() const {
    __threadfence();
    if (atomicAdd(&p_.header->finished, 1) == static_cast<int>(gridDim.x) - 1) {
      p_.header->next = 0;
      p_.header->finished = 0;
    }
  }

  static constexpr int kBoxKeys = kShort ? kKeys / 2 : kKeys;
  const AttentionParameters& p_;
  const TensorMaps& maps_;
  SharedMemory& shared_;
  const int num_tiles_;
  const AttentionTile* const tiles_;
  Ring query_ring_, key_ring_, value_ring_;
  int values_row_ = 0, values_head_ = 0;
  bool values_narrow_ = false;
};

}  // namespace tessera::kernels::cuda::attention_sm90
