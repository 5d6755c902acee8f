#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace tessera::tokenizer {

// Zero memory straight from the system, in 2 MiB pages where the system has them: tables of several
// MB that are read at random miss the address cache at nearly every access otherwise. Pages that
// are never touched are never taken.
class PageMemory {
 public:
  explicit PageMemory(std::size_t bytes) : bytes_(bytes + kHugePage) {
    void* const mapped =
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
      throw std::bad_alloc();
    }
    mapped_ = mapped;
#if defined(MADV_HUGEPAGE)
    // Advice only: without huge pages everything works, slower.
    (void)madvise(data(), bytes, MADV_HUGEPAGE);
#endif
  }
  PageMemory(PageMemory&& other) noexcept
      : mapped_(std::exchange(other.mapped_, nullptr)), bytes_(other.bytes_) {}
  PageMemory& operator=(PageMemory&& other) noexcept {
    std::swap(mapped_, other.mapped_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PageMemory() {
    if (mapped_ != nullptr) {
      munmap(mapped_, bytes_);
    }
  }

  // Aligned to a huge page.
  void* data() const {
    const auto address = reinterpret_cast<std::uintptr_t>(mapped_);
    return reinterpret_cast<void*>((address + kHugePage - 1) & ~(kHugePage - 1));
  }
  // Zero again, and the pages given back.
  void clear() { (void)madvise(mapped_, bytes_, MADV_DONTNEED); }

 private:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20U;

  void* mapped_ = nullptr;
  std::size_t bytes_;
};

// A fixed number of objects in PageMemory, zero at first.
template <typename T>
class PageArray {
 public:
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

  explicit PageArray(std::size_t size)
      : memory_(size * sizeof(T)), data_(static_cast<T*>(memory_.data())), size_(size) {}

  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  void clear() { memory_.clear(); }

 private:
  PageMemory memory_;
  T* data_;
  std::size_t size_;
};

}  // namespace tessera::tokenizer
