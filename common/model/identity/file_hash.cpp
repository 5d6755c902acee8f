#include "common/model/identity/file_hash.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "common/model/identity/hasher.hpp"

namespace tessera {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::size_t kReadBytes = 256 << 10;  // stays in the L2 cache until it is hashed
constexpr int kThreadsMax = 64;
constexpr std::string_view kTag = "tessera file tree 1";

std::int64_t nanoseconds(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

Error changed(const std::filesystem::path& path) {
  return {ErrorCode::kConflict,
          path.string() + " was changed while it was read: start again when it is complete"};
}

class Descriptor {
 public:
  explicit Descriptor(const std::filesystem::path& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

struct Leaf {
  std::size_t file = 0;
  std::uint64_t offset = 0;
};

// The leaves of all files, taken by threads one after the other.
class Tree {
 public:
  Tree(std::span<const StampedFile> files, std::stop_token stop)
      : files_(files), stop_(std::move(stop)) {
    for (std::size_t i = 0; i < files.size(); ++i) {
      for (std::uint64_t at = 0; at < files[i].stamp.size; at += kHashLeafBytes) {
        leaves_.push_back({.file = i, .offset = at});
      }
    }
    digests_.resize(leaves_.size());
  }

  std::size_t leaves() const { return leaves_.size(); }

  // Of each thread. It opens files anew, so that the kernel reads ahead for its own leaf.
  void work() {
    std::vector<std::byte> buffer(kReadBytes);
    std::unique_ptr<Descriptor> file;
    std::size_t opened = 0;
    for (std::size_t i = next_++; i < leaves_.size() && !failed_; i = next_++) {
      if (stop_.stop_requested()) {
        return fail({ErrorCode::kCancelled, "hashing was stopped"});
      }
      const Leaf& leaf = leaves_[i];
      if (file == nullptr || opened != leaf.file) {
        file = std::make_unique<Descriptor>(files_[leaf.file].path);
        opened = leaf.file;
        struct stat status {};
        if (file->get() < 0 || ::fstat(file->get(), &status) != 0 ||
            !stamp_of(status).same_contents(files_[opened].stamp)) {
          return fail(changed(files_[opened].path));
        }
        ::posix_fadvise(file->get(), 0, 0, POSIX_FADV_SEQUENTIAL);
      }
      if (!hash_leaf(file->get(), leaf, buffer, digests_[i])) {
        return;
      }
    }
  }

  Result<std::vector<Digest>> finish() const {
    if (error_) {
      return *error_;
    }
    std::vector<Digest> roots;
    auto leaf = digests_.begin();
    for (const StampedFile& file : files_) {
      // Whoever wrote while it was read has moved its times.
      if (const auto now = stamp_of(file.path); !now || !now->same_contents(file.stamp)) {
        return changed(file.path);
      }
      Hasher root;
      root.field(kTag);
      root.raw(kHashLeafBytes);
      root.raw(file.stamp.size);
      for (std::uint64_t at = 0; at < file.stamp.size; at += kHashLeafBytes) {
        root.raw(*leaf++);
      }
      roots.push_back(root.finish());
    }
    return roots;
  }

 private:
  bool hash_leaf(int fd, const Leaf& leaf, std::span<std::byte> buffer, Digest& digest) {
    const std::uint64_t end = std::min(leaf.offset + kHashLeafBytes, files_[leaf.file].stamp.size);
    Hasher hasher;
    for (std::uint64_t at = leaf.offset; at < end;) {
      const auto wanted = std::min<std::uint64_t>(buffer.size(), end - at);
      const ssize_t got = ::pread(fd, buffer.data(), wanted, static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got <= 0) {
        fail(got == 0 ? changed(files_[leaf.file].path)
                      : Error{ErrorCode::kUnavailable,
                              files_[leaf.file].path.string() + ": " + std::strerror(errno)});
        return false;
      }
      hasher.raw(buffer.first(static_cast<std::size_t>(got)));
      at += static_cast<std::uint64_t>(got);
    }
    digest = hasher.finish();
    return true;
  }

  void fail(Error error) {
    const std::lock_guard lock(mutex_);
    if (!error_) {
      error_ = std::move(error);
    }
    failed_ = true;
  }

  const std::span<const StampedFile> files_;
  const std::stop_token stop_;
  std::vector<Leaf> leaves_;
  std::vector<Digest> digests_;  // of leaves; each is written by the thread that took it
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;  // Guards error_.
  std::optional<Error> error_;
};

}  // namespace

FileStamp stamp_of(const struct stat& status) {
  return {.size = static_cast<std::uint64_t>(status.st_size),
          .inode = static_cast<std::uint64_t>(status.st_ino),
          .modified_ns = nanoseconds(status.st_mtim),
          .changed_ns = nanoseconds(status.st_ctim)};
}

Result<FileStamp> stamp_of(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return Error{ErrorCode::kNotFound, path.string() + " cannot be read"};
  }
  return stamp_of(status);
}

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// A time ahead of the clock was set by hand or by another machine's clock; writing moves it.
bool written_just_now(const FileStamp& stamp, std::int64_t now) {
  const auto near = [now](std::int64_t then) {
    return then > now - 2 * kSecond && then < now + 2 * kSecond;
  };
  return near(stamp.modified_ns) || near(stamp.changed_ns);
}

Result<std::vector<Digest>> hash_files(std::span<const StampedFile> files, int threads,
                                       const std::stop_token& stop) {
  Tree tree(files, stop);
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const auto wanted =
      static_cast<std::size_t>(std::clamp(threads > 0 ? threads : cores, 1, kThreadsMax));
  {
    std::vector<std::jthread> others;
    for (std::size_t i = 1; i < std::min(wanted, tree.leaves()); ++i) {
      others.emplace_back([&tree] { tree.work(); });
    }
    tree.work();
  }
  return tree.finish();
}

}  // namespace tessera
