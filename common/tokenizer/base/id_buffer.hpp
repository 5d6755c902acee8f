#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace tessera::tokenizer {

// A growing list of token ids whose room is taken ahead of a loop, so that the loop only stores.
// Keeps its memory between texts. One thread.
class IdBuffer {
 public:
  void clear() { size_ = 0; }
  std::size_t size() const { return size_; }
  std::span<const std::int32_t> ids() const { return {ids_.get(), size_}; }

  // Makes room for `extra` more ids.
  void reserve_more(std::size_t extra) {
    if (capacity_ - size_ < extra) {
      grow(extra);
    }
  }
  // Requires room, see reserve_more.
  void push(std::int32_t id) { ids_[size_++] = id; }
  // Where the next id goes; after storing there, within the room taken, `advance`.
  std::int32_t* end() { return ids_.get() + size_; }
  void advance(std::size_t count) { size_ += count; }

 private:
  void grow(std::size_t extra) {
    const std::size_t capacity = std::max(2 * capacity_, size_ + extra);
    auto larger = std::make_unique_for_overwrite<std::int32_t[]>(capacity);
    std::copy_n(ids_.get(), size_, larger.get());
    ids_ = std::move(larger);
    capacity_ = capacity;
  }

  std::unique_ptr<std::int32_t[]> ids_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace tessera::tokenizer
