#include "kernels/cuda/base/cuda_check.hpp"

#include <string>

#include "common/check.hpp"

namespace tessera::kernels::cuda {
namespace {

std::string place(const std::source_location& where) {
  std::string_view file = where.file_name();
  const std::size_t at = file.rfind("kernels/");
  if (at != std::string_view::npos) {
    file.remove_prefix(at);
  }
  return std::string(file) + ":" + std::to_string(where.line());
}

}  // namespace

void cuda_check(cudaError_t status, std::source_location where) {
  if (status == cudaSuccess) [[likely]] {
    return;
  }
  throw FatalError("the GPU failed: " + std::string(cudaGetErrorString(status)) + " (" +
                   cudaGetErrorName(status) + ", noticed at " + place(where) + ")");
}

void cublas_check(cublasStatus_t status, std::source_location where) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]] {
    return;
  }
  throw FatalError("a matrix product on the GPU failed: " +
                   std::string(cublasLtGetStatusString(status)) + " (" + place(where) + ")");
}

}  // namespace tessera::kernels::cuda
