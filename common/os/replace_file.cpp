#include "common/os/replace_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "common/check.hpp"

namespace tessera {
namespace {

constexpr int kLinksMax = 40;  // As many as the kernel follows.

[[noreturn]] void fail(const std::string& what, const std::string& path, int reason = errno) {
  throw FatalError("cannot " + what + " " + path + ": " + std::strerror(reason));
}

// Where the text goes: an open file of ours, or a path that is no symbolic link.
struct Target {
  std::string path;
  int descriptor = -1;
  bool exists = false;
  struct stat status {};
};

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder;
}

// The number of an open file of this process that the entry `name` of `folder` stands for; -1 when
// the folder is another one.
int own_descriptor(const std::string& folder, const std::string& name) {
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(folder.c_str(), nullptr),
                                                         &std::free);
  if (real == nullptr || "/proc/" + std::to_string(getpid()) + "/fd" != real.get()) {
    return -1;
  }
  int number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  return error == std::errc() && end == name.data() + name.size() ? number : -1;
}

Target resolve(const std::string& path) {
  Target target{.path = path};
  for (int links = 0; links < kLinksMax; ++links) {
    if (lstat(target.path.c_str(), &target.status) != 0) {
      if (errno != ENOENT) {
        fail("write", path);
      }
      return target;
    }
    target.exists = true;
    if (!S_ISLNK(target.status.st_mode)) {
      return target;
    }
    const std::filesystem::path link(target.path);
    target.descriptor = own_descriptor(folder_of(target.path), link.filename());
    if (target.descriptor >= 0) {
      return target;
    }
    std::array<char, PATH_MAX> to{};
    if (readlink(target.path.c_str(), to.data(), to.size() - 1) < 0) {
      fail("read the link", target.path);
    }
    target.path = (link.parent_path() / to.data()).string();  // An absolute one stands alone.
    target.exists = false;
  }
  fail("write", path, ELOOP);
}

bool is_stream(const Target& target) {
  return target.descriptor >= 0 || (target.exists && !S_ISREG(target.status.st_mode));
}

void write_stream(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t done = write(fd, text.data(), text.size());
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      fail("write", path);
    }
    text.remove_prefix(static_cast<std::size_t>(done));
  }
}

void write_through(const Target& target, std::string_view text, const std::string& path) {
  if (target.descriptor >= 0) {
    std::fflush(nullptr);  // What was printed before stands before it.
    write_stream(target.descriptor, text, path);
    return;
  }
  const int fd = open(target.path.c_str(), O_WRONLY | O_CLOEXEC);  // A FIFO waits for its reader.
  if (fd < 0) {
    fail("write", path);
  }
  write_stream(fd, text, path);
  if (close(fd) != 0) {
    fail("write", path);
  }
}

// A name that nobody has: a file of the user's with a likely name is left alone.
int make_beside(const std::string& path, std::string& name) {
  for (int number = 0;; ++number) {
    name = path + "." + std::to_string(getpid()) + "-" + std::to_string(number) + ".new";
    const int fd = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) {
      return fd;
    }
    if (errno != EEXIST) {
      fail("write", path);
    }
  }
}

void write_beside(int fd, const Target& target, std::string_view text) {
  if (target.exists) {  // The file stays whose it was; that may be forbidden and is no harm.
    if (fchown(fd, target.status.st_uid, target.status.st_gid) != 0) {
      errno = 0;
    }
    if (fchmod(fd, target.status.st_mode & 07777) != 0) {
      fail("set the mode of", target.path);
    }
  }
  write_stream(fd, text, target.path);
  if (fsync(fd) != 0) {
    fail("sync", target.path);
  }
}

void check_target(const Target& target, const std::string& path) {
  if (target.exists && S_ISDIR(target.status.st_mode)) {
    fail("write", path, EISDIR);
  }
  if (target.descriptor >= 0) {
    return;
  }
  // Renaming over a write-protected file would work all the same.
  const std::string written = target.exists ? target.path : folder_of(target.path);
  if (access(written.c_str(), W_OK) != 0) {
    fail("write", path);
  }
}

}  // namespace

void check_replaceable(const std::string& path) { check_target(resolve(path), path); }

void replace_file(const std::string& path, std::string_view text) {
  const Target target = resolve(path);
  check_target(target, path);
  if (is_stream(target)) {
    write_through(target, text, path);
    return;
  }
  std::string fresh;
  const int fd = make_beside(target.path, fresh);
  try {
    write_beside(fd, target, text);
    if (std::rename(fresh.c_str(), target.path.c_str()) != 0) {
      fail("replace", path);
    }
  } catch (const FatalError&) {
    close(fd);
    unlink(fresh.c_str());
    throw;
  }
  close(fd);
  sync_folder(folder_of(target.path));
}

void sync_folder(const std::string& folder) {
  const int fd = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) {
    fail("sync", folder);
  }
  close(fd);
}

}  // namespace tessera
