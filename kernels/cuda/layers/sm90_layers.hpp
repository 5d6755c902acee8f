#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "kernels/cuda/base/resources.hpp"
#include "kernels/types.hpp"

namespace tessera::kernels::cuda {

// Whole layers of a short batch in one launch, for Hopper. Launched one by one, the kernels of a
// short batch leave the memory idle between two products, which is where most of its time goes;
// here the weights of the next product are under way while this one still computes. Every step has
// the bits of the kernel that does it alone.

// One layer's weights as the backend holds them: norms multiplied into qkv and gate_up, gate and up
// rows alternating in groups of kGateUpGroup.
struct LayerPointers {
  const __nv_bfloat16* qkv = nullptr;
  const __nv_bfloat16* o = nullptr;
  const __nv_bfloat16* gate_up = nullptr;
  const __nv_bfloat16* down = nullptr;
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
};

// The steps of a layer. A launch runs those from `begin` to `end`, counted over all layers:
// layer * kLayerSteps + step.
enum class LayerStep : std::uint8_t {
  kQkv,        // qkv = x * W^T, v by the rows' scale
  kRope,       // QK-norm and RoPE in place
  kAttention,  // attention from qkv
  kO,          // x += attention * W^T
  kGateUp,     // mlp = silu(gate) * up, both by the rows' scale
  kDown,       // x += mlp * W^T
};
inline constexpr int kLayerSteps = 6;

struct LayersArguments {
  int begin = 0;
  int end = 0;
  std::int64_t rows = 0;  // at most kLayersRowsMax
  __nv_bfloat16* x = nullptr;
  __nv_bfloat16* qkv = nullptr;
  __nv_bfloat16* attention = nullptr;
  __nv_bfloat16* mlp = nullptr;
  float eps = 1e-6F;
  const std::int32_t* positions = nullptr;  // [rows]
  // For attention: whole sequences, one behind the other; those without tokens count for nothing.
  const std::int32_t* first_rows = nullptr;  // [num_sequences]
  const std::int32_t* num_rows = nullptr;    // [num_sequences]
  std::int64_t num_sequences = 0;
  const float* rope_table = nullptr;
  std::uint64_t* trace = nullptr;  // two a step: when block 0 began and ended it, in ns
};
inline constexpr std::int64_t kLayersRowsMax = 64;
inline constexpr int kLayersMax = 64;

// What launches over one model share: its shape, how its weights are divided among blocks, and the
// memory for the weights' descriptions. Owned by the device's thread.
class LayerRunner {
 public:
  // Takes kDeviceBytes.
  LayerRunner(const EncoderShape& shape, int compute_capability, int num_sms);
  static constexpr std::size_t kDeviceBytes = std::size_t{160} << 10;

  bool supports(std::int64_t rows) const;
  // Waits for the copy on `stream`, which is not one that records.
  void set_layers(std::span<const LayerPointers> layers, cudaStream_t stream);
  int num_layers() const { return num_layers_; }
  // One launch at a time: they share their counters.
  void launch(const LayersArguments& arguments, cudaStream_t stream);

 private:
  template <int kTokens>
  void launch_tokens(const LayersArguments& arguments, cudaStream_t stream);

  EncoderShape shape_;
  int num_blocks_ = 0;  // 0: not for this GPU or this shape
  int cluster_ = 1;     // blocks of a cluster
  int num_layers_ = 0;
  DeviceBuffer memory_;
};

}  // namespace tessera::kernels::cuda
