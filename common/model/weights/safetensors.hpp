#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/identity/file_hash.hpp"
#include "common/result.hpp"

namespace tessera {

enum class TensorType : std::uint8_t { kFloat32, kFloat16, kBFloat16, kOther };

std::string_view to_string(TensorType type);

// Where one tensor lies, relative to the first byte after the header.
struct TensorEntry {
  std::string name;
  TensorType type = TensorType::kOther;
  std::string type_name;  // as in the file, "BF16"
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

inline constexpr std::uint64_t kSafetensorsHeaderBytesMax = 4 << 20;

// Reads the JSON header of a file (the text between the 8-byte length and the data), whose data
// part has `data_bytes` bytes. Entries come sorted by offset; together they cover the data without
// hole or overlap, and each one's bytes are what its shape and type say. Anything else is an Error.
// Format: https://github.com/huggingface/safetensors#format
Result<std::vector<TensorEntry>> parse_safetensors_header(std::string_view header,
                                                          std::uint64_t data_bytes);

// A read-only mapping of a whole file. Move-only.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const FileStamp& stamp() const { return stamp_; }  // when it was opened

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  FileStamp stamp_;
};

// One tensor in mapped memory; valid as long as its SafetensorsFolder.
struct TensorView {
  TensorType type = TensorType::kOther;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

// The weights of a Hugging Face folder: model.safetensors, or without it the shards that
// model.safetensors.index.json names. All headers are checked on opening. Immutable after that;
// any thread may read.
class SafetensorsFolder {
 public:
  static Result<SafetensorsFolder> open(const std::filesystem::path& model_dir);

  // Absent: nullptr.
  const TensorView* find(std::string_view name) const;
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }

  struct File {
    std::string name;
    std::filesystem::path path;
    FileStamp stamp;  // when it was opened
    MappedFile mapping;
    std::string_view header;  // the JSON text, inside the mapping
  };
  std::span<const File> files() const { return files_; }
  // There is an index beside a whole file, which was not read.
  bool ignored_index() const { return ignored_index_; }
  // kConflict where a file is not the one that was opened any more, or was written to since: what
  // has been read from it may be of both.
  Result<void> check_unchanged() const;

 private:
  Result<void> add_file(const std::filesystem::path& path);
  Result<void> check_index(const std::map<std::string, std::string>& weight_map) const;

  std::vector<File> files_;
  bool ignored_index_ = false;
  std::map<std::string, TensorView, std::less<>> tensors_;
};

// The shard names that an index file's text maps tensors to; names with a path in them are refused.
Result<std::map<std::string, std::string>> parse_safetensors_index(std::string_view json);

}  // namespace tessera
