#pragma once

#include <cuda_bf16.h>

namespace tessera::kernels::cuda {

using Bf16 = __nv_bfloat16;

inline constexpr int kHeadDim = 128;  // of every attention head that the kernels take

}  // namespace tessera::kernels::cuda
