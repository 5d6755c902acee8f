#include "kernels/cuda/base/tensor_map.hpp"

#include <cuda_runtime_api.h>

#include <string>

#include "common/check.hpp"

namespace tessera::kernels::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// Asked of the loaded driver, so that nothing links against libcuda.
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    throw FatalError("the GPU driver has no cuTensorMapEncodeTiled; CUDA 12 or later is needed");
  }
  return reinterpret_cast<Encode>(function);
}

}  // namespace

CUtensorMap make_tensor_map(const TensorBox& tensor) {
  static const Encode encode = find_encode();
  constexpr std::array<std::uint32_t, 4> kElementStrides{1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, tensor.rank, const_cast<void*>(tensor.data),
             tensor.size.data(), tensor.stride_bytes.data(), tensor.box.data(),
             kElementStrides.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw FatalError("cuTensorMapEncodeTiled failed with error " + std::to_string(result));
  }
  return map;
}

}  // namespace tessera::kernels::cuda
