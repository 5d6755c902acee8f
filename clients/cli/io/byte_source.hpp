#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "clients/cli/io/text_decoder.hpp"

namespace tessera::cli {

// A file or stdin ("-") as UTF-8 text, read forward in blocks and without its byte order mark. Its
// first bytes are judged: what is compressed, no text, or in another encoding than the one stated
// is refused and not guessed. A pipe that gives nothing does not hold up a stop: the flag is looked
// at ten times a second. One thread.
class ByteSource {
 public:
  // `encoding`: as iconv names it. Empty: UTF-8, or what a byte order mark states, and refused
  // where the first bytes are neither; "utf-8" takes any bytes. Throws FatalError when the file
  // cannot be opened or is refused. `stop` must outlive the source.
  ByteSource(const std::string& path, const std::string& encoding, const std::atomic<bool>& stop);
  // Of a text in memory, as it is.
  ByteSource(std::string_view text, const std::atomic<bool>& stop);
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  // What can be read without waiting: valid until consume() reaches its end. Empty at the end of
  // the input, which includes a stop.
  std::string_view rest() {
    if (position_ == buffer_.size()) {
      fill();
    }
    return buffer_.substr(position_);
  }
  void consume(std::size_t bytes) { position_ += bytes; }

  static constexpr int kEnd = -1;
  int peek() {
    const std::string_view text = rest();
    return text.empty() ? kEnd : static_cast<unsigned char>(text.front());
  }

  enum class Line : std::uint8_t { kLine, kTooLong, kEnd };
  // The next line without its end. Of a line above `bytes_max` only the fact is told.
  Line read_line(std::string& line, std::size_t bytes_max);

  // Before anything is read: the start of the text, at least 4 KiB or all of it.
  std::string_view sample() const { return buffer_.substr(position_); }
  bool sample_is_all() const { return at_end_; }

  // CR where the start of the text has only such line ends, else LF (with or without a CR before).
  char newline() const { return newline_; }
  std::uint64_t bytes_read() const;  // Of the input, behind what was consumed.
  const std::string& path() const { return path_; }
  // "UTF-16LE by its byte order mark"; "" for UTF-8.
  const std::string& encoding_shown() const { return encoding_shown_; }

 private:
  bool wait_readable() const;
  std::size_t read_some();  // Behind what block_ holds; 0 at the end.
  void judge(const std::string& encoding);
  void fill();
  void decode_block(std::string_view bytes);

  std::string path_;
  const std::atomic<bool>& stop_;
  int fd_ = -1;
  std::vector<char> block_;
  std::size_t filled_ = 0;  // Of block_.
  std::unique_ptr<TextDecoder> decoder_;
  std::string decoded_;
  std::string_view buffer_;  // Text: block_'s or decoded_'s.
  std::size_t position_ = 0;
  std::uint64_t bytes_read_ = 0;
  bool at_end_ = false;
  char newline_ = '\n';
  std::string encoding_shown_;
};

}  // namespace tessera::cli
