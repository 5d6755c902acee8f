#include "clients/gateway/files/file_store.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <tuple>
#include <utility>

#include "clients/gateway/files/disk.hpp"
#include "clients/gateway/files/file_info.hpp"
#include "clients/gateway/files/file_usage.hpp"
#include "clients/gateway/http/request_id.hpp"
#include "common/check.hpp"
#include "common/log.hpp"

namespace tessera::gateway {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kRecordBytesMax = 128U << 10;
constexpr std::string_view kDataEnd = ".jsonl";
constexpr std::string_view kRecordEnd = ".json";

bool has_expired(const FileInfo& info, std::int64_t now) {
  return info.expires_at && *info.expires_at <= now;
}

Error no_such_file(const std::string& id) {
  return {ErrorCode::kNotFound, "there is no file " + id.substr(0, 64)};
}

fs::path data_path(const fs::path& folder, const std::string& id) {
  return folder / (id + std::string(kDataEnd));
}

fs::path record_path(const fs::path& folder, const std::string& id) {
  return folder / (id + std::string(kRecordEnd));
}

Error bad_id() {
  return {ErrorCode::kInvalidArgument, "a file's id is file- and 32 hexadecimal digits"};
}

Result<void> ensure_folder(const fs::path& folder) {
  std::error_code error;
  const bool made = fs::create_directory(folder, error);
  if (error) {
    return disk_error("make", folder, error.value());
  }
  return made ? sync_entries(folder.parent_path()) : Result<void>();
}

// The ids whose records lie in a tenant's folder; none when there is no such folder.
std::vector<std::string> ids_in(const fs::path& folder) {
  std::vector<std::string> ids;
  for_each_entry(folder, [&](const fs::directory_entry& entry) {
    std::string id = entry.path().stem();
    if (entry.path().extension() == kRecordEnd && is_file_id(id)) {
      ids.push_back(std::move(id));
    }
  });
  return ids;
}

// Writes a record under a name of its own in `incoming`, safe and ready to be renamed.
Result<fs::path> write_record(const fs::path& incoming, const FileInfo& info) {
  fs::path path = incoming / (http::random_hex(16) + std::string(kRecordEnd));
  auto file = open_new_file(path);
  if (!file) {
    return file.error();
  }
  auto ok = write_all(*file, record_of(info), path);
  if (ok) {
    ok = sync_file(*file, path);
  }
  if (!ok) {
    unlink(path.c_str());
    return ok.error();
  }
  return path;
}

// Whether a page shows `info`, going on behind `after` in the query's order.
bool shown(const FileInfo& info, const FileQuery& query, const std::optional<FileInfo>& after,
           std::int64_t now) {
  if (has_expired(info, now) || (!query.purpose.empty() && info.purpose != query.purpose)) {
    return false;
  }
  const auto place = std::tie(info.created_at, info.id);
  return !after || (query.ascending ? place > std::tie(after->created_at, after->id)
                                    : place < std::tie(after->created_at, after->id));
}

}  // namespace

FileStore::FileStore(FileStoreOptions options)
    : options_(std::move(options)),
      usage_(std::make_unique<FileUsage>(options_.folder / "files", options_.bytes_max)) {
  for (const char* name : {"files", "incoming", "work"}) {
    const fs::path folder = options_.folder / name;
    std::error_code error;
    fs::create_directories(folder, error);
    if (error || access(folder.c_str(), R_OK | W_OK | X_OK) != 0) {
      throw FatalError("cannot keep files in " + folder.string() + ": " +
                       (error ? error.message() : std::strerror(errno)));
    }
  }
  if (auto ok = sync_entries(options_.folder); !ok) {
    throw FatalError(ok.error().message);
  }
}

FileStore::~FileStore() = default;

fs::path FileStore::tenant_folder(const std::string& tenant) const {
  return options_.folder / "files" / hash_of_tenant(tenant);
}

fs::path FileStore::path_of(const FileInfo& info) const {
  CHECK(is_file_id(info.id));
  return data_path(tenant_folder(info.tenant), info.id);
}

// writing

class FileStore::DiskWriter : public FileStore::Writer {
 public:
  DiskWriter(FileStore& store, OpenFile file, fs::path path)
      : store_(store), file_(std::move(file)), path_(std::move(path)) {}
  ~DiskWriter() override {
    store_.usage_->release(reserved_);
    if (!committed_) {
      unlink(path_.c_str());
    }
  }
  DiskWriter(const DiskWriter&) = delete;
  DiskWriter& operator=(const DiskWriter&) = delete;

