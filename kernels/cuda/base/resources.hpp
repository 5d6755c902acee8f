#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "kernels/backend.hpp"

namespace tessera::kernels::cuda {

// Move-only owners of what CUDA hands out. All belong to the device that was current when they
// were made. Destructors ignore errors: a process whose GPU failed is on its way out.

template <typename Handle, cudaError_t (*kDestroy)(Handle)>
class Owner {
 public:
  Owner() = default;
  explicit Owner(Handle handle) : handle_(handle) {}
  Owner(Owner&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owner& operator=(Owner&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owner() {
    if (handle_ != nullptr) {
      (void)kDestroy(handle_);
    }
  }
  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};

// What the code of our kernels and of the library's that were chosen takes of a device, at most, as
// measured on an H200.
inline constexpr std::size_t kCodeBytes = std::size_t{384} << 20;

// Streams do not synchronise with the default stream.
using Stream = Owner<cudaStream_t, cudaStreamDestroy>;
using Event = Owner<cudaEvent_t, cudaEventDestroy>;
using Graph = Owner<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Owner<cudaGraphExec_t, cudaGraphExecDestroy>;

Stream make_stream();
enum class Timing { kOff, kOn };
Event make_event(Timing timing = Timing::kOff);
float elapsed_ms(const Event& from, const Event& to);  // waits for `to`

// Memory of the current device, 256-byte aligned. Throws FatalError naming `what` when there is
// too little.
class DeviceBuffer : public Buffer {
 public:
  DeviceBuffer(std::size_t bytes, std::string_view what);
  ~DeviceBuffer() override;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  std::size_t bytes() const override { return bytes_; }
  void* data() override { return data_; }
  template <typename T>
  T* as(std::size_t offset_bytes = 0) {
    return reinterpret_cast<T*>(static_cast<std::byte*>(data_) + offset_bytes);
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Copies from ordinary host memory to the device and waits for the end: cudaMemcpy alone may return
// before the device has the bytes, and our streams do not wait for it.
void copy_to_device(void* to, const void* from, std::size_t bytes);

// Page-locked host memory, reachable for the copy engines of every device.
class PinnedBuffer {
 public:
  PinnedBuffer(std::size_t bytes, std::string_view what);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  std::size_t bytes() const { return bytes_; }
  std::byte* data() const { return data_; }
  template <typename T>
  std::span<T> as(std::size_t offset_bytes, std::size_t count) const {
    return {reinterpret_cast<T*>(data_ + offset_bytes), count};
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace tessera::kernels::cuda
