#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <set>
#include <tuple>

#include "kernels/cuda/base/resources.hpp"

namespace tessera::kernels::cuda {

// A way through a product other than cuBLASLt's with the kernel behind it.
enum class FusedKind : std::uint8_t {
  kHeads,   // QK-norm and RoPE in the epilogue
  kSwiglu,  // SwiGLU in the epilogue
  kSum,     // a sum of our product instead of cuBLASLt's
  kParts,   // a sum of few rows, by the product of few rows in two parts
};

// For which row counts a fused product is faster than the product and its kernel apart, as timed at
// start. Both give the same bits, so the choice may fall differently on every start. Owned by the
// device's thread.
class FusedChoice {
 public:
  FusedChoice();

  // Times both ways for every bucket of rows up to max_rows. Blocks.
  struct Shape {
    FusedKind kind = FusedKind::kHeads;
    std::int64_t n = 0;
    std::int64_t k = 0;
    std::int64_t max_rows = 0;
  };
  using Run = std::function<void(std::int64_t rows)>;
  void time(const Shape& shape, const Run& fused, const Run& apart, cudaStream_t stream);

  // False for what was not timed.
  bool is_faster(FusedKind kind, std::int64_t n, std::int64_t k, std::int64_t rows) const;

 private:
  float median_us(const Run& run, std::int64_t rows, cudaStream_t stream) const;

  using Key = std::tuple<FusedKind, std::int64_t, std::int64_t, std::int64_t>;  // n, k, bucket
  std::set<Key> faster_;
  Event started_;
  Event stopped_;
};

}  // namespace tessera::kernels::cuda
