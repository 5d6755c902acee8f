#include "clients/gateway/files/file_usage.hpp"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "common/check.hpp"

namespace tessera::gateway {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

namespace {

constexpr std::chrono::seconds kWalkEvery{1};
constexpr int kWalkShare =
    20;  // Walks take at most this part of the time, however large the folder.
constexpr std::size_t kWarningsMax = 1000;
constexpr std::int64_t kDay = 86'400;
constexpr std::uint64_t kWriteBackBytes = 8U << 20;

std::uint64_t bytes_below(const fs::path& files) {
  std::uint64_t bytes = 0;
  for_each_entry(files, [&](const fs::directory_entry& tenant) {
    for_each_entry(tenant.path(), [&](const fs::directory_entry& entry) {
      std::error_code error;
      const auto size = entry.path().extension() == ".jsonl" ? entry.file_size(error) : 0;
      bytes += error ? 0 : size;
    });
  });
  return bytes;
}

}  // namespace

void FileUsage::walk_when_due() {
  const auto began = steady_clock::now();
  if (began < next_walk_) {
    return;
  }
  bytes_ = bytes_below(files_);
  const auto ended = steady_clock::now();
  next_walk_ = ended + std::max<steady_clock::duration>(kWalkEvery, (ended - began) * kWalkShare);
}

Result<void> FileUsage::reserve(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes_max_ > 0) {
    walk_when_due();
    if (bytes_ + unfinished_ + bytes > bytes_max_) {
      return Error{ErrorCode::kResourceExhausted,
                   "the files of this server would have more than the " +
                       std::to_string(bytes_max_) + " bytes that they may; delete some first"};
    }
  }
  unfinished_ += bytes;
  return {};
}

void FileUsage::release(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  CHECK(bytes <= unfinished_);
  unfinished_ -= bytes;
}

void FileUsage::add(std::int64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto gone = static_cast<std::uint64_t>(std::max<std::int64_t>(-bytes, 0));
  bytes_ -= std::min(gone, bytes_);  // A walk may have seen it already.
  bytes_ += static_cast<std::uint64_t>(std::max<std::int64_t>(bytes, 0));
}

std::uint64_t FileUsage::bytes() {
  const std::lock_guard lock(mutex_);
  walk_when_due();
  return bytes_;
}

bool FileUsage::first_warning(const fs::path& path) {
  const std::lock_guard lock(mutex_);
  return warned_.size() < kWarningsMax && warned_.insert(path).second;
}

void for_each_entry(const fs::path& folder,
                    const std::function<void(const fs::directory_entry&)>& each) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    each(*entry);
  }
}

std::size_t remove_old_files(const fs::path& folder, std::int64_t now,
                             const std::function<bool(const fs::path&)>& left_behind) {
  std::vector<fs::path> old;
  for_each_entry(folder, [&](const fs::directory_entry& entry) {
    struct stat status {};
    // The time of the last change, which a rename is, too: a batch's output may be old.
    if (lstat(entry.path().c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
        status.st_ctim.tv_sec < now - kDay && left_behind(entry.path())) {
      old.push_back(entry.path());
    }
  });
  return static_cast<std::size_t>(
      std::ranges::count_if(old, [](const fs::path& path) { return unlink(path.c_str()) == 0; }));
}

std::string hash_of_tenant(std::string_view tenant) {
  std::array<unsigned char, 16> hash{};
  CHECK(crypto_generichash(hash.data(), hash.size(),
                           reinterpret_cast<const unsigned char*>(tenant.data()), tenant.size(),
                           nullptr, 0) == 0);
  std::string text(2 * hash.size() + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), hash.data(), hash.size());
  text.pop_back();
  return text;
}

void begin_writing_back(const OpenFile& file, std::uint64_t before, std::uint64_t now) {
  const std::uint64_t from = before / kWriteBackBytes * kWriteBackBytes;
  const std::uint64_t to = now / kWriteBackBytes * kWriteBackBytes;
  if (from < to) {
    (void)sync_file_range(file.fd(), static_cast<off_t>(from), static_cast<off_t>(to - from),
                          SYNC_FILE_RANGE_WRITE);
  }
}

}  // namespace tessera::gateway
