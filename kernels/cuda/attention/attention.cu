#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <string>

#include "common/check.hpp"
#include "kernels/cuda/attention/attention.hpp"
#include "kernels/cuda/attention/attention_device.cuh"
#include "kernels/cuda/attention/attention_launch.hpp"

namespace tessera::kernels::cuda {

void check_launch(cudaError_t error, const std::source_location& where) {
  if (error == cudaSuccess) return;
  throw FatalError(std::string("attention: ") + cudaGetErrorString(error) + " (" +
                   where.file_name() + ":" + std::to_string(where.line()) + ")");
}

void launch_attention(const AttentionPlan& plan, const AttentionArguments& arguments,
                      cudaStream_t stream) {
  const AttentionShape& shape = plan.shape;
  const bool apart = arguments.kv != nullptr;
  const int k_offset = apart ? 0 : static_cast<int>(shape.q_width());
  const AttentionParameters parameters{
      .out = arguments.out,
      .q = arguments.qkv,
      .kv = apart ? arguments.kv : arguments.qkv,
      .header = static_cast<AttentionTileHeader*>(arguments.tiles),
      .out_stride = shape.q_width(),
      .q_stride = shape.qkv_width(),
      .kv_stride = apart ? 2 * shape.kv_width() : shape.qkv_width(),
      .q_rows = arguments.rows,
      .kv_rows = apart ? arguments.kv_rows : arguments.rows,
      .k_offset = k_offset,
      .v_offset = k_offset + static_cast<int>(shape.kv_width()),
      .group = static_cast<int>(shape.num_q_heads / shape.num_kv_heads),
      .log2_heads = std::countr_zero(static_cast<unsigned>(plan.heads)),
      .scale_log2 = std::numbers::log2e_v<float> / std::sqrt(static_cast<float>(kHeadDim)),
  };
  const AttentionTileCounts& counts = arguments.counts;
  const bool hopper = plan.form == AttentionPlan::Form::kWgmma;
  if (counts.num_long > 0) {
    hopper ? launch_long_sm90(parameters, std::min(plan.num_sms, counts.num_long), stream)
           : launch_long_sm80(parameters, counts.num_long, stream);
  }
  if (counts.num_short > 0) {
    hopper ? launch_short_sm90(parameters, std::min(plan.num_sms, counts.num_short), stream)
           : launch_short_sm80(parameters, counts.num_short, stream);
  }
}

}  // namespace tessera::kernels::cuda
