// Stands in for the CUDA backend in builds without CUDA.

#include "common/check.hpp"
#include "kernels/backend.hpp"
#include "kernels/communicator.hpp"

namespace tessera::kernels {

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions&) {
  throw FatalError("this build has no GPU support; use --device cpu or a build with CUDA");
}

std::unique_ptr<CommunicatorGroup> make_cuda_communicators(std::span<const int>, Transport) {
  throw FatalError("this build has no GPU support");
}

int cuda_device_count() { return 0; }

}  // namespace tessera::kernels
