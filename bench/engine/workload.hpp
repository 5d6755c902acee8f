#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/types.hpp"

namespace tessera::bench {

// A named list of text lengths in tokens.
struct Workload {
  std::string name;
  std::vector<std::int32_t> lengths;
  std::int64_t tokens() const;
};

// The five that the README's tables use: query (4096 texts of 6-96 tokens), passage (1024 texts of
// 16-1024, mean 256), doc2k, long8k, long32k. Drawn from a fixed seed.
std::vector<Workload> standard_workloads();
// One workload a line: "name length length ...", so that several programs run the same.
std::vector<Workload> read_workloads(const std::string& path);
void write_workloads(const std::string& path, const std::vector<Workload>& workloads);

// Texts packed for one pass, with ids that differ from text to text.
struct PackedBatch {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> cu_seqlens = {0};
  kernels::PackedBatchView view() const { return {.input_ids = ids, .cu_seqlens = cu_seqlens}; }
  void add(const std::vector<std::int32_t>& text);
};

// Sorted by length and cut where the budget is full.
std::vector<PackedBatch> pack(const Workload& workload, std::int64_t max_tokens,
                              std::int64_t max_sequences, std::int64_t vocab_size);

}  // namespace tessera::bench
