#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.hpp"

namespace tessera::gateway {

// One file of a tenant, as OpenAI's File object has it. Times are seconds since 1970.
struct FileInfo {
  std::string id;  // "file-" and 32 hexadecimal digits.
  std::string tenant;
  std::string filename;  // The client's word; never part of a path.
  std::string purpose;   // "batch", "batch_output"
  std::uint64_t bytes = 0;
  std::int64_t created_at = 0;
  std::optional<std::int64_t> expires_at;
};

struct FileStoreOptions {
  std::filesystem::path folder;  // Shared by all gateways that serve the same batches.
  std::uint64_t bytes_max = 0;   // Of all files together; 0: what the disk has.
};

class FileUsage;

// Which of a tenant's files a page shows.
struct FileQuery {
  std::string purpose;  // Empty: all.
  std::string after;    // Begins behind this id.
  std::size_t limit = 10'000;
  bool ascending = false;  // Oldest first.
};

struct FilePage {
  std::vector<FileInfo> files;
  bool more = false;
};

// The files that clients uploaded and that batches made, in a folder. A file is there whole or not
// at all: it is written under a name of its own, made safe on the disk, and then renamed; what a
// killed process left half is swept away a day later. Several processes may use one folder. Blocks
// for the time of the disk, so not on a loop's thread; functions may be called from any thread.
//
//   FOLDER/files/TENANT/ID.jsonl  The bytes. TENANT is a hash, since tenants may have any name.
//   FOLDER/files/TENANT/ID.json   What FileInfo says; the file exists from its rename to its end.
//   FOLDER/incoming/              What is being written.
//   FOLDER/work/BATCH/            Unfinished work of a batch.
class FileStore {
 public:
  explicit FileStore(FileStoreOptions options);  // Makes the folder. Throws FatalError.
  ~FileStore();                                  // After its writers.
  FileStore(const FileStore&) = delete;
  FileStore& operator=(const FileStore&) = delete;

  // A file while it is being written. Destroyed before commit(), it leaves nothing.
  class Writer {
   public:
    virtual ~Writer() = default;
    // kResourceExhausted when the quota or the disk is full.
    virtual Result<void> write(std::string_view bytes) = 0;
    virtual std::uint64_t bytes() const = 0;
    // Makes the file safe and visible. `info` has tenant, filename, purpose and the times; id (when
    // empty) and bytes are set here.
    virtual Result<FileInfo> commit(FileInfo info) = 0;
  };
  Result<std::unique_ptr<Writer>> create();

  // Takes a finished file of the same file system in (a batch's output): fsync, rename. An
  // `info.id` that is there already is ok and changes nothing, so that a batch whose runner died
  // between this and its record can do it again.
  Result<FileInfo> adopt(const std::filesystem::path& finished, FileInfo info);

  // kNotFound for another tenant's file, too, and for one that has expired.
  Result<FileInfo> find(const std::string& tenant, const std::string& id) const;
  Result<FilePage> list(const std::string& tenant, const FileQuery& query) const;
  Result<void> remove(const std::string& tenant, const std::string& id);
  // Where its bytes are. An open descriptor outlives remove().
  std::filesystem::path path_of(const FileInfo& info) const;
  // A folder for the unfinished work of one batch, made when it is not there.
  Result<std::filesystem::path> work_folder(const std::string& batch_id);
  void remove_work_folder(const std::string& batch_id);
  // The batches with a work folder.
  std::vector<std::string> batches_at_work() const;

  // Removes what has expired and what killed processes left. Returns how many files went.
  std::size_t sweep(std::int64_t now);
  // Bytes of all files; walks the folder at most once a second.
  std::uint64_t bytes_held() const;

 private:
  class DiskWriter;

  std::filesystem::path tenant_folder(const std::string& tenant) const;
  Result<FileInfo> publish(const std::filesystem::path& written, FileInfo info);
  // The file of that id, expired or not.
  Result<FileInfo> read_info(const std::filesystem::path& folder, const std::string& id) const;
  Result<void> erase(const std::filesystem::path& folder, const FileInfo& info);
  std::size_t sweep_tenant(const std::filesystem::path& folder, std::int64_t now);

  const FileStoreOptions options_;
  const std::unique_ptr<FileUsage> usage_;
};

}  // namespace tessera::gateway
