#include "clients/gateway/files/disk.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace tessera::gateway {

using std::filesystem::path;

OpenFile::~OpenFile() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

Error disk_error(const std::string& what, const path& file, int reason) {
  const bool full = reason == ENOSPC || reason == EDQUOT || reason == EFBIG;
  return {full               ? ErrorCode::kResourceExhausted
          : reason == ENOENT ? ErrorCode::kNotFound
                             : ErrorCode::kInternal,
          "cannot " + what + " " + file.string() + ": " + std::strerror(reason)};
}

Result<OpenFile> open_new_file(const path& file, unsigned mode) {
  OpenFile opened(open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!opened.is_open()) {
    return disk_error("make", file, errno);
  }
  return opened;
}

Result<OpenFile> open_to_read(const path& file) {
  OpenFile opened(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!opened.is_open()) {
    return disk_error("read", file, errno);
  }
  return opened;
}

Result<void> write_all(const OpenFile& file, std::string_view bytes, const path& where) {
  while (!bytes.empty()) {
    const ssize_t done = write(file.fd(), bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      return disk_error("write", where, done < 0 ? errno : EIO);
    }
    bytes.remove_prefix(static_cast<std::size_t>(done));
  }
  return {};
}

Result<void> sync_file(const OpenFile& file, const path& where) {
  return fsync(file.fd()) == 0 ? Result<void>() : disk_error("sync", where, errno);
}

Result<std::uint64_t> size_of(const OpenFile& file, const path& where) {
  struct stat status {};
  if (fstat(file.fd(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return disk_error("read", where, EINVAL);
  }
  return static_cast<std::uint64_t>(status.st_size);
}

Result<void> sync_entries(const path& folder) {
  const OpenFile opened(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return opened.is_open() ? sync_file(opened, folder) : disk_error("sync", folder, errno);
}

Result<void> rename_file(const path& from, const path& to) {
  return std::rename(from.c_str(), to.c_str()) == 0 ? Result<void>()
                                                    : disk_error("rename to", to, errno);
}

Result<std::string> read_small_file(const path& file, std::size_t bytes_max) {
  auto opened = open_to_read(file);
  if (!opened) {
    return opened.error();
  }
  std::string text(bytes_max + 1, '\0');
  std::size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t got = read(opened->fd(), text.data() + filled, text.size() - filled);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return disk_error("read", file, errno);
    }
    if (got == 0) {
      text.resize(filled);
      return text;
    }
    filled += static_cast<std::size_t>(got);
  }
  return disk_error("read", file, EFBIG);
}

}  // namespace tessera::gateway
