#include "common/model/fingerprint.hpp"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "common/model/identity/hasher.hpp"
#include "common/model/settings/model_config.hpp"
#include "common/model/settings/small_file.hpp"

namespace tessera {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPagesPerTensor = 16;
constexpr std::size_t kTokenizerBytesMax = 256 << 20;
constexpr std::string_view kTag = "tessera fingerprint 2";
constexpr std::string_view kNumericTypes[] = {"bfloat16", "float32"};

std::vector<const SafetensorsFolder::File*> by_name(const SafetensorsFolder& weights) {
  std::vector<const SafetensorsFolder::File*> files;
  for (const auto& file : weights.files()) {
    files.push_back(&file);
  }
  std::ranges::sort(files, {}, [](const auto* file) { return file->name; });
  return files;
}

// First and last page of a tensor and 14 at equal steps between them; all of it up to 64 KiB.
void hash_samples(Hasher& hasher, std::span<const std::byte> bytes) {
  if (bytes.size() <= kPage * kPagesPerTensor) {
    hasher.raw(bytes);
    return;
  }
  const std::size_t room = bytes.size() - kPage;
  for (std::size_t i = 0; i < kPagesPerTensor; ++i) {
    hasher.raw(bytes.subspan(room / (kPagesPerTensor - 1) * i, kPage));
  }
  hasher.raw(bytes.last(kPage));
}

// The fingerprint of versions that sampled. Never to be changed: ledgers hold it.
std::string sampled_fingerprint(std::string_view numeric_type, std::string_view config,
                                std::string_view tokenizer, const SafetensorsFolder& weights) {
  Hasher hasher;
  hasher.field(numeric_type);
  hasher.field(config);
  hasher.field(tokenizer);
  for (const auto* file : by_name(weights)) {
    hasher.field(file->name);
    hasher.field(file->header);
  }
  for (const auto& [name, tensor] : weights.tensors()) {
    hasher.field(name);
    hash_samples(hasher, tensor.bytes);
  }
  return to_hex(hasher.finish());
}

// Whether versions that sampled gave the folder the vectors that this one gives: they knew no
// modules, and another theta where config.json says none.
bool former_versions_agree(const ModelFolder& folder, const std::string& config) {
  const auto json = nlohmann::json::parse(config, nullptr, false);
  if (!json.is_object() || !dense_weight_files(folder).empty()) {
    return false;
  }
  const auto parameters = json.find("rope_parameters");
  const auto& rope = parameters != json.end() && parameters->is_object() ? *parameters : json;
  const auto theta = rope.find("rope_theta");
  return folder.config.rope_theta ==
         (theta != rope.end() && theta->is_number() ? theta->get<double>() : 1e6);
}

}  // namespace

Result<std::string> tokenizer_hash(const std::filesystem::path& model_dir) {
  auto text = read_small_file(model_dir / "tokenizer.json", kTokenizerBytesMax);
  if (!text) {
    return text.error();
  }
  return to_hex(blake2b(std::as_bytes(std::span(*text))));
}

Result<ModelHash> ModelHash::of(const ModelFolder& folder, const SafetensorsFolder& weights,
                                const FingerprintOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  auto config = read_small_file(folder.transformer_dir() / "config.json", kModelConfigBytesMax);
  if (!config) {
    return config.error();
  }
  auto tokenizer = tokenizer_hash(folder.transformer_dir());
  if (!tokenizer) {
    return tokenizer.error();
  }
  ModelHash hash;
  hash.config_ = std::move(*config);
  hash.settings_ = canonical_settings(folder);
  hash.tokenizer_ = std::move(*tokenizer);
  if (auto listed = hash.list_files(folder, weights); !listed) {
    return listed.error();
  }
  const HashMemory memory(folder.dir, options.cache_folder);
  const RememberedHashes known = memory.load();
  RememberedHashes next;
  if (auto hashed = hash.hash_files(options, known, next); !hashed) {
    return hashed.error();
  }
  const bool is_new =
      former_versions_agree(folder, hash.config_) && hash.add_former(weights, options, known, next);
  if ((hash.work_.bytes_read > 0 || is_new) && !next.files.empty()) {
    hash.work_.remembered_in = memory.save(next);
  }
  hash.work_.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return hash;
}

Result<void> ModelHash::list_files(const ModelFolder& folder, const SafetensorsFolder& weights) {
  const auto add = [&](const std::filesystem::path& path, const FileStamp& stamp) {
    files_.push_back({.name = path.lexically_relative(folder.dir).string(),
                      .file = {.path = path, .stamp = stamp}});
    work_.bytes += stamp.size;
  };
  for (const auto* file : by_name(weights)) {
    add(file->path, file->stamp);
  }
  for (const auto& path : dense_weight_files(folder)) {
    const auto stamp = stamp_of(path);
    if (!stamp) {
      return stamp.error();
    }
    add(path, *stamp);
  }
  return {};
}

Result<void> ModelHash::hash_files(const FingerprintOptions& options, const RememberedHashes& known,
                                   RememberedHashes& next) {
  const std::int64_t start_ns = options.clock();
  const auto remembered = [&](const File& file) { return known.find(file.name, file.file.stamp); };
  std::vector<StampedFile> to_read;
  for (const File& file : files_) {
    if (options.rehash || remembered(file) == nullptr) {
      to_read.push_back(file.file);
      work_.bytes_read += file.file.stamp.size;
    }
  }
  auto hashes = tessera::hash_files(to_read, options.threads, options.stop);
  if (!hashes) {
    return hashes.error();
  }
  auto read = hashes->begin();
  for (File& file : files_) {
    const Digest* before = remembered(file);
    const bool was_read = options.rehash || before == nullptr;
    file.hash = was_read ? *read++ : *before;
    if (before != nullptr && file.hash != *before) {
      work_.wrong.push_back(file.name);
    }
    if (!was_read || !written_just_now(file.file.stamp, start_ns)) {
      next.files.push_back({.name = file.name, .stamp = file.file.stamp, .hash = file.hash});
    }
  }
  return {};
}

bool ModelHash::add_former(const SafetensorsFolder& weights, const FingerprintOptions& options,
                           const RememberedHashes& known, RememberedHashes& next) {
  bool is_new = false;
  for (const std::string_view type : kNumericTypes) {
    const std::string now = fingerprint(type);
    const auto found = known.former.find(now);
    const bool remembered = found != known.former.end() && !options.rehash;
    const std::string former =
        remembered ? found->second : sampled_fingerprint(type, config_, tokenizer_, weights);
    is_new = is_new || !remembered;
    next.former.emplace(now, former);
    former_.emplace(type, former);
  }
  return is_new;
}

std::string ModelHash::fingerprint(std::string_view numeric_type) const {
  Hasher hasher;
  hasher.field(kTag);
  hasher.field(numeric_type);
  hasher.field(config_);
  hasher.field(settings_);
  hasher.field(tokenizer_);
  for (const File& file : files_) {
    hasher.field(file.name);
    hasher.raw(file.hash);
  }
  return to_hex(hasher.finish());
}

std::string ModelHash::former_fingerprint(std::string_view numeric_type) const {
  const auto found = former_.find(numeric_type);
  return found == former_.end() ? "" : found->second;
}

}  // namespace tessera
