#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/identity/digest.hpp"
#include "common/model/identity/file_hash.hpp"

namespace tessera {

// What is known of a model folder's files from an earlier start.
struct RememberedHashes {
  struct File {
    std::string name;
    FileStamp stamp;
    Digest hash{};
  };
  std::vector<File> files;
  // By fingerprint: what versions that sampled the weights called the same model.
  std::map<std::string, std::string> former;

  // The hash of a file that is still the same; nullptr where it has to be read.
  const Digest* find(std::string_view name, const FileStamp& stamp) const;
};

// JSON, and back. Of a text that is damaged, or that somebody made up, nothing is taken.
std::string to_json(const RememberedHashes& hashes);
RememberedHashes parse_remembered_hashes(std::string_view text);

// Where the hashes of one model folder lie: in DIR/.tessera-fingerprint.json, or, where that cannot
// be written, under the name of the folder in `cache_folder`. Files are replaced as a whole, so
// that any number of processes may load and save at once. One that belongs neither to this user nor
// to root nor to the owner of the model folder, a link or a very large one is taken for absent.
class HashMemory {
 public:
  // An empty `cache_folder` is none.
  HashMemory(std::filesystem::path model_dir, const std::filesystem::path& cache_folder);

  RememberedHashes load() const;
  // Returns the file written, empty where none could be.
  std::filesystem::path save(const RememberedHashes& hashes) const;

 private:
  bool is_ours(const std::filesystem::path& path) const;

  std::filesystem::path model_dir_;
  std::filesystem::path beside_;
  std::filesystem::path cached_;  // empty: none
};

// $XDG_CACHE_HOME/tessera, or the same under ~/.cache; empty where neither is set.
std::filesystem::path user_cache_folder();

}  // namespace tessera
