#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace tessera::cli {

// A file or stdin ("-"), read forward in blocks. Skips a UTF-8 byte order mark at its start. A
// pipe that gives nothing does not hold up a stop: the flag is looked at ten times a second.
class ByteSource {
 public:
  // Throws FatalError when the file cannot be opened. `stop` must outlive the source.
  ByteSource(const std::string& path, const std::atomic<bool>& stop);
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  static constexpr int kEnd = -1;
  int get() { return position_ < buffer_.size() || fill() ? next_byte() : kEnd; }
  int peek() {
    return position_ < buffer_.size() || fill() ? static_cast<unsigned char>(buffer_[position_])
                                                : kEnd;
  }

  enum class Line : std::uint8_t { kLine, kTooLong, kEnd };
  // The next line without its newline and carriage return. Of a line above `bytes_max` only the
  // fact is told.
  Line read_line(std::string& line, std::size_t bytes_max);

  std::uint64_t bytes_read() const { return bytes_read_ - (buffer_.size() - position_); }
  const std::string& path() const { return path_; }

 private:
  int next_byte() { return static_cast<unsigned char>(buffer_[position_++]); }
  bool fill();
  bool wait_readable() const;

  std::string path_;
  const std::atomic<bool>& stop_;
  int fd_ = -1;
  std::vector<char> block_;
  std::string_view buffer_;  // The filled part of block_.
  std::size_t position_ = 0;
  std::uint64_t bytes_read_ = 0;
  bool at_end_ = false;
};

}  // namespace tessera::cli
