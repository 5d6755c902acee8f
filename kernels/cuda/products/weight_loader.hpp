#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/types.hpp"

namespace tessera::kernels::cuda {

// Where the rows of a slice go in device memory: `group` rows that follow one another, then the
// next group `pitch` rows further on. Stacked rows have group == pitch.
struct RowPlacement {
  void* target = nullptr;  // bf16 [.., cols]
  std::int64_t group = 1;
  std::int64_t pitch = 1;
};

// Copies weight slices from mapped files into device memory as bf16. Several threads each copy
// pieces (page cache to page-locked memory, rounding float32 and float16 to bf16 on the way), and
// the GPU's copy engine takes them from there, placing rows as asked, while the thread fills its
// other buffer. One thread reading a mapping gives 1-5 GB/s, so a fast start needs many. Owned by
// the device's thread. Sources must stay mapped until `finish` returned.
class WeightLoader {
 public:
  explicit WeightLoader(int device);
  static std::size_t page_locked_bytes();  // while it lives
  ~WeightLoader();                         // abandons what is not copied yet
  WeightLoader(const WeightLoader&) = delete;
  WeightLoader& operator=(const WeightLoader&) = delete;

  void copy(const MatrixSlice& source, const RowPlacement& placement);
  // Blocks until all is in device memory and ends the threads. Throws what a thread threw.
  void finish();

 private:
  struct Piece {
    MatrixSlice source;
    RowPlacement placement;
  };
  void work();
  void copy_pieces();
  bool next(Piece& piece);

  const int device_;
  std::mutex mutex_;
  std::condition_variable filled_;
  std::deque<Piece> pieces_;    // bounded by the model: one per 8 MiB of weights
  bool complete_ = false;       // no more pieces will come
  std::exception_ptr failure_;  // the first one
  std::vector<std::jthread> threads_;
};

}  // namespace tessera::kernels::cuda
