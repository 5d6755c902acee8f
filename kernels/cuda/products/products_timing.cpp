// At start: which of cuBLASLt's algorithms is fastest, where a fused product is faster than the
// product and its kernel apart, and where products in parts than whole ones. On random inputs,
// scratch memory and whatever numbers lie in the tables.

#include <algorithm>

#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/random.hpp"
#include "kernels/cuda/products/products.hpp"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/products/sm90_small_gemm.hpp"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

// Free memory that timing may use for a while.
std::size_t scratch_bytes() {
  std::size_t free = 0;
  std::size_t total = 0;
  cuda_check(cudaMemGetInfo(&free, &total));
  return free > kCodeBytes ? free - kCodeBytes : 0;
}

std::size_t matrix_bytes(std::int64_t rows, std::int64_t cols) {
  return static_cast<std::size_t>(rows * cols) * sizeof(Bf16);
}

}  // namespace

// The encoder's products: every weight loaded, and of qkv the parts that the last layer takes.
std::vector<Gemm::Tuning> Products::tunings(const BatchLimits& limits,
                                            const EncoderShape& shape) const {
  const AttentionShape& heads = shape.attention;
  std::vector<Gemm::Tuning> all;
  for (Gemm::Tuning tuning : to_tune_) {
    tuning.max_rows = limits.max_tokens;
    all.push_back(tuning);
    if (tuning.n == heads.qkv_width() && !tuning.accumulate) {
      tuning.n = 2 * heads.kv_width();
      all.push_back(tuning);
      tuning.n = heads.q_width();
      tuning.max_rows = std::min(limits.max_sequences, tuning.max_rows);
      all.push_back(tuning);
    }
  }
  return all;
}

// The scratch memory is given back before the activations that it stands for are taken.
void Products::tune(const BatchLimits& limits, std::vector<Gemm::Tuning> all) {
  std::erase_if(all, [&](const Gemm::Tuning& tuning) { return gemm_.is_tuned(tuning); });
  if (all.empty()) {
    return;
  }
  std::int64_t widest_in = 0;
  std::int64_t widest_out = 0;
  for (const Gemm::Tuning& tuning : all) {
    widest_in = std::max(widest_in, tuning.k);
    widest_out = std::max(widest_out, tuning.n);
  }
  const std::size_t row_bytes = matrix_bytes(1, widest_in + widest_out);
  const auto rows = std::max<std::int64_t>(
      64, std::min(limits.max_tokens, static_cast<std::int64_t>(scratch_bytes() / row_bytes)));
  DeviceBuffer in(matrix_bytes(rows, widest_in), "timing products");
  DeviceBuffer out(matrix_bytes(rows, widest_out), "timing products");
  // Products of constants draw less power and run faster than those of real numbers.
  launch_fill_random(in.as<Bf16>(), rows * widest_in, 1, stream_);
  launch_fill_random(out.as<Bf16>(), rows * widest_out, 2, stream_);
  for (Gemm::Tuning& tuning : all) {
    tuning.max_rows = std::min(tuning.max_rows, rows);
    gemm_.tune(tuning, out.as<Bf16>(), in.as<Bf16>(), stream_);
  }
  gemm_.save();
}

void Products::load_code(const std::vector<Gemm::Tuning>& products) {
  constexpr std::int64_t kRows = 16;  // that Gemm::load touches
  for (const Gemm::Tuning& t : products) {
    DeviceBuffer in(matrix_bytes(kRows, t.k), "loading products");
    DeviceBuffer out(matrix_bytes(kRows, t.n), "loading products");
    gemm_.load(t, out.as<Bf16>(), in.as<Bf16>(), stream_);
    cuda_check(cudaStreamSynchronize(stream_));
  }
}

void Products::time_fused(const BatchLimits& limits, const EncoderShape& shape,
                          const float* rope_table) {
  for (Gemm::Tuning t : to_tune_) {
    if (t.accumulate) time_parted_sum(t);
    const bool is_qkv = !t.accumulate && t.n == shape.attention.qkv_width();
    const bool is_gate_up = !t.accumulate && t.n == 2 * shape.intermediate_size;
    if (!(t.accumulate || is_qkv || is_gate_up) ||
        !fused_gemm_supports(compute_capability_, t.n, t.k)) {
      continue;
    }
    t.max_rows = std::min(limits.max_tokens,
                          static_cast<std::int64_t>(scratch_bytes() / matrix_bytes(1, t.k + t.n)));
    DeviceBuffer in(matrix_bytes(t.max_rows, t.k), "timing products");
    DeviceBuffer out(matrix_bytes(t.max_rows, t.n), "timing products");
    launch_fill_random(in.as<Bf16>(), t.max_rows * t.k, 1, stream_);
    const Product probe{.out = out.as<Bf16>(),
                        .in = in.as<Bf16>(),
                        .weight = t.weight,
                        .mean_squares = squares_->as<float>(),
                        .n = t.n,
                        .k = t.k};
    if (t.accumulate) {
      time_fused_sum(t, probe);
      continue;
    }
    launch_mean_squares(squares_->as<float>(), in.as<Bf16>(), t.max_rows, t.k, 0, stream_);
    if (is_qkv) {
      time_fused_heads(t, probe, shape.attention, rope_table);
    } else {
      time_fused_swiglu(t, probe);
    }
  }
}

