#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace tessera::kernels::cpu {

// Move-only owner of 64-byte-aligned, uninitialised host memory: a cache line, a vector register.
class AlignedBytes {
 public:
  static constexpr std::size_t kAlignment = 64;

  AlignedBytes() = default;
  explicit AlignedBytes(std::size_t size)
      : data_(static_cast<std::byte*>(
            ::operator new(size == 0 ? 1 : size, std::align_val_t(kAlignment)))),
        size_(size) {}

  std::byte* data() const { return data_.get(); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }
  std::size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* data) const {
      ::operator delete(data, std::align_val_t(kAlignment));
    }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace tessera::kernels::cpu
