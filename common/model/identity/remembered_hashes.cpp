#include "common/model/identity/remembered_hashes.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <span>
#include <utility>

#include "common/model/identity/hasher.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kBytesMax = 1 << 20;
constexpr std::size_t kFilesMax = 1024;
constexpr std::size_t kFormerMax = 64;
constexpr std::string_view kAbout =
    "Hashes of this model's weights, kept so that a start need not read them all; made anew when "
    "deleted";

// Over all that counts, so that a damaged file is not believed.
std::string check_of(const RememberedHashes& hashes) {
  Hasher hasher;
  hasher.field("tessera remembered hashes 1");
  for (const RememberedHashes::File& file : hashes.files) {
    hasher.field(file.name);
    hasher.raw(file.stamp.size);
    hasher.raw(file.stamp.inode);
    hasher.raw(static_cast<std::uint64_t>(file.stamp.modified_ns));
    hasher.raw(static_cast<std::uint64_t>(file.stamp.changed_ns));
    hasher.raw(file.hash);
  }
  for (const auto& [fingerprint, former] : hashes.former) {
    hasher.field(fingerprint);
    hasher.field(former);
  }
  return to_hex(hasher.finish());
}

template <typename T>
bool read_number(const json& object, const char* name, T& to) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_integer() ||
      (std::is_unsigned_v<T> && !found->is_number_unsigned())) {
    return false;
  }
  to = found->get<T>();
  return true;
}

std::optional<std::string> read_text(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string()) {
    return std::nullopt;
  }
  return found->get<std::string>();
}

std::optional<RememberedHashes::File> read_file_entry(const json& entry) {
  RememberedHashes::File file;
  if (!entry.is_object() || !read_number(entry, "size", file.stamp.size) ||
      !read_number(entry, "inode", file.stamp.inode) ||
      !read_number(entry, "modified_ns", file.stamp.modified_ns) ||
      !read_number(entry, "changed_ns", file.stamp.changed_ns)) {
    return std::nullopt;
  }
  const auto name = read_text(entry, "name"), hash = read_text(entry, "hash");
  const auto digest = hash ? from_hex(*hash) : std::nullopt;
  if (!name || !digest) {
    return std::nullopt;
  }
  file.name = *name;
  file.hash = *digest;
  return file;
}

class OpenFile {
 public:
  OpenFile(const fs::path& path, int flags) : fd_(::open(path.c_str(), flags, 0644)) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::string read_whole(const fs::path& path) {
  const OpenFile file(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  std::string text(kBytesMax + 1, '\0');
  std::size_t size = 0;
  while (file.get() >= 0 && size < text.size()) {
    const ssize_t got = ::read(file.get(), text.data() + size, text.size() - size);
    if (got <= 0) {
      break;
    }
    size += static_cast<std::size_t>(got);
  }
  text.resize(size <= kBytesMax ? size : 0);
  return text;
}

bool replace_whole(const fs::path& path, std::string_view text) {
  std::random_device random;
  const fs::path fresh =
      path.string() + "." + std::to_string(::getpid()) + "-" + std::to_string(random());
  bool written = false;
  {
    const OpenFile file(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW);
    if (file.get() < 0) {
      return false;
    }
    written = ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  }
  if (written && ::rename(fresh.c_str(), path.c_str()) == 0) {
    return true;
  }
  ::unlink(fresh.c_str());
  return false;
}

}  // namespace

const Digest* RememberedHashes::find(std::string_view name, const FileStamp& stamp) const {
  const auto found = std::ranges::find_if(
      files, [&](const File& file) { return file.name == name && file.stamp == stamp; });
  return found == files.end() ? nullptr : &found->hash;
}

std::string to_json(const RememberedHashes& hashes) {
  json files = json::array();
  for (const RememberedHashes::File& file : hashes.files) {
    files.push_back({{"name", file.name},
                     {"size", file.stamp.size},
                     {"inode", file.stamp.inode},
                     {"modified_ns", file.stamp.modified_ns},
                     {"changed_ns", file.stamp.changed_ns},
                     {"hash", to_hex(file.hash)}});
  }
  return json{{"about", kAbout},
              {"format", 1},
              {"files", files},
              {"former", hashes.former},
              {"check", check_of(hashes)}}
             .dump(1, ' ', false, json::error_handler_t::replace) +
         "\n";
}

RememberedHashes parse_remembered_hashes(std::string_view text) {
  const json object = text.size() <= kBytesMax ? json::parse(text, nullptr, false) : json(nullptr);
  if (!object.is_object() || object.value("format", json()) != json(1) ||
      !object.value("files", json()).is_array() || !object.value("former", json()).is_object() ||
      object["files"].size() > kFilesMax || object["former"].size() > kFormerMax) {
    return {};
  }
  RememberedHashes hashes;
  for (const json& entry : object["files"]) {
    auto file = read_file_entry(entry);
    if (!file) {
      return {};
    }
    hashes.files.push_back(std::move(*file));
  }
  for (const auto& [fingerprint, former] : object["former"].items()) {
    if (!from_hex(fingerprint) || !former.is_string() ||
        !from_hex(former.get_ref<const std::string&>())) {
      return {};
    }
    hashes.former.emplace(fingerprint, former.get<std::string>());
  }
  if (read_text(object, "check") != check_of(hashes)) {
    return {};
  }
  return hashes;
}

HashMemory::HashMemory(fs::path model_dir, const fs::path& cache_folder)
    : model_dir_(std::move(model_dir)), beside_(model_dir_ / ".tessera-fingerprint.json") {
  if (!cache_folder.empty()) {
    std::error_code failed;
    const std::string folder = fs::weakly_canonical(model_dir_, failed).string();
    const std::string name = to_hex(blake2b(std::as_bytes(std::span(folder)))).substr(0, 32);
    cached_ = cache_folder / "fingerprints" / (name + ".json");
  }
}

bool HashMemory::is_ours(const fs::path& path) const {
  struct stat file {
  }, folder{};
  if (::lstat(path.c_str(), &file) != 0 || !S_ISREG(file.st_mode) ||
      ::stat(model_dir_.c_str(), &folder) != 0) {
    return false;
  }
  return file.st_uid == 0 || file.st_uid == ::geteuid() || file.st_uid == folder.st_uid;
}

RememberedHashes HashMemory::load() const {
  RememberedHashes all;
  for (const fs::path& path : {beside_, cached_}) {
    if (!path.empty() && is_ours(path)) {
      RememberedHashes found = parse_remembered_hashes(read_whole(path));
      std::ranges::move(found.files, std::back_inserter(all.files));
      all.former.merge(found.former);
    }
  }
  return all;
}

fs::path HashMemory::save(const RememberedHashes& hashes) const {
  const std::string text = to_json(hashes);
  std::error_code failed;
  const bool taken = fs::exists(fs::symlink_status(beside_, failed)) && !is_ours(beside_);
  if (!taken && replace_whole(beside_, text)) {
    return beside_;
  }
  if (!cached_.empty()) {
    fs::create_directories(cached_.parent_path(), failed);
    if (replace_whole(cached_, text)) {
      return cached_;
    }
  }
  return {};
}

fs::path user_cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache != nullptr && *cache == '/') {  // The standard says that others are to be ignored.
    return fs::path(cache) / "tessera";
  }
  return home == nullptr || *home == '\0' ? fs::path() : fs::path(home) / ".cache" / "tessera";
}

}  // namespace tessera
