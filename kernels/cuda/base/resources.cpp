#include "kernels/cuda/base/resources.hpp"

#include <algorithm>
#include <string>

#include "common/check.hpp"
#include "kernels/cuda/base/cuda_check.hpp"

namespace tessera::kernels::cuda {
namespace {

std::string mebibytes(std::size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

Stream make_stream() {
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Event make_event(Timing timing) {
  cudaEvent_t event = nullptr;
  cuda_check(cudaEventCreateWithFlags(
      &event, timing == Timing::kOn ? cudaEventDefault : cudaEventDisableTiming));
  return Event(event);
}

float elapsed_ms(const Event& from, const Event& to) {
  float ms = 0;
  cuda_check(cudaEventSynchronize(to.get()));
  cuda_check(cudaEventElapsedTime(&ms, from.get(), to.get()));
  return ms;
}

DeviceBuffer::DeviceBuffer(std::size_t bytes, std::string_view what) : bytes_(bytes) {
  // An empty tensor still has an address, so that launches need no special case.
  const cudaError_t status = cudaMalloc(&data_, std::max<std::size_t>(bytes, 256));
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    std::size_t free = 0;
    std::size_t total = 0;
    cuda_check(cudaMemGetInfo(&free, &total));
    throw FatalError("too little GPU memory for " + std::string(what) + ": " + mebibytes(bytes) +
                     " wanted, " + mebibytes(free) + " of " + mebibytes(total) + " free");
  }
  cuda_check(status);
}

DeviceBuffer::~DeviceBuffer() { (void)cudaFree(data_); }

void copy_to_device(void* to, const void* from, std::size_t bytes) {
  cuda_check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
  cuda_check(cudaStreamSynchronize(nullptr));
}

PinnedBuffer::PinnedBuffer(std::size_t bytes, std::string_view what) : bytes_(bytes) {
  void* data = nullptr;
  const cudaError_t status =
      cudaHostAlloc(&data, std::max<std::size_t>(bytes, 64), cudaHostAllocPortable);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    throw FatalError("too little page-locked host memory for " + std::string(what) + ": " +
                     mebibytes(bytes) + " wanted");
  }
  cuda_check(status);
  data_ = static_cast<std::byte*>(data);
}

PinnedBuffer::~PinnedBuffer() { (void)cudaFreeHost(data_); }

}  // namespace tessera::kernels::cuda
