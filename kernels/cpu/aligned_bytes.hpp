#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace tessera::kernels::cpu {

// Move-only owner of uninitialised host memory, aligned for cache lines and vector registers. Large
// blocks ask for 2 MiB pages: matrix products walk through more weights than the table of small
// pages covers.
class AlignedBytes {
 public:
  static constexpr std::size_t kAlignment = 64;
  static constexpr std::size_t kHugePage = 2 << 20;

  AlignedBytes() = default;
  explicit AlignedBytes(std::size_t size)
      : data_(static_cast<std::byte*>(::operator new(size == 0 ? 1 : size, alignment(size))),
              Free{alignment(size)}),
        size_(size) {
    if (size >= kHugePage) {
      ::madvise(data_.get(), size, MADV_HUGEPAGE);  // A wish; small pages serve as well.
    }
  }

  std::byte* data() const { return data_.get(); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }
  std::size_t size() const { return size_; }

 private:
  static std::align_val_t alignment(std::size_t size) {
    return std::align_val_t(size >= kHugePage ? kHugePage : kAlignment);
  }
  struct Free {
    std::align_val_t alignment;
    void operator()(std::byte* data) const { ::operator delete(data, alignment); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace tessera::kernels::cpu
