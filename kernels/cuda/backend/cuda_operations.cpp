// The operations of CudaBackend: what is launched between a batch's start and its end.

#include <vector>

#include "common/check.hpp"
#include "kernels/cuda/attention/attention.hpp"
#include "kernels/cuda/attention/last_attention.hpp"
#include "kernels/cuda/backend/cuda_backend.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/products/sm90_gemm.hpp"
#include "kernels/cuda/products/sm90_small_gemm.hpp"

namespace tessera::kernels::cuda {
namespace {

Bf16* bf16(Buffer& buffer) { return static_cast<Bf16*>(buffer.data()); }
const float* f32(Buffer& buffer) { return static_cast<const float*>(buffer.data()); }
Bf16Weight& bf16_weight(LinearWeight& weight) { return static_cast<Bf16Weight&>(weight); }

}  // namespace

void CudaBackend::embed(Buffer& x, Buffer& table, BatchSlot& slot, std::int64_t hidden) {
  if (!replaying()) {
    CudaSlot& s = cuda_slot(slot);
    launch_embedding(bf16(x), bf16(table), s.input_ids(), s.size().tokens, hidden, stream());
  }
}

// Those that are given, or of its own.
const float* CudaBackend::mean_squares(Buffer& x, std::int64_t rows, std::int64_t hidden,
                                       const RowNorm& norm) {
  if (norm.mean_squares != nullptr) return f32(*norm.mean_squares);
  CHECK(static_cast<std::size_t>(rows) * sizeof(float) <= squares_->bytes());
  launch_mean_squares(squares_->as<float>(), bf16(x), rows, hidden, norm.eps, stream());
  return squares_->as<float>();
}

// out = or += in * (n rows of the weight from first_row on)^T
void CudaBackend::multiply(Bf16* out, Buffer& in, Bf16Weight& weight, std::int64_t first_row,
                           std::int64_t n, std::int64_t rows, bool accumulate) {
  CHECK(first_row + n <= weight.rows());
  const bool parted = accumulate && rows <= kPartedGemmRowsMax &&
                      fused_.is_faster(FusedKind::kParts, n, weight.cols(), rows);
  if (parted || small_gemm_supports(compute_capability(), rows, n, weight.cols())) {
    using Form = SmallGemmArguments::Form;
    launch_small_gemm({.form = accumulate ? Form::kAdd : Form::kStore,
                       .out = out,
                       .in = bf16(in),
                       .weight = weight.row(first_row),
                       .rows = rows,
                       .n = n,
                       .k = weight.cols()},
                      properties_.multiProcessorCount, stream());
    return;
  }
  if (accumulate && fused_.is_faster(FusedKind::kSum, n, weight.cols(), rows)) {
    launch_sum_gemm({.out = out,
                     .in = bf16(in),
                     .weight = weight.row(first_row),
                     .rows = rows,
                     .n = n,
                     .k = weight.cols()},
                    properties_.multiProcessorCount, stream());
    return;
  }
  gemm_.multiply({.out = out,
                  .in = bf16(in),
                  .weight = weight.row(first_row),
                  .rows = rows,
                  .n = n,
                  .k = weight.cols(),
                  .accumulate = accumulate},
                 stream());
}

void CudaBackend::project_heads(Bf16* heads, Buffer& x, Bf16Weight& weight,
                                const HeadProjection& projection, const QkNormRope& options) {
  const HeadProjection& p = projection;
  prepare_rope(options.rope_theta);
  const auto num_q = static_cast<int>(p.num_q);
  const auto num_k = static_cast<int>(p.num_k);
  const float* squares = mean_squares(x, p.rows, weight.cols(), options.norm);
  const bool small = small_gemm_supports(compute_capability(), p.rows, p.width, weight.cols());
  if (!small && fused_.is_faster(FusedKind::kHeads, p.width, weight.cols(), p.rows)) {
    launch_qk_norm_rope_gemm({.out = heads,
                              .in = bf16(x),
                              .weight = weight.row(p.first_row),
                              .mean_squares = squares,
                              .rows = p.rows,
                              .n = p.width,
                              .k = weight.cols()},
                             {.num_q = num_q,
                              .num_k = num_k,
                              .q_norm = f32(*options.q_norm),
                              .k_norm = f32(*options.k_norm),
                              .positions = p.positions,
                              .rope_table = rope_table_->as<float>(),
                              .eps = options.norm.eps},
                             properties_.multiProcessorCount, stream());
    return;
  }
  multiply(heads, x, weight, p.first_row, p.width, p.rows, false);
  launch_qk_norm_rope({.heads = heads,
                       .row_stride = p.width,
                       .rows = p.rows,
                       .num_q = num_q,
                       .num_k = num_k,
                       .num_v = static_cast<int>(p.num_v),
                       .q_norm = f32(*options.q_norm),
                       .k_norm = f32(*options.k_norm),
                       .mean_squares = squares,
                       .positions = p.positions,
                       .rope_table = rope_table_->as<float>(),
                       .eps = options.norm.eps},
                      stream());
}

void CudaBackend::qkv_projection(Buffer& qkv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                                 const AttentionShape& shape, const QkNormRope& options) {
  if (!replaying()) {
    CudaSlot& s = cuda_slot(slot);
    project_heads(bf16(qkv), x, bf16_weight(weight),
                  {.width = shape.qkv_width(),
                   .rows = s.size().tokens,
                   .num_q = shape.num_q_heads,
                   .num_k = shape.num_kv_heads,
                   .num_v = shape.num_kv_heads,
                   .positions = s.positions()},
                  options);
  }
}

void CudaBackend::attention(Buffer& out, Buffer& qkv, Buffer* gathered, BatchSlot& slot,
                            const AttentionShape& shape) {
  if (!replaying()) {
    CHECK(shape.qkv_width() == plan_->shape.qkv_width());
    CudaSlot& s = cuda_slot(slot);
    launch_attention(
        *plan_,
        {.out = bf16(out),
         .qkv = bf16(qkv),
         .rows = s.size().tokens,
         .kv = gathered == nullptr ? nullptr : bf16(*gathered),
         .kv_rows = gathered == nullptr
                        ? 0
                        : static_cast<std::int64_t>(gathered->bytes()) / (4 * shape.kv_width()),
         .tiles = s.tiles(),
         .counts = s.tile_counts()},
        stream());
  }
}

// A weight of the last layer may hold q, k and v, or only the rows asked for.
void CudaBackend::kv_projection(Buffer& kv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                                const AttentionShape& shape, const QkNormRope& options) {
  if (!replaying()) {
    CudaSlot& s = cuda_slot(slot);
    const std::int64_t width = 2 * shape.kv_width();
    project_heads(bf16(kv), x, bf16_weight(weight),
                  {.first_row = weight.rows() - width,
                   .width = width,
                   .rows = s.size().tokens,
                   .num_k = shape.num_kv_heads,
                   .num_v = shape.num_kv_heads,
                   .positions = s.positions()},
                  options);
  }
}

void CudaBackend::last_q_projection(Buffer& q, Buffer& x_last, LinearWeight& weight,
                                    BatchSlot& slot, const AttentionShape& shape,
                                    const QkNormRope& options) {
  if (!replaying()) {
    CudaSlot& s = cuda_slot(slot);
    project_heads(bf16(q), x_last, bf16_weight(weight),
                  {.width = shape.q_width(),
                   .rows = s.size().sequences,
                   .num_q = shape.num_q_heads,
                   .positions = s.last_positions()},
                  options);
  }
}

void CudaBackend::last_attention(Buffer& out, Buffer& q, Buffer& kv, BatchSlot& slot,
                                 const AttentionShape& shape) {
  if (!replaying()) {
    CudaSlot& s = cuda_slot(slot);
    launch_last_attention({.out = bf16(out),
                           .q = bf16(q),
                           .kv = bf16(kv),
                           .first_keys = s.first_keys(),
                           .num_keys = s.num_keys(),
                           .num_sequences = s.size().sequences,
                           .num_q = static_cast<int>(shape.num_q_heads),
                           .num_kv = static_cast<int>(shape.num_kv_heads)},
                          stream());
  }
}

void CudaBackend::gather_last(Buffer& out, Buffer& x, BatchSlot& slot, std::int64_t width) {
  if (!replaying()) {
    CudaSlot& s = cuda_slot(slot);
    launch_gather_rows(bf16(out), bf16(x), s.last_rows(), s.size().sequences, width, stream());
  }
}

void CudaBackend::linear(Buffer& out, Buffer& in, LinearWeight& weight, std::int64_t rows) {
  if (!replaying()) {
    multiply(bf16(out), in, bf16_weight(weight), 0, weight.rows(), launch_rows(rows), false);
  }
}

void CudaBackend::linear_add(Buffer& x, Buffer& in, LinearWeight& weight, std::int64_t rows) {
  if (!replaying()) {
    multiply(bf16(x), in, bf16_weight(weight), 0, weight.rows(), launch_rows(rows), true);
  }
}

void CudaBackend::swiglu_projection(Buffer& out, Buffer& x, LinearWeight& weight, std::int64_t rows,
                                    const RowNorm& norm) {
  if (replaying()) {
    return;
  }
  const std::int64_t covered = launch_rows(rows);
  Bf16Weight& w = bf16_weight(weight);
  const int num_sms = properties_.multiProcessorCount;
  const float* squares = mean_squares(x, covered, w.cols(), norm);
  if (small_gemm_supports(compute_capability(), covered, w.rows(), w.cols())) {
    launch_small_gemm({.form = SmallGemmArguments::Form::kSwiglu,
                       .out = bf16(out),
                       .in = bf16(x),
                       .weight = w.row(0),
                       .mean_squares = squares,
                       .rows = covered,
                       .n = w.rows(),
                       .k = w.cols()},
                      num_sms, stream());
  } else if (fused_.is_faster(FusedKind::kSwiglu, w.rows(), w.cols(), covered)) {
    launch_swiglu_gemm({.out = bf16(out),
                        .in = bf16(x),
                        .weight = w.row(0),
                        .mean_squares = squares,
                        .rows = covered,
                        .n = w.rows(),
                        .k = w.cols()},
                       num_sms, stream());
  } else {
    CHECK(static_cast<std::size_t>(covered * w.rows()) * sizeof(Bf16) <= gate_up_->bytes());
    multiply(gate_up_->as<Bf16>(), x, w, 0, w.rows(), covered, false);
    launch_swiglu(bf16(out), gate_up_->as<Bf16>(), squares, covered, w.rows() / 2, stream());
  }
}

bool CudaBackend::run_layers(const LayersRun& run, BatchSlot& slot) {
  CudaSlot& s = cuda_slot(slot);
  if (s.size().kind != BatchKind::kWhole || !layers_->supports(s.size().tokens) ||
      run.layers.size() > kLayersMax) {
    return false;
  }
  if (replaying()) {
    return true;
  }
  if (layers_->num_layers() == 0) {
    set_layers(run.layers);
  }
  prepare_rope(run.rope_theta);
  layers_->launch({.end = layers_->num_layers() * kLayerSteps,
                   .rows = s.size().tokens,
                   .x = bf16(*run.x),
                   .qkv = bf16(*run.qkv),
                   .attention = bf16(*run.attention),
                   .mlp = bf16(*run.mlp),
                   .eps = run.eps,
                   .positions = s.positions(),
                   .first_rows = s.first_keys(),
                   .num_rows = s.num_keys(),
                   .num_sequences = s.size().sequences,
                   .rope_table = rope_table_->as<float>()},
                  stream());
  return true;
}

void CudaBackend::set_layers(std::span<const LayerOperands> layers) {
  std::vector<LayerPointers> pointers;
  for (const LayerOperands& layer : layers) {
    pointers.push_back({.qkv = bf16_weight(*layer.qkv).row(0),
                        .o = bf16_weight(*layer.o).row(0),
                        .gate_up = bf16_weight(*layer.gate_up).row(0),
                        .down = bf16_weight(*layer.down).row(0),
                        .q_norm = f32(*layer.q_norm),
                        .k_norm = f32(*layer.k_norm)});
  }
  // Outside the kernels' stream, which may be recording.
  layers_->set_layers(pointers, copy_in_.get());
}

void CudaBackend::pool(BatchSlot& slot, Buffer& x_last, Buffer& norm_weight, std::int64_t hidden,
                       float eps, Length length) {
  if (!replaying()) {
    CudaSlot& s = cuda_slot(slot);
    launch_pool(s.device_vectors(), s.device_finite(), bf16(x_last), f32(norm_weight),
                s.size().sequences, hidden, eps, length == Length::kUnit, stream());
  }
}

}  // namespace tessera::kernels::cuda