// A sum of few rows in parts beside cuBLASLt's.
void Products::time_parted_sum(const Gemm::Tuning& t) {
  constexpr std::int64_t kRows = kPartedGemmRowsMax;
  if (!parted_gemm_supports(compute_capability_, kRows, t.n, t.k)) return;
  DeviceBuffer in(matrix_bytes(kRows, t.k), "timing products");
  DeviceBuffer out(matrix_bytes(kRows, t.n), "timing products");
  launch_fill_random(in.as<Bf16>(), kRows * t.k, 1, stream_);
  Product probe{.form = Product::Form::kAdd,
                .out = out.as<Bf16>(),
                .in = in.as<Bf16>(),
                .weight = t.weight,
                .n = t.n,
                .k = t.k};
  const auto parted = [&, p = probe](std::int64_t rows) mutable {
    p.rows = rows;
    launch_small_gemm(p, num_sms_, stream_);
  };
  time_sum({.kind = FusedKind::kParts, .n = t.n, .k = t.k, .max_rows = kRows}, probe, parted);
}

// A sum of ours beside cuBLASLt's.
void Products::time_sum(const FusedChoice::Shape& shape, const Product& probe,
                        const FusedChoice::Run& ours) {
  const auto library = [&, p = probe](std::int64_t rows) mutable {
    p.form = Product::Form::kAdd;
    p.rows = rows;
    gemm_.multiply(p, stream_);
  };
  cuda_check(cudaMemsetAsync(probe.out, 0, matrix_bytes(shape.max_rows, shape.n), stream_));
  fused_.time(shape, ours, library, stream_);
}

void Products::time_fused_sum(const Gemm::Tuning& t, const Product& probe) {
  const auto fused = [&, p = probe](std::int64_t rows) mutable {
    p.form = Product::Form::kAdd;
    p.rows = rows;
    launch_fused_gemm(p, num_sms_, stream_);
  };
  time_sum({.kind = FusedKind::kSum, .n = t.n, .k = t.k, .max_rows = t.max_rows}, probe, fused);
}

void Products::time_fused_swiglu(const Gemm::Tuning& t, const Product& probe) {
  const auto fused = [&, p = probe](std::int64_t rows) mutable {
    p.form = Product::Form::kSwiglu;
    p.rows = rows;
    launch_fused_gemm(p, num_sms_, stream_);
  };
  const auto apart = [&, p = probe](std::int64_t rows) mutable {
    p.out = gate_up_->as<Bf16>();
    p.rows = rows;
    gemm_.multiply(p, stream_);
    launch_swiglu(probe.out, p.out, p.mean_squares, rows, t.n / 2, stream_);
  };
  fused_.time({.kind = FusedKind::kSwiglu, .n = t.n, .k = t.k, .max_rows = t.max_rows}, fused,
              apart, stream_);
}

void Products::time_fused_heads(const Gemm::Tuning& t, const Product& probe,
                                const AttentionShape& heads, const float* rope_table) {
  const auto num_q = static_cast<int>(heads.num_q_heads);
  const auto num_k = static_cast<int>(heads.num_kv_heads);
  DeviceBuffer positions(static_cast<std::size_t>(t.max_rows) * sizeof(std::int32_t),
                         "timing products");
  cuda_check(cudaMemsetAsync(positions.data(), 0, positions.bytes(), stream_));
  const auto fused = [&, p = probe](std::int64_t rows) mutable {
    p.rows = rows;
    launch_qk_norm_rope_gemm(p,
                             {.num_q = num_q,
                              .num_k = num_k,
                              .q_norm = rope_table,
                              .k_norm = rope_table,
                              .positions = positions.as<std::int32_t>(),
                              .rope_table = rope_table},
                             num_sms_, stream_);
  };
  const auto apart = [&, p = probe](std::int64_t rows) mutable {
    p.rows = rows;
    gemm_.multiply(p, stream_);
    launch_qk_norm_rope({.heads = p.out,
                         .row_stride = t.n,
                         .rows = rows,
                         .num_q = num_q,
                         .num_k = num_k,
                         .num_v = num_k,
                         .q_norm = rope_table,
                         .k_norm = rope_table,
                         .mean_squares = p.mean_squares,
                         .positions = positions.as<std::int32_t>(),
                         .rope_table = rope_table},
                        stream_);
  };
  fused_.time({.kind = FusedKind::kHeads, .n = t.n, .k = t.k, .max_rows = t.max_rows}, fused, apart,
              stream_);
}

}  // namespace tessera::kernels::cuda
