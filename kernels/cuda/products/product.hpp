#pragma once

#include <cstdint>

#include "kernels/cuda/base/bf16.hpp"

namespace tessera::kernels::cuda {

// One matrix product f(in * W^T) as every way through it takes it: cuBLASLt's (gemm.hpp), our own
// with work in its epilogue (sm90_gemm.hpp) and our own of few rows (sm90_small_gemm.hpp). Sums are
// float32, run over k in order and are rounded to bf16 before f, so all ways give the same bits,
// for every row whatever the number of rows.
struct Product {
  enum class Form : std::uint8_t {
    kStore,   // out [rows, n] = product
    kAdd,     // out [rows, n] += product
    kSwiglu,  // out [rows, n / 2] as launch_swiglu has it, the weight's rows being its columns
  };
  Form form = Form::kStore;
  Bf16* out = nullptr;
  const Bf16* in = nullptr;             // [rows, k]
  const Bf16* weight = nullptr;         // [n, k]
  const float* mean_squares = nullptr;  // [rows], see rows/rows.hpp; where f normalises rows
  std::int64_t rows = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
};

}  // namespace tessera::kernels::cuda
