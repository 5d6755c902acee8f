#pragma once

#include <cuda.h>

#include <array>
#include <cstdint>

namespace tessera::kernels::cuda {

// A bf16 tensor of three dimensions in device memory, the innermost one contiguous, and the box of
// it that one tensor copy brings to shared memory with the 128-byte swizzle. What lies outside of
// the tensor arrives as zeros.
struct TensorBox {
  const void* data = nullptr;                   // 16-byte aligned
  std::array<std::uint64_t, 3> size{};          // innermost first
  std::array<std::uint64_t, 2> stride_bytes{};  // of the two outer dimensions
  std::array<std::uint32_t, 3> box{};           // box[0] elements are at most 128 bytes
};

// Throws FatalError when the driver refuses. Host work only; about a microsecond.
CUtensorMap make_tensor_map(const TensorBox& tensor);

}  // namespace tessera::kernels::cuda
