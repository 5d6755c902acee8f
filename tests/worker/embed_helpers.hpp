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

// Lets an express batch overtake two others after each of several numbers of pieces: all vectors
// are, bit for bit, what the engine gives for the same batches one after the other.
inline void expect_same_bits_overtaken(Engine& engine, const std::vector<Ids>& batch,
                                       const std::vector<Ids>& express,
                                       const std::vector<int>& after_pieces = {1, 2, 5, 8}) {
  const int express_slot = engine.slots();
  const auto vectors_of = [&](int slot) {
    return std::vector<float>(engine.vectors(slot).begin(), engine.vectors(slot).end());
  };
  embed(engine, batch);
  const std::vector<float> expected = vectors_of(0);
  embed(engine, express);
  const std::vector<float> expected_express = vectors_of(0);
  for (const int pieces : after_pieces) {
    engine.enqueue(0, pack(batch).view());
    engine.enqueue(1, pack(batch).view());
    int asked = 0;
    const bool done = engine.wait_unless(0, [&] { return ++asked > pieces; });
    EXPECT_FALSE(done) << "the batch has too few pieces";
    engine.enqueue(express_slot, pack(express).view());
    engine.wait(express_slot);
    EXPECT_EQ(vectors_of(express_slot), expected_express) << pieces;
    for (const int slot : {0, 1}) {
      engine.wait(slot);
      EXPECT_EQ(vectors_of(slot), expected) << pieces;
    }
  }
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
