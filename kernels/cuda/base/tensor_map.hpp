#pragma once

#include <cuda.h>

#include <array>
#include <cstdint>

namespace tessera::kernels::cuda {

// A bf16 tensor of three or four dimensions in device memory, the innermost one contiguous, and the
// box of it that one tensor copy brings to shared memory with the 128-byte swizzle. What lies
// outside of the tensor arrives as zeros. Strides may come in any order; the box lies in shared
// memory in the order of the dimensions.
struct TensorBox {
  const void* data = nullptr;  // 16-byte aligned
  std::uint32_t rank = 3;
  std::array<std::uint64_t, 4> size{};          // innermost first
  std::array<std::uint64_t, 3> stride_bytes{};  // of the outer dimensions
  std::array<std::uint32_t, 4> box{};           // box[0] elements are at most 128 bytes
};

// Throws FatalError when the driver refuses. Host work only; about a microsecond.
CUtensorMap make_tensor_map(const TensorBox& tensor);

}  // namespace tessera::kernels::cuda