  Result<void> write(std::string_view bytes) override {
    if (auto ok = store_.usage_->reserve(bytes.size()); !ok) {
      return ok;
    }
    reserved_ += bytes.size();
    if (auto ok = write_all(file_, bytes, path_); !ok) {
      return ok;
    }
    bytes_ += bytes.size();
    begin_writing_back(file_, bytes_ - bytes.size(), bytes_);
    return {};
  }

  std::uint64_t bytes() const override { return bytes_; }

  Result<FileInfo> commit(FileInfo info) override {
    CHECK(!committed_);
    info.bytes = bytes_;
    if (auto ok = sync_file(file_, path_); !ok) {
      return ok.error();
    }
    auto published = store_.publish(path_, std::move(info));
    committed_ = published.ok();
    if (committed_) {
      store_.usage_->release(std::exchange(reserved_, 0));
    }
    return published;
  }

 private:
  FileStore& store_;
  OpenFile file_;
  const fs::path path_;
  std::uint64_t bytes_ = 0;
  std::uint64_t reserved_ = 0;
  bool committed_ = false;
};

Result<std::unique_ptr<FileStore::Writer>> FileStore::create() {
  fs::path path = options_.folder / "incoming" / (http::random_hex(16) + ".part");
  auto file = open_new_file(path);
  if (!file) {
    return file.error();
  }
  return std::unique_ptr<Writer>(
      std::make_unique<DiskWriter>(*this, std::move(*file), std::move(path)));
}

// `written` is safe on the disk. When it fails, `written` is where it was.
Result<FileInfo> FileStore::publish(const fs::path& written, FileInfo info) {
  if (info.id.empty()) {
    info.id = new_file_id();
  }
  if (!is_file_id(info.id)) {
    return bad_id();
  }
  const fs::path folder = tenant_folder(info.tenant);
  if (auto ok = ensure_folder(folder); !ok) {
    return ok.error();
  }
  auto record = write_record(options_.folder / "incoming", info);
  if (!record) {
    return record.error();
  }
  const fs::path data = data_path(folder, info.id);
  auto ok = written == data ? Result<void>() : rename_file(written, data);
  const bool moved = ok.ok();
  if (ok) {
    ok = sync_entries(folder);  // Before the record, which says that the bytes are there.
  }
  if (ok) {
    ok = rename_file(*record, record_path(folder, info.id));
  }
  if (!ok) {
    unlink(record->c_str());
    if (moved && written != data) {
      (void)rename_file(data, written);
    }
    return ok.error();
  }
  usage_->add(static_cast<std::int64_t>(info.bytes));
  if (auto synced = sync_entries(folder); !synced) {
    log::warn("{}", synced.error().message);  // It is there, if perhaps not after a power cut.
  }
  return info;
}

Result<FileInfo> FileStore::adopt(const fs::path& finished, FileInfo info) {
  if (!info.id.empty() && !is_file_id(info.id)) {
    return bad_id();
  }
  fs::path source = finished;
  if (!info.id.empty()) {
    const fs::path folder = tenant_folder(info.tenant);
    if (auto there = read_info(folder, info.id)) {
      there->tenant = info.tenant;
      return *there;
    }
    std::error_code error;
    if (!fs::exists(finished, error)) {  // A call that died behind its first rename.
      source = data_path(folder, info.id);
    }
  }
  auto file = open_to_read(source);
  if (!file) {
    return file.error().code == ErrorCode::kNotFound
               ? Error{ErrorCode::kNotFound, "there is no file " + finished.string()}
               : file.error();
  }
  const auto bytes = size_of(*file, source);
  if (!bytes) {
    return bytes.error();
  }
  if (auto ok = sync_file(*file, source); !ok) {
    return ok.error();
  }
  info.bytes = *bytes;
  return publish(source, std::move(info));
}

// reading

Result<FileInfo> FileStore::read_info(const fs::path& folder, const std::string& id) const {
  const fs::path path = record_path(folder, id);
  auto text = read_small_file(path, kRecordBytesMax);
  if (!text && text.error().code == ErrorCode::kNotFound) {
    return no_such_file(id);
  }
  auto info = text ? parse_record(std::move(*text)) : Result<FileInfo>(text.error());
  if (info && info->id == id) {
    return info;
  }
  if (usage_->first_warning(path)) {
    log::warn("the file of {} is left out: {}", path.string(),
              info ? "the record is another's" : info.error().message);
  }
  return no_such_file(id);
}

