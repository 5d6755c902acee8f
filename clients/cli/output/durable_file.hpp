#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tessera::cli {

// A regular file that grows at its end and whose length is known to be safe after sync(). All
// functions throw FatalError with the path and the system's reason (a full disk is the usual one).
class DurableFile {
 public:
  // Opens or makes `path` and cuts it to `keep_bytes`: what is behind them was not yet safe when
  // the last run ended. Throws when the file is shorter than that, or no file that can be cut.
  DurableFile(std::string path, std::uint64_t keep_bytes);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void append(std::span<const std::byte> bytes);
  void append(std::string_view text) { append(std::as_bytes(std::span(text))); }
  // Replaces bytes that were appended before.
  void overwrite(std::uint64_t offset, std::string_view text);
  // Returns when everything lies on the disk.
  void sync();

  std::uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  void flush();

  std::string path_;
  int fd_ = -1;
  std::uint64_t size_ = 0;  // With what is still in pending_.
  std::string pending_;
};

}  // namespace tessera::cli
