#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/products/product.hpp"

namespace tessera::kernels::cuda {

// Matrix products of a few rows on Hopper, bound by one read of the weight: for single queries.
// Any form.
inline constexpr std::int64_t kSmallGemmRowsMax = 64;
bool small_gemm_supports(int compute_capability, std::int64_t rows, std::int64_t n, std::int64_t k);
// Of more rows in parts of 64. Worth timing where k is long and n short: a large product's tiles
// then leave most SMs without work.
inline constexpr std::int64_t kPartedGemmRowsMax = 128;
bool parted_gemm_supports(int compute_capability, std::int64_t rows, std::int64_t n,
                          std::int64_t k);
void launch_small_gemm(const Product& product, int num_sms, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
