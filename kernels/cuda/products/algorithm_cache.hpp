#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tessera::kernels::cuda {

// One matrix product as the algorithm choice sees it.
struct MatmulKey {
  std::int64_t rows = 0;  // a bucket, see rows_bucket
  std::int64_t n = 0;
  std::int64_t k = 0;
  bool accumulate = false;
  auto operator<=>(const MatmulKey&) const = default;
};

// Row counts share a choice in buckets of at most a quarter octave: 16, 32, 48, 64, 80, 96, 112,
// 128, 160, ... Rounds up.
std::int64_t rows_bucket(std::int64_t rows);

// $XDG_CACHE_HOME/tessera/matmul_choices, or the same under ~/.cache. Empty, which keeps no file,
// where that folder cannot be made.
std::string default_algorithm_cache_file();

// Timed algorithm choices in a text file: a line that says for which GPU, driver and library they
// hold, then one line each. A file for another machine, of another version or with a broken line is
// as good as none; it is replaced at the next save. Owned by the device's thread; several processes
// may share the file, since saving merges and replaces it in one step.
class AlgorithmCache {
 public:
  // The opaque bytes of a cuBLASLt algorithm.
  using Algorithm = std::vector<std::byte>;

  AlgorithmCache(std::string path, std::string machine, std::size_t algorithm_bytes);

  const Algorithm* find(const MatmulKey& key) const;
  void put(const MatmulKey& key, Algorithm algorithm);
  // Writes the file when there is news. A file that cannot be written costs the next start its
  // timing again and nothing else, so the return value may be ignored.
  bool save();

  std::size_t size() const { return choices_.size(); }

 private:
  std::map<MatmulKey, Algorithm> read() const;

  std::string path_;
  std::string machine_;
  std::size_t algorithm_bytes_;
  std::map<MatmulKey, Algorithm> choices_;
  bool changed_ = false;
};

}  // namespace tessera::kernels::cuda
