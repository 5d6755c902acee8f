#include "clients/cli/output/durable_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/check.hpp"

namespace tessera::cli {
namespace {

constexpr std::size_t kPendingBytesMax = 1U << 20;

[[noreturn]] void fail(const std::string& what, const std::string& path) {
  throw FatalError("cannot " + what + " " + path + ": " + std::strerror(errno));
}

void write_all(int fd, std::string_view bytes, std::uint64_t offset, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t done = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      fail("write", path);
    }
    bytes.remove_prefix(static_cast<std::size_t>(done));
    offset += static_cast<std::uint64_t>(done);
  }
}

}  // namespace

DurableFile::DurableFile(std::string path, std::uint64_t keep_bytes)
    : path_(std::move(path)), size_(keep_bytes) {
  fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) {
    fail("open", path_);
  }
  struct stat status {};
  if (fstat(fd_, &status) != 0) {
    fail("read", path_);
  }
  if (!S_ISREG(status.st_mode)) {
    close(fd_);
    throw FatalError(path_ + " is no regular file; a job's files are cut back after a crash");
  }
  if (static_cast<std::uint64_t>(status.st_size) < keep_bytes) {
    close(fd_);
    throw FatalError(path_ + " is shorter than when the job was left; it cannot be continued");
  }
  if (ftruncate(fd_, static_cast<off_t>(keep_bytes)) != 0) {
    fail("cut", path_);
  }
}

DurableFile::~DurableFile() { close(fd_); }  // What was not synced does not count.

void DurableFile::append(std::span<const std::byte> bytes) {
  pending_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  size_ += bytes.size();
  if (pending_.size() >= kPendingBytesMax) {
    flush();
  }
}

void DurableFile::flush() {
  write_all(fd_, pending_, size_ - pending_.size(), path_);
  pending_.clear();
}

void DurableFile::overwrite(std::uint64_t offset, std::string_view text) {
  CHECK(offset + text.size() <= size_);
  flush();
  write_all(fd_, text, offset, path_);
}

void DurableFile::sync() {
  flush();
  if (fdatasync(fd_) != 0) {
    fail("sync", path_);
  }
}

}  // namespace tessera::cli
