#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/base/cuda_check.hpp"
#include "kernels/cuda/base/resources.hpp"
#include "tests/support/gpu_test.hpp"

namespace tessera::testing {

// An array in device memory. Made from a count it is filled with 0xFF bytes, which are NaN as bf16
// and as float32, so that what nothing writes is seen.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count), buffer_(count * sizeof(T), "a test") {
    kernels::cuda::cuda_check(cudaMemset(buffer_.data(), 0xFF, buffer_.bytes()));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    kernels::cuda::copy_to_device(buffer_.data(), values.data(), buffer_.bytes());
  }
  template <typename As = T>
  As* data() {
    return buffer_.as<As>();
  }
  std::vector<T> host() {
    std::vector<T> values(count_);
    kernels::cuda::cuda_check(cudaDeviceSynchronize());
    kernels::cuda::cuda_check(
        cudaMemcpy(values.data(), buffer_.data(), buffer_.bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  std::size_t count_;
  kernels::cuda::DeviceBuffer buffer_;
};

}  // namespace tessera::testing
