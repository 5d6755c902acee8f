// At start: where fused products are faster than a product and its kernel apart, and products in
// parts than whole ones. On random inputs, scratch memory and whatever numbers lie in the tables.

#include <algorithm>

#include "kernels/cuda/backend/cuda_backend.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/random.hpp"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/products/sm90_small_gemm.hpp"

namespace tessera::kernels::cuda {

void CudaBackend::time_fused_products(const BatchLimits& limits, const EncoderShape& shape) {
  for (Gemm::Tuning t : to_tune_) {
    if (t.accumulate) time_parted_sum(t);
    const bool is_qkv = !t.accumulate && t.n == shape.attention.qkv_width();
    const bool is_gate_up = !t.accumulate && t.n == 2 * shape.intermediate_size;
    if (!(t.accumulate || is_qkv || is_gate_up) ||
        !fused_gemm_supports(compute_capability(), t.n, t.k)) {
      continue;
    }
    const auto row_bytes = static_cast<std::size_t>(t.k + t.n) * sizeof(Bf16);
    t.max_rows =
        std::min(limits.max_tokens, static_cast<std::int64_t>(scratch_bytes() / row_bytes));
    const auto rows = static_cast<std::size_t>(t.max_rows);
    DeviceBuffer in(rows * static_cast<std::size_t>(t.k) * sizeof(Bf16), "timing products");
    DeviceBuffer out(rows * static_cast<std::size_t>(t.n) * sizeof(Bf16), "timing products");
    launch_fill_random(in.as<Bf16>(), t.max_rows * t.k, 1, compute_.get());
    if (t.accumulate) {
      time_fused_sum(t, out.as<Bf16>(), in.as<Bf16>());
      continue;
    }
    launch_mean_squares(squares_->as<float>(), in.as<Bf16>(), t.max_rows, t.k, 0, compute_.get());
    if (is_qkv) {
      time_fused_heads(t, out.as<Bf16>(), in.as<Bf16>(), shape.attention);
    } else {
      time_fused_swiglu(t, out.as<Bf16>(), in.as<Bf16>());
    }
  }
}

// A sum of few rows in parts beside cuBLASLt's.
void CudaBackend::time_parted_sum(const Gemm::Tuning& t) {
  constexpr std::int64_t kRows = kPartedGemmRowsMax;
  if (!parted_gemm_supports(compute_capability(), kRows, t.n, t.k)) return;
  DeviceBuffer in(static_cast<std::size_t>(kRows * t.k) * sizeof(Bf16), "timing products");
  DeviceBuffer out(static_cast<std::size_t>(kRows * t.n) * sizeof(Bf16), "timing products");
  launch_fill_random(in.as<Bf16>(), kRows * t.k, 1, compute_.get());
  const auto parted = [&](std::int64_t rows) {
    launch_small_gemm({.form = SmallGemmArguments::Form::kAdd,
                       .out = out.as<Bf16>(),
                       .in = in.as<Bf16>(),
                       .weight = t.weight,
                       .rows = rows,
                       .n = t.n,
                       .k = t.k},
                      properties_.multiProcessorCount, compute_.get());
  };
  time_sum({.kind = FusedKind::kParts, .n = t.n, .k = t.k, .max_rows = kRows}, t.weight,
           out.as<Bf16>(), in.as<Bf16>(), parted);
}

FusedGemmArguments CudaBackend::fused_probe(const Gemm::Tuning& t, Bf16* out, const Bf16* in,
                                            std::int64_t rows) const {
  return {.out = out,
          .in = in,
          .weight = t.weight,
          .mean_squares = squares_->as<float>(),
          .rows = rows,
          .n = t.n,
          .k = t.k};
}

// A sum of ours, into out, beside cuBLASLt's.
void CudaBackend::time_sum(const FusedChoice::Shape& shape, const Bf16* weight, Bf16* out,
                           const Bf16* in, const FusedChoice::Run& ours) {
  const auto library = [&](std::int64_t rows) {
    gemm_.multiply({.out = out,
                    .in = in,
                    .weight = weight,
                    .rows = rows,
                    .n = shape.n,
                    .k = shape.k,
                    .accumulate = true},
                   compute_.get());
  };
  cuda_check(cudaMemsetAsync(
      out, 0, static_cast<std::size_t>(shape.max_rows * shape.n) * sizeof(Bf16), compute_.get()));
  fused_.time(shape, ours, library, compute_.get());
}

void CudaBackend::time_fused_sum(const Gemm::Tuning& t, Bf16* out, Bf16* in) {
  const auto fused = [&](std::int64_t rows) {
    launch_sum_gemm(fused_probe(t, out, in, rows), properties_.multiProcessorCount, compute_.get());
  };
  time_sum({.kind = FusedKind::kSum, .n = t.n, .k = t.k, .max_rows = t.max_rows}, t.weight, out, in,
           fused);
}

void CudaBackend::time_fused_swiglu(const Gemm::Tuning& t, Bf16* out, Bf16* in) {
  const auto fused = [&](std::int64_t rows) {
    launch_swiglu_gemm(fused_probe(t, out, in, rows), properties_.multiProcessorCount,
                       compute_.get());
  };
  const auto apart = [&](std::int64_t rows) {
    auto* product = gate_up_->as<Bf16>();
    gemm_.multiply({.out = product, .in = in, .weight = t.weight, .rows = rows, .n = t.n, .k = t.k},
                   compute_.get());
    launch_swiglu(out, product, squares_->as<float>(), rows, t.n / 2, compute_.get());
  };
  fused_.time({.kind = FusedKind::kSwiglu, .n = t.n, .k = t.k, .max_rows = t.max_rows}, fused,
              apart, compute_.get());
}

void CudaBackend::time_fused_heads(const Gemm::Tuning& t, Bf16* out, Bf16* in,
                                   const AttentionShape& heads) {
  const auto num_q = static_cast<int>(heads.num_q_heads);
  const auto num_k = static_cast<int>(heads.num_kv_heads);
  const float* table = rope_table_->as<float>();
  DeviceBuffer positions(static_cast<std::size_t>(t.max_rows) * sizeof(std::int32_t),
                         "timing products");
  cuda_check(cudaMemsetAsync(positions.data(), 0, positions.bytes(), compute_.get()));
  const auto fused = [&](std::int64_t rows) {
    launch_qk_norm_rope_gemm(fused_probe(t, out, in, rows),
                             {.num_q = num_q,
                              .num_k = num_k,
                              .q_norm = table,
                              .k_norm = table,
                              .positions = positions.as<std::int32_t>(),
                              .rope_table = table},
                             properties_.multiProcessorCount, compute_.get());
  };
  const auto apart = [&](std::int64_t rows) {
    gemm_.multiply({.out = out, .in = in, .weight = t.weight, .rows = rows, .n = t.n, .k = t.k},
                   compute_.get());
    launch_qk_norm_rope({.heads = out,
                         .row_stride = t.n,
                         .rows = rows,
                         .num_q = num_q,
                         .num_k = num_k,
                         .num_v = num_k,
                         .q_norm = table,
                         .k_norm = table,
                         .mean_squares = squares_->as<float>(),
                         .positions = positions.as<std::int32_t>(),
                         .rope_table = table},
                        compute_.get());
  };
  fused_.time({.kind = FusedKind::kHeads, .n = t.n, .k = t.k, .max_rows = t.max_rows}, fused, apart,
              compute_.get());
}

}  // namespace tessera::kernels::cuda
