#include "common/model/weights/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "common/model/settings/small_file.hpp"

namespace tessera {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::size_t kRankMax = 8;
constexpr std::size_t kTensorsMax = 100'000;
constexpr std::size_t kIndexBytesMax = 16 << 20;

Error invalid(std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message)};
}

struct TypeName {
  std::string_view name;
  TensorType type;
  std::uint64_t bytes;
};
constexpr TypeName kTypeNames[] = {
    {"BF16", TensorType::kBFloat16, 2}, {"F16", TensorType::kFloat16, 2},
    {"F32", TensorType::kFloat32, 4},   {"F64", TensorType::kOther, 8},
    {"I64", TensorType::kOther, 8},     {"U64", TensorType::kOther, 8},
    {"I32", TensorType::kOther, 4},     {"U32", TensorType::kOther, 4},
    {"I16", TensorType::kOther, 2},     {"U16", TensorType::kOther, 2},
    {"I8", TensorType::kOther, 1},      {"U8", TensorType::kOther, 1},
    {"BOOL", TensorType::kOther, 1},    {"F8_E4M3", TensorType::kOther, 1},
    {"F8_E5M2", TensorType::kOther, 1},
};

// Element count times size, or nothing when it does not fit 63 bits.
bool multiply(std::uint64_t& product, std::uint64_t factor) {
  return !__builtin_mul_overflow(product, factor, &product) &&
         product <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
}

bool is_unsigned(const json& value) { return value.is_number_unsigned(); }

Result<TensorEntry> parse_entry(const std::string& name, const json& value) {
  const auto complain = [&](const std::string& text) {
    return invalid("tensor \"" + name.substr(0, 100) + "\": " + text);
  };
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    return complain("dtype, shape and data_offsets are not all there");
  }
  const json &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || shape.size() > kRankMax || !offsets.is_array() ||
      offsets.size() != 2 || !std::ranges::all_of(shape, is_unsigned) ||
      !std::ranges::all_of(offsets, is_unsigned)) {
    return complain("dtype, shape or data_offsets is malformed");
  }
  TensorEntry entry;
  entry.name = name;
  entry.type_name = dtype.get<std::string>();
  const auto type = std::ranges::find(kTypeNames, entry.type_name, &TypeName::name);
  if (type == std::end(kTypeNames)) {
    return complain("unknown dtype");
  }
  entry.type = type->type;
  std::uint64_t bytes = type->bytes;
  for (const json& extent : shape) {
    if (!multiply(bytes, extent.get<std::uint64_t>())) {
      return complain("shape is too large");
    }
    entry.shape.push_back(extent.get<std::int64_t>());
  }
  entry.begin = offsets[0].get<std::uint64_t>();
  entry.end = offsets[1].get<std::uint64_t>();
  if (entry.begin > entry.end || entry.end - entry.begin != bytes) {
    return complain("data_offsets do not match dtype and shape");
  }
  return entry;
}

Result<void> check_coverage(const std::vector<TensorEntry>& entries, std::uint64_t data_bytes) {
  std::uint64_t expected = 0;
  for (const TensorEntry& entry : entries) {
    if (entry.begin != expected) {
      return invalid("tensor \"" + entry.name.substr(0, 100) + "\" " +
                     (entry.begin < expected ? "overlaps another" : "leaves a hole before it"));
    }
    expected = entry.end;
  }
  if (expected != data_bytes) {
    return invalid("the header describes " + std::to_string(expected) +
                   " bytes of data, the file holds " + std::to_string(data_bytes) +
                   "; fetch it again");
  }
  return {};
}

}  // namespace

std::string_view to_string(TensorType type) {
  switch (type) {
    case TensorType::kFloat32:
      return "float32";
    case TensorType::kFloat16:
      return "float16";
    case TensorType::kBFloat16:
      return "bfloat16";
    case TensorType::kOther:
      return "other";
  }
  return "other";
}

