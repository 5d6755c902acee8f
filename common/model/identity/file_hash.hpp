#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <stop_token>
#include <vector>

#include "common/model/identity/digest.hpp"
#include "common/result.hpp"

struct stat;

namespace tessera {

// What tells that a file may have been changed: of the file that a link leads to.
struct FileStamp {
  std::uint64_t size = 0;
  std::uint64_t inode = 0;
  std::int64_t modified_ns = 0;  // since 1970, of the contents
  std::int64_t changed_ns = 0;   // of the inode: an old modification time may be set, this cannot
  bool operator==(const FileStamp&) const = default;
  // Whether the contents are those of the other stamp, as far as stamps tell between two looks of
  // one process. A link made to the file meanwhile changes its inode and nothing of this.
  bool same_contents(const FileStamp& other) const {
    return size == other.size && inode == other.inode && modified_ns == other.modified_ns;
  }
};

FileStamp stamp_of(const struct stat& status);
Result<FileStamp> stamp_of(const std::filesystem::path& path);
// Whether the file was written less than 2 s before `now_ns`: further writing may then leave its
// stamp as it is, since clocks of file systems have steps (1 s to 2 s on some).
bool written_just_now(const FileStamp& stamp, std::int64_t now_ns);
std::int64_t now_ns();

// A file as it was when somebody looked at it first.
struct StampedFile {
  std::filesystem::path path;
  FileStamp stamp;
};

inline constexpr std::uint64_t kHashLeafBytes = 4 << 20;

// Hashes every byte of the files on `threads` threads (0: all cores): BLAKE2b-256 over a tag, the
// file's size and the BLAKE2b-256 of each of its leaves of kHashLeafBytes, so that neither the
// number of threads nor their order shows in it. Leaves are read in order, each front to back, with
// plain reads: what loads the same file finds it in the page cache. kConflict when a file is not
// the one of its stamp before or after, kCancelled when `stop` asked for it.
Result<std::vector<Digest>> hash_files(std::span<const StampedFile> files, int threads,
                                       const std::stop_token& stop = {});

}  // namespace tessera
