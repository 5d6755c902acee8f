#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <set>
#include <string>

#include "clients/gateway/files/disk.hpp"
#include "common/result.hpp"

namespace tessera::gateway {

// How much a FileStore holds, against its quota: the files of all processes, as of a walk of the
// folder at most once a second, and what this process is writing. Any thread.
class FileUsage {
 public:
  // `files` has a folder for each tenant. `bytes_max` 0: no quota.
  FileUsage(std::filesystem::path files, std::uint64_t bytes_max)
      : files_(std::move(files)), bytes_max_(bytes_max) {}

  // Counts `bytes` that are about to be written; kResourceExhausted, and nothing counted, when the
  // quota has no room for them.
  Result<void> reserve(std::uint64_t bytes);
  void release(std::uint64_t bytes);
  // A file came or went.
  void add(std::int64_t bytes);
  std::uint64_t bytes();
  // Whether nothing was said yet of what is wrong with `path`.
  bool first_warning(const std::filesystem::path& path);

 private:
  void walk_when_due();

  const std::filesystem::path files_;
  const std::uint64_t bytes_max_;
  std::mutex mutex_;
  std::uint64_t bytes_ = 0;
  std::uint64_t unfinished_ = 0;
  std::chrono::steady_clock::time_point next_walk_;
  std::set<std::string> warned_;
};

// Calls `each` for the entries of a folder; for none where it cannot be read.
void for_each_entry(const std::filesystem::path& folder,
                    const std::function<void(const std::filesystem::directory_entry&)>& each);

// Removes the plain files of a folder that have not changed for a day before `now` (seconds since
// 1970) and of which `left_behind` is true. Returns how many.
std::size_t remove_old_files(const std::filesystem::path& folder, std::int64_t now,
                             const std::function<bool(const std::filesystem::path&)>& left_behind);

// A name for a tenant's folder: 32 hexadecimal digits, BLAKE2b of its name.
std::string hash_of_tenant(std::string_view tenant);

// Has the kernel begin to write each whole 8 MiB of a file that grew from `before` to `now` bytes,
// so that the fsync at its end is short.
void begin_writing_back(const OpenFile& file, std::uint64_t before, std::uint64_t now);

}  // namespace tessera::gateway