Result<std::vector<TensorEntry>> parse_safetensors_header(std::string_view header,
                                                          std::uint64_t data_bytes) {
  if (header.size() > kSafetensorsHeaderBytesMax) {
    return invalid("header is larger than " + std::to_string(kSafetensorsHeaderBytesMax) +
                   " bytes");
  }
  const json object = json::parse(header, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) {
    return invalid("header is not a JSON object");
  }
  if (object.size() > kTensorsMax) {
    return invalid("header names more than " + std::to_string(kTensorsMax) + " tensors");
  }
  std::vector<TensorEntry> entries;
  for (const auto& [name, value] : object.items()) {
    if (name == "__metadata__") {
      continue;
    }
    auto entry = parse_entry(name, value);
    if (!entry) {
      return entry.error();
    }
    entries.push_back(std::move(entry).value());
  }
  std::ranges::sort(entries, {}, [](const TensorEntry& e) { return std::pair(e.begin, e.end); });
  if (auto covered = check_coverage(entries, data_bytes); !covered) {
    return covered.error();
  }
  return entries;
}

Result<std::map<std::string, std::string>> parse_safetensors_index(std::string_view text) {
  const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object() || !object.contains("weight_map") || !object["weight_map"].is_object()) {
    return invalid("index holds no weight_map");
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, file] : object["weight_map"].items()) {
    if (!file.is_string()) {
      return invalid("weight_map holds something that is not a file name");
    }
    const auto& name = file.get_ref<const std::string&>();
    const bool plain = !name.empty() && name.size() < 256 && name[0] != '.' &&
                       name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
    if (!plain) {
      return invalid("weight_map names a file outside the folder");
    }
    weight_map.emplace(tensor, name);
  }
  if (weight_map.empty()) {
    return invalid("weight_map is empty");
  }
  return weight_map;
}

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (fd < 0) {
    return cannot_open(path, errno);
  }
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    return Error{ErrorCode::kNotFound, path.string() + " is not a regular file"};
  }
  MappedFile file;
  file.size_ = static_cast<std::size_t>(status.st_size);
  file.stamp_ = stamp_of(status);
  void* address =
      file.size_ == 0 ? nullptr : ::mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, fd, 0);
  ::close(fd);
  if (address == MAP_FAILED) {
    file.size_ = 0;
    return Error{ErrorCode::kNotFound, path.string() + " cannot be mapped"};
  }
  file.data_ = static_cast<const std::byte*>(address);
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      stamp_(other.stamp_) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(stamp_, other.stamp_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(const_cast<std::byte*>(data_), size_);
  }
}

Result<void> SafetensorsFolder::add_file(const std::filesystem::path& path) {
  const auto complain = [&](const std::string& text) {
    return invalid(path.string() + ": " + text);
  };
  auto mapped = MappedFile::open(path);
  if (!mapped) {
    return mapped.error();
  }
  File file{.name = path.filename().string(),
            .path = path,
            .stamp = mapped->stamp(),
            .mapping = std::move(mapped).value(),
            .header = {}};
  const std::span<const std::byte> bytes = file.mapping.bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (auto pointer = lfs_pointer(path, text)) {
    return *pointer;
  }
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof(header_bytes)) {
    return complain("too short for a safetensors file; fetch it again");
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  if (header_bytes > kSafetensorsHeaderBytesMax ||
      header_bytes > bytes.size() - sizeof(header_bytes)) {
    return complain(
        "the header's length is larger than the file or the limit, so this is no whole safetensors "
        "file; fetch it again");
  }
  const auto data = bytes.subspan(sizeof(header_bytes) + header_bytes);
  file.header = std::string_view(reinterpret_cast<const char*>(bytes.data()) + sizeof(header_bytes),
                                 header_bytes);
  auto entries = parse_safetensors_header(file.header, data.size());
  if (!entries) {
    return complain(entries.error().message);
  }
  for (const TensorEntry& entry : *entries) {
    const TensorView view{.type = entry.type,
                          .shape = entry.shape,
                          .bytes = data.subspan(entry.begin, entry.end - entry.begin)};
    if (!tensors_.emplace(entry.name, view).second) {
      return complain("tensor \"" + entry.name.substr(0, 100) + "\" is in another shard too");
    }
  }
  files_.push_back(std::move(file));
  return {};
}

