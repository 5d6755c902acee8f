#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <source_location>
#include <string_view>

namespace tessera::kernels::cuda {

// Throw FatalError with one line (what failed, CUDA's own words, the place) unless the call
// succeeded. A device fault shows up at the next checked call, so the place is where it was
// noticed.
void cuda_check(cudaError_t status, std::source_location where = std::source_location::current());
void cublas_check(cublasStatus_t status,
                  std::source_location where = std::source_location::current());

// After a kernel launch: a bad configuration is reported at once, a device fault later.
inline void check_launch(std::source_location where = std::source_location::current()) {
  cuda_check(cudaGetLastError(), where);
}

}  // namespace tessera::kernels::cuda
