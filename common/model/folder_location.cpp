#include "common/model/folder_location.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <vector>

#include "common/model/settings/small_file.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHubPrefix = "models--";
constexpr std::size_t kRefBytesMax = 1000;

Error invalid(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message)}; }

bool has_suffix(const fs::path& path, std::string_view suffix) {
  std::string own = path.extension().string();
  std::ranges::transform(own, own.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return own == suffix;
}

bool is_gguf(const fs::path& path) {
  std::array<char, 4> magic{};
  std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
  return has_suffix(path, ".gguf") || std::string_view(magic.data(), magic.size()) == "GGUF";
}

const std::string kGgufAdvice =
    "which llama.cpp and Ollama use; give the folder of the model that it was converted from, with "
    "config.json, tokenizer.json and model.safetensors";

// ORG/NAME, for one or for an address of the hub's page of a model; else nothing.
std::string hub_name(const std::string& text) {
  static const std::regex kName(
      "((https?:/+)?(www\\.)?(huggingface\\.co|hf\\.co)/+)?"
      "([A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)(/.*)?");
  std::smatch found;
  const bool fits = std::regex_match(text, found, kName);
  return fits && (found[1].matched || !found[6].matched) ? found[5].str() : "";
}

Error not_there(const fs::path& given) {
  const std::string name = given.string();
  const std::string on_hub = hub_name(name);
  if (on_hub.empty()) {
    return {ErrorCode::kNotFound, name + ": there is no such folder"};
  }
  return {ErrorCode::kNotFound,
          name +
              ": there is no such folder; if a model of that name on the Hugging Face hub is "
              "meant, fetch it with `hf download " +
              on_hub + " --local-dir DIR` and give DIR"};
}

Error describe_file(const fs::path& given) {
  const std::string name = given.string();
  if (is_gguf(given)) {
    return invalid(name + " is a GGUF file, " + kGgufAdvice);
  }
  if (std::string head(200, '\0'); std::ifstream(given, std::ios::binary).read(head.data(), 50)) {
    if (auto pointer = lfs_pointer(given, head)) {
      return *pointer;
    }
  }
  return invalid(name +
                 " is a file; give the folder that holds config.json, tokenizer.json and "
                 "model.safetensors");
}

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  std::error_code failed;
  for (fs::directory_iterator it(dir, failed), end; !failed && it != end; it.increment(failed)) {
    names.push_back(it->path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

Result<fs::path> find_snapshot(const fs::path& cache) {
  const std::string name = cache.string();
  const std::vector<std::string> snapshots = names_in(cache / "snapshots");
  if (is_there(cache / "refs" / "main")) {
    auto ref = read_small_file(cache / "refs" / "main", kRefBytesMax);
    if (!ref) {
      return ref.error();
    }
    ref->erase(std::remove_if(ref->begin(), ref->end(), [](char c) { return c <= ' '; }),
               ref->end());
    if (std::ranges::find(snapshots, *ref) == snapshots.end()) {
      return invalid(name + ": refs/main names the snapshot " + ref->substr(0, 60) +
                     ", which is not there; download the model again");
    }
    return cache / "snapshots" / *ref;
  }
  if (snapshots.size() != 1) {
    return invalid(name + " is a folder of the hub's cache with " +
                   std::to_string(snapshots.size()) +
                   " snapshots and no refs/main; give one of the folders in " +
                   (cache / "snapshots").string());
  }
  return cache / "snapshots" / snapshots.front();
}

// For a folder without config.json: what it is instead.
Error describe_without_config(const fs::path& dir) {
  const std::string name = dir.string();
  const std::vector<std::string> names = names_in(dir);
  const auto any = [&](auto test) { return std::ranges::any_of(names, test); };
  if (any([&](const std::string& file) { return has_suffix(file, ".gguf"); })) {
    return invalid(name + " holds a GGUF file, " + kGgufAdvice);
  }
  if (any([](const std::string& file) { return file.starts_with(kHubPrefix); })) {
    return invalid(name + " is the hub's cache of several models; give one of its folders " +
                   std::string(kHubPrefix) + "...");
  }
  if (names.empty()) {
    return invalid(name +
                   " is an empty folder; give the one with config.json, tokenizer.json and "
                   "model.safetensors");
  }
  return {ErrorCode::kNotFound,
          name +
              " holds no config.json, so it is no model folder of Hugging Face; give the one "
              "with config.json, tokenizer.json and model.safetensors"};
}

}  // namespace

Result<fs::path> find_model_folder(const fs::path& given) {
  std::error_code failed;
  const fs::file_status status = fs::status(given, failed);
  if (!fs::exists(status)) {
    const bool absent = !failed || failed == std::errc::no_such_file_or_directory ||
                        failed == std::errc::not_a_directory;
    return absent ? not_there(given) : cannot_open(given, failed.value());
  }
  if (!fs::is_directory(status)) {
    return describe_file(given);
  }
  fs::directory_iterator readable(given, failed);
  if (failed) {
    return cannot_open(given, failed.value());
  }
  fs::path dir = given;
  if (!is_there(dir / "config.json") && !is_there(dir / "modules.json") &&
      fs::is_directory(dir / "snapshots", failed)) {
    auto snapshot = find_snapshot(dir);
    if (!snapshot) {
      return snapshot.error();
    }
    dir = std::move(*snapshot);
  }
  if (is_there(dir / "adapter_config.json")) {
    return invalid(dir.string() +
                   " holds a PEFT adapter (adapter_config.json), which changes another model's "
                   "weights; merge the two (merge_and_unload, then save_pretrained) and give the "
                   "folder of the merged model");
  }
  if (!is_there(dir / "config.json") && !is_there(dir / "modules.json")) {
    return describe_without_config(dir);
  }
  return dir;
}

std::string model_name(const fs::path& given) {
  fs::path canonical = fs::weakly_canonical(given);
  if (!canonical.has_filename()) {  // "folder/"
    canonical = canonical.parent_path();
  }
  std::string name = canonical.filename().string();
  if (name.starts_with(kHubPrefix)) {
    const std::size_t at = name.rfind("--");
    name = name.substr(at + 2);
  }
  return name;
}

}  // namespace tessera