Result<FileInfo> FileStore::find(const std::string& tenant, const std::string& id) const {
  if (!is_file_id(id)) {
    return no_such_file(id);
  }
  auto info = read_info(tenant_folder(tenant), id);
  if (info && has_expired(*info, std::time(nullptr))) {
    return no_such_file(id);
  }
  if (info) {
    info->tenant = tenant;
  }
  return info;
}

Result<FilePage> FileStore::list(const std::string& tenant, const FileQuery& query) const {
  const fs::path folder = tenant_folder(tenant);
  std::optional<FileInfo> after;
  if (!query.after.empty()) {
    auto found =
        is_file_id(query.after) ? read_info(folder, query.after) : no_such_file(query.after);
    if (!found) {
      return Error{ErrorCode::kInvalidArgument, found.error().message};
    }
    after = std::move(*found);
  }
  const std::int64_t now = std::time(nullptr);
  FilePage page;
  for (const std::string& id : ids_in(folder)) {
    auto info = read_info(folder, id);
    if (info && shown(*info, query, after, now)) {
      info->tenant = tenant;
      page.files.push_back(std::move(*info));
    }
  }
  std::ranges::sort(page.files, [&](const FileInfo& a, const FileInfo& b) {
    const auto left = std::tie(a.created_at, a.id);
    const auto right = std::tie(b.created_at, b.id);
    return query.ascending ? left < right : right < left;
  });
  page.more = page.files.size() > query.limit;
  page.files.resize(std::min(page.files.size(), query.limit));
  return page;
}

std::uint64_t FileStore::bytes_held() const { return usage_->bytes(); }

// removing

// The record goes first: a file whose bytes are gone must not be seen.
Result<void> FileStore::erase(const fs::path& folder, const FileInfo& info) {
  const fs::path record = record_path(folder, info.id);
  if (unlink(record.c_str()) != 0) {
    return errno == ENOENT ? no_such_file(info.id) : disk_error("remove", record, errno);
  }
  if (auto ok = sync_entries(folder); !ok) {
    return ok;
  }
  const fs::path data = data_path(folder, info.id);
  if (unlink(data.c_str()) == 0) {
    usage_->add(-static_cast<std::int64_t>(info.bytes));
  } else if (errno != ENOENT) {
    log::warn("{}", disk_error("remove", data, errno).message);
  }
  return {};
}

Result<void> FileStore::remove(const std::string& tenant, const std::string& id) {
  const auto info = find(tenant, id);
  return info ? erase(tenant_folder(tenant), *info) : Result<void>(info.error());
}

std::size_t FileStore::sweep_tenant(const fs::path& folder, std::int64_t now) {
  std::size_t gone = 0;
  for (const std::string& id : ids_in(folder)) {
    const auto info = read_info(folder, id);
    if (info && has_expired(*info, now) && erase(folder, *info).ok()) {
      ++gone;
    }
  }
  // Bytes without a record are another process's that has yet to write it, or were left behind.
  return gone + remove_old_files(folder, now, [&](const fs::path& path) {
           std::error_code error;
           return path.extension() == kDataEnd && is_file_id(path.stem().string()) &&
                  !fs::exists(record_path(folder, path.stem()), error);
         });
}

std::size_t FileStore::sweep(std::int64_t now) {
  std::vector<fs::path> tenants;
  for_each_entry(options_.folder / "files",
                 [&](const fs::directory_entry& entry) { tenants.push_back(entry.path()); });
  std::size_t gone = 0;
  for (const fs::path& tenant : tenants) {
    gone += sweep_tenant(tenant, now);
  }
  return gone +
         remove_old_files(options_.folder / "incoming", now, [](const fs::path&) { return true; });
}

// batches

Result<fs::path> FileStore::work_folder(const std::string& batch_id) {
  if (!is_batch_id(batch_id)) {
    return Error{ErrorCode::kInvalidArgument, "a batch's id is letters, digits, - and _"};
  }
  fs::path folder = options_.folder / "work" / batch_id;
  if (auto ok = ensure_folder(folder); !ok) {
    return ok.error();
  }
  return folder;
}

std::vector<std::string> FileStore::batches_at_work() const {
  std::vector<std::string> ids;
  for_each_entry(options_.folder / "work",
                 [&](const fs::directory_entry& entry) { ids.push_back(entry.path().filename()); });
  return ids;
}

void FileStore::remove_work_folder(const std::string& batch_id) {
  if (!is_batch_id(batch_id)) {
    return;
  }
  std::error_code error;
  fs::remove_all(options_.folder / "work" / batch_id, error);
  if (error) {
    log::warn("cannot remove the work of {}: {}", batch_id, error.message());
  }
}

}  // namespace tessera::gateway