Result<void> SafetensorsFolder::check_index(
    const std::map<std::string, std::string>& weight_map) const {
  for (const auto& [tensor, file] : weight_map) {
    if (find(tensor) == nullptr) {
      return invalid("model.safetensors.index.json: tensor \"" + tensor.substr(0, 100) +
                     "\" is not in its file");
    }
  }
  return {};
}

namespace {

// Of files that hold weights in another form; training leaves others with these suffixes.
bool holds_other_weights(const std::string& lower_name) {
  const auto ends = [&](std::string_view suffix) { return lower_name.ends_with(suffix); };
  return ends(".gguf") || ends(".onnx") || ends(".h5") || ends(".msgpack") ||
         ((ends(".bin") || ends(".pt") || ends(".pth")) &&
          (lower_name.starts_with("pytorch_model") || lower_name.starts_with("model") ||
           lower_name.starts_with("consolidated")));
}

// Why a folder without safetensors files has no weights for us.
Error without_weights(const std::filesystem::path& dir) {
  std::error_code failed;
  for (std::filesystem::directory_iterator it(dir, failed), end; !failed && it != end;
       it.increment(failed)) {
    const std::string name = it->path().filename().string();
    std::string lower = name;
    std::ranges::transform(lower, lower.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    if (holds_other_weights(lower)) {
      return invalid(dir.string() + " has its weights only in " + name +
                     ", which Tessera does not read; save the model as safetensors (transformers' "
                     "save_pretrained does) and give that folder");
    }
  }
  return {ErrorCode::kNotFound,
          dir.string() +
              " holds no weights: neither model.safetensors nor model.safetensors.index.json is "
              "there; download them"};
}

}  // namespace

Result<SafetensorsFolder> SafetensorsFolder::open(const std::filesystem::path& model_dir) {
  SafetensorsFolder folder;
  const auto whole = model_dir / "model.safetensors";
  const auto index_path = model_dir / "model.safetensors.index.json";
  folder.ignored_index_ = is_there(whole) && is_there(index_path);
  if (is_there(whole)) {  // As transformers has it: a whole file goes before an index.
    if (auto added = folder.add_file(whole); !added) {
      return added.error();
    }
    return folder;
  }
  if (!is_there(index_path)) {
    return without_weights(model_dir);
  }
  auto text = read_small_file(index_path, kIndexBytesMax);
  if (!text) {
    return text.error();
  }
  auto weight_map = parse_safetensors_index(*text);
  if (!weight_map) {
    return invalid(index_path.string() + ": " + weight_map.error().message);
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : *weight_map) {
    names.insert(file);
  }
  for (const std::string& name : names) {
    if (!is_there(model_dir / name)) {
      return Error{ErrorCode::kNotFound, index_path.string() + " names the file " + name +
                                             ", which is not there; download the rest of the "
                                             "model"};
    }
    if (auto added = folder.add_file(model_dir / name); !added) {
      return added.error();
    }
  }
  if (auto checked = folder.check_index(*weight_map); !checked) {
    return checked.error();
  }
  return folder;
}

Result<void> SafetensorsFolder::check_unchanged() const {
  for (const File& file : files_) {
    if (const auto now = stamp_of(file.path); !now || !now->same_contents(file.stamp)) {
      return Error{
          ErrorCode::kConflict,
          file.path.string() + " was changed while it was read: start again when it is complete"};
    }
  }
  return {};
}

const TensorView* SafetensorsFolder::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace tessera
