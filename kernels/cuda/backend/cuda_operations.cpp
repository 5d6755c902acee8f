// The operations of CudaBackend: what is launched between a batch's start and its end.

#include <vector>

#include "common/check.hpp"
#include "kernels/cuda/attention/attention.hpp"
#include "kernels/cuda/attention/last_attention.hpp"
#include "kernels/cuda/backend/cuda_backend.hpp"
#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/rows/rows.hpp"

namespace tessera::kernels::cuda {
namespace {

Bf16* bf16(Buffer& buffer) { return static_cast<Bf16*>(buffer.data()); }
const float* f32(Buffer& buffer) { return static_cast<const float*>(buffer.data()); }

}  // namespace

void CudaBackend::embed(Buffer& x, Buffer& table, BatchSlot& slot, std::int64_t hidden) {
  CudaSlot& s = cuda_slot(slot);
  launch_embedding(bf16(x), bf16(table), s.input_ids(), s.size().tokens, hidden, stream());
}

void CudaBackend::qkv_projection(Buffer& qkv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                                 const AttentionShape& shape, const QkNormRope& options) {
  CudaSlot& s = cuda_slot(slot);
  prepare_rope(options.rope_theta);
  products_.heads(bf16(qkv), bf16(x), weight,
                  {.width = shape.qkv_width(),
                   .rows = s.size().tokens,
                   .num_q = shape.num_q_heads,
                   .num_k = shape.num_kv_heads,
                   .num_v = shape.num_kv_heads,
                   .positions = s.positions(),
                   .rope_table = rope_table_->as<float>()},
                  options);
}

void CudaBackend::attention(Buffer& out, Buffer& qkv, Buffer* gathered, BatchSlot& slot,
                            const AttentionShape& shape) {
  CHECK(shape.qkv_width() == plan_->shape.qkv_width());
  CudaSlot& s = cuda_slot(slot);
  launch_attention(*plan_,
                   {.out = bf16(out),
                    .qkv = bf16(qkv),
                    .rows = s.size().tokens,
                    .kv = gathered == nullptr ? nullptr : bf16(*gathered),
                    .kv_rows = gathered == nullptr ? 0
                                                   : static_cast<std::int64_t>(gathered->bytes()) /
                                                         (4 * shape.kv_width()),
                    .tiles = s.tiles(),
                    .counts = s.tile_counts()},
                   stream());
}

// A weight of the last layer may hold q, k and v, or only the rows asked for.
void CudaBackend::kv_projection(Buffer& kv, Buffer& x, LinearWeight& weight, BatchSlot& slot,
                                const AttentionShape& shape, const QkNormRope& options) {
  CudaSlot& s = cuda_slot(slot);
  const std::int64_t width = 2 * shape.kv_width();
  prepare_rope(options.rope_theta);
  products_.heads(bf16(kv), bf16(x), weight,
                  {.first_row = weight.rows() - width,
                   .width = width,
                   .rows = s.size().tokens,
                   .num_k = shape.num_kv_heads,
                   .num_v = shape.num_kv_heads,
                   .positions = s.positions(),
                   .rope_table = rope_table_->as<float>()},
                  options);
}

void CudaBackend::last_q_projection(Buffer& q, Buffer& x_last, LinearWeight& weight,
                                    BatchSlot& slot, const AttentionShape& shape,
                                    const QkNormRope& options) {
  CudaSlot& s = cuda_slot(slot);
  prepare_rope(options.rope_theta);
  products_.heads(bf16(q), bf16(x_last), weight,
                  {.width = shape.q_width(),
                   .rows = s.size().sequences,
                   .num_q = shape.num_q_heads,
                   .positions = s.last_positions(),
                   .rope_table = rope_table_->as<float>()},
                  options);
}

void CudaBackend::last_attention(Buffer& out, Buffer& q, Buffer& kv, BatchSlot& slot,
                                 const AttentionShape& shape) {
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

void CudaBackend::gather_last(Buffer& out, Buffer& x, BatchSlot& slot, std::int64_t width) {
  CudaSlot& s = cuda_slot(slot);
  launch_gather_rows(bf16(out), bf16(x), s.last_rows(), s.size().sequences, width, stream());
}

void CudaBackend::linear(Buffer& out, Buffer& in, LinearWeight& weight, std::int64_t rows) {
  products_.linear(bf16(out), bf16(in), weight, launch_rows(rows), false);
}

void CudaBackend::linear_add(Buffer& x, Buffer& in, LinearWeight& weight, std::int64_t rows) {
  products_.linear(bf16(x), bf16(in), weight, launch_rows(rows), true);
}

void CudaBackend::swiglu_projection(Buffer& out, Buffer& x, LinearWeight& weight, std::int64_t rows,
                                    const RowNorm& norm) {
  products_.swiglu(bf16(out), bf16(x), weight, launch_rows(rows), norm);
}

bool CudaBackend::run_layers(const LayersRun& run, BatchSlot& slot) {
  CudaSlot& s = cuda_slot(slot);
  if (s.size().kind != BatchKind::kWhole || !layers_->supports(s.size().tokens) ||
      run.layers.size() > kLayersMax) {
    return false;
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
  CudaSlot& s = cuda_slot(slot);
  launch_pool(s.device_vectors(), s.device_finite(), bf16(x_last), f32(norm_weight),
              s.size().sequences, hidden, eps, length == Length::kUnit, stream());
}

}  // namespace tessera::kernels::cuda
