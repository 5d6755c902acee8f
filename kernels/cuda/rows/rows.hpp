#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/base/bf16.hpp"

// Launchers of the kernels that work on rows and move memory rather than multiply matrices; one .cu
// file each.
// Activations are bf16 and row-major, arithmetic is float32, all pointers are 16-byte aligned
// device addresses, widths are multiples of 8. Nothing is allocated; a launch error throws
// FatalError. Each row's result depends on that row alone, bit for bit, whatever the number of
// rows.
namespace tessera::kernels::cuda {

// out[t] = table[ids[t]]. Moves 4 bytes an element.
void launch_embedding(Bf16* out, const Bf16* table, const std::int32_t* ids, std::int64_t rows,
                      std::int64_t hidden, cudaStream_t stream);

// RMSNorm in front of a product is x / sqrt(mean(x^2) + eps) * norm weight. Its weight is
// multiplied into the matrix at start (launch_scale_columns), and what follows the product divides
// the rows by sqrt(m), m = mean(x^2) + eps, as given in `mean_squares` [rows] float32. Normed rows
// are never written.

// out[r] = mean(x[r]^2) + eps. Moves 2 bytes an element.
void launch_mean_squares(float* out, const Bf16* x, std::int64_t rows, std::int64_t hidden,
                         float eps, cudaStream_t stream);

// weight[r][c] *= norm[c], rounded to bf16.
void launch_scale_columns(Bf16* weight, const float* norm, std::int64_t rows, std::int64_t cols,
                          cudaStream_t stream);

// Cosines and sines of position * theta^(-2 i / 128), computed in float64 and kept in float32:
// table[position] = cos [64] | sin [64].
void launch_rope_table(float* table, std::int64_t positions, double theta, cudaStream_t stream);

// In place over heads of width 128 that lie one behind the other in each row, the products of rows
// that are yet to be normalised: RMSNorm with `q_norm` for the first num_q heads and `k_norm` for
// the num_k behind them, then rotation of the pairs (i, i + 64) by the angle of the row's position;
// the num_v heads behind those are divided by sqrt(m). (RMSNorm of a head divides by sqrt(m)
// anyway, if its eps is eps * m.) Moves 4 bytes an element.
struct QkNormRopeArguments {
  Bf16* heads = nullptr;
  std::int64_t row_stride = 0;  // in elements
  std::int64_t rows = 0;
  int num_q = 0;
  int num_k = 0;
  int num_v = 0;
  const float* q_norm = nullptr;            // [128]
  const float* k_norm = nullptr;            // [128]
  const float* mean_squares = nullptr;      // [rows]
  const std::int32_t* positions = nullptr;  // [rows]
  const float* rope_table = nullptr;
  float eps = 1e-6F;
};
void launch_qk_norm_rope(const QkNormRopeArguments& arguments, cudaStream_t stream);

// Gate and up columns alternate in groups of this many, so that both halves of a product lie in one
// thread's registers, here and in a fused matrix product.
inline constexpr int kGateUpGroup = 8;

// out[r, c] = silu(gate) * up from gate_up [rows, 2 * intermediate], both divided by sqrt(m) of
// their row. Moves 6 bytes an output.
void launch_swiglu(Bf16* out, const Bf16* gate_up, const float* mean_squares, std::int64_t rows,
                   std::int64_t intermediate, cudaStream_t stream);

// out[i] = x[rows_of_last[i]].
void launch_gather_rows(Bf16* out, const Bf16* x, const std::int32_t* rows_of_last,
                        std::int64_t count, std::int64_t width, cudaStream_t stream);

// vectors[i] = RMSNorm(x[i]) * weight in float32, or its unit vector; finite[i] = 0 where a value
// is NaN or Inf or the norm is 0 (the vector is then unspecified).
void launch_pool(float* vectors, std::uint8_t* finite, const Bf16* x, const float* weight,
                 std::int64_t rows, std::int64_t hidden, float eps, bool unit, cudaStream_t stream);

}  // namespace tessera::kernels::cuda
