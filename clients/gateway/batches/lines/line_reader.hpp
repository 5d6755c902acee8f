#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "clients/gateway/files/disk.hpp"

namespace tessera::gateway {

// The longest line of a batch: its token ids still fit one message.
inline constexpr std::size_t kBatchLineBytesMax = 32U << 20;

// An open file for reading; it can be read on when its name is removed.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path)  // Throws FatalError.
      : file_(value_or_fatal(open_to_read(path))) {}
  int fd() const { return file_.fd(); }

 private:
  OpenFile file_;
};

// The lines of a file from its begin, one at a time. One thread; several may read one file.
class LineReader {
 public:
  explicit LineReader(const InputFile& file, std::size_t line_bytes_max = kBatchLineBytesMax)
      : fd_(file.fd()), line_bytes_max_(line_bytes_max) {}

  // The next line that is not only white space, without its end; false behind the last. A byte
  // order mark before the first is left out. Throws FatalError when the disk fails.
  bool next(std::string& line);
  // Of the line that next() gave: from 1, empty lines counted.
  std::uint64_t number() const { return number_; }
  // Whether it is longer than allowed; then `line` is only its begin.
  bool too_long() const { return too_long_; }

 private:
  bool next_of_any_kind(std::string& line);
  bool fill();

  const int fd_;
  const std::size_t line_bytes_max_;
  std::string buffer_;
  std::size_t used_ = 0;  // Of buffer_.
  std::uint64_t offset_ = 0;
  std::uint64_t number_ = 0;
  bool too_long_ = false;
};

}  // namespace tessera::gateway
