#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "common/result.hpp"

namespace tessera::gateway {

// An open file, closed with its owner.
class OpenFile {
 public:
  OpenFile() = default;
  explicit OpenFile(int fd) : fd_(fd) {}
  ~OpenFile();
  OpenFile(OpenFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OpenFile& operator=(OpenFile&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// What the system says in `reason` (errno): kResourceExhausted when the disk or its quota is full,
// kNotFound when there is no such file, else kInternal.
Error disk_error(const std::string& what, const std::filesystem::path& path, int reason);

// Fails where there is one already.
Result<OpenFile> open_new_file(const std::filesystem::path& path, unsigned mode = 0666);
Result<OpenFile> open_to_read(const std::filesystem::path& path);
Result<void> write_all(const OpenFile& file, std::string_view bytes,
                       const std::filesystem::path& path);
Result<void> sync_file(const OpenFile& file, const std::filesystem::path& path);
Result<std::uint64_t> size_of(const OpenFile& file, const std::filesystem::path& path);
// Makes the entries of a folder safe.
Result<void> sync_entries(const std::filesystem::path& folder);
Result<void> rename_file(const std::filesystem::path& from, const std::filesystem::path& to);
// The whole of a small file; kInternal when it has more than `bytes_max`.
Result<std::string> read_small_file(const std::filesystem::path& path, std::size_t bytes_max);

}  // namespace tessera::gateway
