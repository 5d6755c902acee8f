#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "worker/engine/engine.hpp"

namespace tessera::worker {

using Ids = std::vector<std::int32_t>;

struct Packed {
  Ids ids;
  Ids cu_seqlens = {0};
  kernels::PackedBatchView view() const { return {.input_ids = ids, .cu_seqlens = cu_seqlens}; }
};

inline Packed pack(const std::vector<Ids>& sequences) {
  Packed packed;
  for (const Ids& sequence : sequences) {
    packed.ids.insert(packed.ids.end(), sequence.begin(), sequence.end());
    packed.cu_seqlens.push_back(static_cast<std::int32_t>(packed.ids.size()));
  }
  return packed;
}

inline std::vector<std::vector<float>> embed(Engine& engine, const std::vector<Ids>& sequences,
                                             int slot = 0) {
  engine.enqueue(slot, pack(sequences).view());
  engine.wait(slot);
  const auto hidden = static_cast<std::size_t>(engine.info().hidden_size);
  std::vector<std::vector<float>> vectors;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    EXPECT_EQ(engine.finite(slot)[i], 1);
    const auto row = engine.vectors(slot).subspan(i * hidden, hidden);
    vectors.emplace_back(row.begin(), row.end());
  }
  return vectors;
}

inline double cosine(const std::vector<float>& a, const std::vector<float>& b) {
  double dot = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    dot += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return dot / std::sqrt(aa * bb);
}

inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  }
  return largest;
}

}  // namespace tessera::worker
